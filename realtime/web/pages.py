"""Queue of what is sent to one page: messages in order and the newest picture, bounded, for pages that fall behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.capture.samples import VideoFrame
from realtime.pipeline.pipeline import Pipeline
from realtime.recognition.steadiness import Steadiness
from realtime.web.protocol import Choose, Steady

WAITING: Final = 64
"""Messages that wait for one page at most; the oldest make room."""
PICTURE_SIDE: Final = 640
JPEG_QUALITY: Final = 70
SERVER: Final = secrets.token_hex(8)
"""This life of the server: what an earlier one has offered to fetch is gone."""


@dataclass(frozen=True)
class Picture:
    """A frame to be shown, encoded by the first page that sends it: not in the thread that looks for faces."""

    frame: VideoFrame

    @cached_property
    def encoded(self) -> bytes:
        """Capture time, float64, and a JPEG."""
        return struct.pack("<d", self.frame.captured_s) + _jpeg(self.frame.image)


class Page:
    """One browser's queue. `put` is for any thread, the rest for the event loop."""

    def __init__(self) -> None:
        self.messages: deque[str] = deque(maxlen=WAITING)
        self.picture: Picture | None = None
        self.wake = asyncio.Event()
        self.dropped = 0

    def put(self, text: str | None = None, picture: Picture | None = None) -> None:
        """Leave something for the page; it looks when `wake` is set."""
        if text is not None:
            self.dropped += len(self.messages) == WAITING
            self.messages.append(text)
        if picture is not None:
            self.picture = picture

    def tell(self, text: str) -> None:
        self.put(text)
        self.wake.set()

    async def outgoing(self) -> AsyncIterator[str | bytes]:
        """Yield what is to be sent, as it comes: text is JSON; bytes are a capture time, float64, and a JPEG."""
        missed = 0
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.messages:
                yield self.messages.popleft()
            if self.dropped > missed:
                missed = self.dropped
                yield message("missed", {"count": missed})
            if (picture := self.picture) is not None:
                self.picture = None
                yield await asyncio.to_thread(lambda picture=picture: picture.encoded)  # type: ignore[misc]

    async def send(self, socket: WebSocket) -> None:
        """Send what comes until the page is gone."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            async for one in self.outgoing():
                await (socket.send_text(one) if isinstance(one, str) else socket.send_bytes(one))


def hello(source: str, **described: Any) -> str:
    """Return the first message of a conversation. source: server, browser or recording."""
    return message("hello", {"source": source, "server": SERVER, **described})


def steadiness_of(steadiness: Steadiness) -> dict[str, float]:
    """Return the fields of a page's `steady`."""
    return {"smoothing": steadiness.smoothing_s, "margin": steadiness.margin}


def steer(pipeline: Pipeline, asked: Choose | Steady) -> None:
    """Read the person, or name emotions as steadily, as a page asks."""
    match asked:
        case Choose():
            pipeline.perception.extractors.face.choose(asked.x, asked.y)
        case Steady():
            pipeline.steadied.keep(Steadiness(asked.smoothing, asked.margin))


def message(kind: str, data: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **data}, separators=(",", ":"))


def _jpeg(image: Any) -> bytes:
    import cv2

    height, width = image.shape[:2]
    scale = PICTURE_SIDE / max(height, width)
    if scale < 1:
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(data)
