"""Pages that look at one stream: what the machine itself sees and hears, a file, or a replay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from typing import Final

from starlette.websockets import WebSocket

from dhmd.untrusted import read_json_object
from realtime.pipeline.pipeline import Pipeline
from realtime.web.feed import Feed
from realtime.web.pages import Page, hello, steadiness_of, steer
from realtime.web.player import Player
from realtime.web.protocol import REFUSED, Choose, Key, NotTaken, Play, Record, Steady, read_text
from realtime.web.recordings import PageRecording

KEY_EVERY_S: Final = 0.1
"""Keys that come faster are passed over."""


class Viewers:
    """All who look at one feed. player: of recordings; None where what they see is live."""

    def __init__(self, feed: Feed, player: Player | None = None) -> None:
        self.feed = feed
        self._player = player
        self.on_key: Callable[[str], object] | None = None
        """Takes the keys that mark what is recorded; None where nothing is."""
        self.recording: PageRecording | None = None
        """What pages start and stop; None where nothing can be recorded."""
        self.steers: Pipeline | None = None
        """The pipeline whose subject and steadiness pages may choose."""

    async def attend(self, socket: WebSocket) -> None:
        """Serve one page until it leaves."""
        page = Page()
        described = {
            "stream": self.feed.stream,
            "broker": self.feed.connection,
            "atoms": self.feed.atoms,
            "marking": self.on_key is not None,
            "recordable": self.recording is not None,
            "choosing": self.steers is not None,
            "steadiness": self.steers and steadiness_of(self.steers.steadied.steadiness),
        }
        page.tell(hello("recording" if self._player else "server", **described))
        for text in self._player.described() if self._player else ():
            page.tell(text)
        with self.feed.page(page), self._player.watched() if self._player else nullcontext():
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(page.send(socket))
                await self._listen(socket)
                sending.cancel()

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield each estimate as a server-sent event, until the end of the run."""
        listener = Page()
        with self.feed.page(listener):
            async for one in listener.outgoing():
                if isinstance(one, bytes):
                    continue
                said = read_json_object(one)
                if said["type"] == "estimate":
                    yield f"event: estimate\ndata: {json.dumps(said['data'], separators=(',', ':'))}\n\n"
                elif said["type"] == "ended":
                    yield "event: ended\ndata: {}\n\n"
                    return

    async def _listen(self, socket: WebSocket) -> None:
        """Listen until the page leaves, or says what it may not: it may choose who is read and how steadily, record,
        and mark what is recorded."""
        heard_s = 0.0
        while (received := await socket.receive())["type"] == "websocket.receive":
            try:
                said = read_text(received.get("text") or "")
            except NotTaken:
                said = None
            on_key = self.on_key or (self.recording.on_key if self.recording else None)
            if isinstance(said, Record) and self.recording is not None:
                self.recording.on_request(said.on, said.video, said.audio, said.language)
            elif isinstance(said, Key) and on_key is not None:
                if time.monotonic() - heard_s >= KEY_EVERY_S:
                    heard_s = time.monotonic()
                    on_key(said.key)
            elif isinstance(said, Play) and self._player is not None:
                self._player.on_asked(said)
            elif isinstance(said, Choose | Steady) and self.steers is not None:
                steer(self.steers, said)
            else:
                await socket.close(REFUSED, "this page says what it may not; load it again")
                return

    async def play(self) -> None:
        """Play recordings to those who look, until cancelled. Raises SessionInvalid."""
        if self._player is not None:
            await self._player.run()

    def end(self) -> None:
        self.feed.end("the run has ended")
