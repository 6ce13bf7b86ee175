"""A visitor without a browser: a media file, sent as a page would send its camera and microphone."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from dhmd.untrusted import read_json_object
from realtime.capture.media import MediaFile
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame

JPEG_QUALITY: Final = 75


def picture(captured_s: float, jpeg: bytes) -> bytes:
    """Return the message of a picture. captured_s: page time."""
    return struct.pack("<Bd", 1, captured_s) + jpeg


def sound(captured_s: float, block: AudioBlock) -> bytes:
    samples = np.clip(np.round(block.samples * 32768), -32768, 32767).astype("<i2")
    return struct.pack("<Bd", 2, captured_s) + samples.tobytes()


class SimulatedVisitor:
    """Speaks the protocol of docs/web.md. Its page time is the machine's monotonic clock."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session: str | None = None
        self.received: list[dict[str, Any]] = []
        """All messages, in the order of their arrival, each with `at`, the page time at which it came."""
        self._came = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def at(cls, address: str, source: str | None = None) -> AsyncIterator[Self]:
        """Open the page's WebSocket. address: as the server printed it. source: the address to come from."""
        parts = urlsplit(address)
        scheme = "wss" if parts.scheme == "https" else "ws"
        uri = f"{scheme}://{parts.netloc}/stream" + (f"?{parts.query}" if parts.query else "")
        origin, own = f"{parts.scheme}://{parts.netloc}", (source, 0) if source else None
        # Like a browser it sends no pings: one that waits behind a flood of its own would end the connection.
        async with connect(uri, origin=origin, max_size=None, ping_interval=None, local_addr=own) as socket:  # type: ignore[arg-type]
            visitor = cls(socket)
            listening = asyncio.create_task(visitor._listen())
            try:
                yield visitor
            finally:
                listening.cancel()

    async def say(self, what: str, /, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": what, **fields}))

    async def told(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """Return the newest message of a kind with these fields, waiting for it."""

        def found() -> dict[str, Any] | None:
            matching = (one for one in reversed(self.received) if one["type"] == kind)
            return next((one for one in matching if fields.items() <= one.items()), None)

        async with self._came:
            await self._came.wait_for(lambda: found() is not None)
        return found() or {}

    async def another(self, kind: str) -> dict[str, Any]:
        """Return the next message of a kind."""
        known = len(self.all(kind))
        async with self._came:
            await self._came.wait_for(lambda: len(self.all(kind)) > known)
        return self.all(kind)[known]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.received if one["type"] == kind]

    async def join(self, session: str | None = None) -> None:
        """Begin a session, or continue one, and have camera and microphone on."""
        await self.say("join", session=session)
        self.session = (await self.told("joined"))["session"]
        await self.say("source", kind="video", state="on")
        await self.say("source", kind="audio", state="on", rate=SAMPLE_RATE_HZ)
        await self.told("clock")

    async def play(self, media: MediaFile, pictures_hz: float = 15.0) -> None:
        """Send a file at its own pace."""
        import cv2

        start_s, due_s = time.monotonic(), 0.0
        for sample in media.samples():
            end_s = sample.end_s if isinstance(sample, AudioBlock) else sample.captured_s
            await asyncio.sleep(max(0.0, start_s + end_s - time.monotonic()))
            if isinstance(sample, AudioBlock):
                await self.socket.send(sound(start_s + sample.captured_s, sample))
            elif isinstance(sample, VideoFrame) and sample.captured_s >= due_s:
                due_s = max(due_s + 1 / pictures_hz, sample.captured_s)
                _, jpeg = cv2.imencode(".jpg", sample.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                await self.socket.send(picture(start_s + sample.captured_s, jpeg.tobytes()))

    async def _listen(self) -> None:
        async for text in self.socket:
            told = read_json_object(text)
            if told["type"] == "ping":
                await self.say("pong", id=told["id"], t=time.monotonic())
            async with self._came:
                self.received.append({**told, "at": time.monotonic()})
                self._came.notify_all()
