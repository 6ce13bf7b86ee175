"""The pictures and the sound of a session, where they were recorded, as a source of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dhmd.session import Record, Session, SessionInvalid, schema
from realtime.capture.samples import AudioBlock, VideoFrame


def has_media(session: Session) -> bool:
    """Whether pictures or sound were recorded."""
    return next(session.records({schema.VIDEO, schema.SOUND}), None) is not None


def samples(session: Session) -> Iterator[VideoFrame | AudioBlock]:
    """In the order they were recorded; that of perception, which is nearly that of arrival. Raises SessionInvalid."""
    decoder = VideoDecoder(session)
    newest_s = 0.0
    for record in session.records({schema.VIDEO, schema.SOUND}):
        newest_s = max(newest_s, record.arrived_s)
        if record.topic == schema.VIDEO:
            yield from decoder.frames(record, newest_s)
        else:
            sound = np.frombuffer(record.message.data, "<i2").astype(np.float32) / np.float32(32768)
            yield AudioBlock(sound, record.captured_s, newest_s)


class VideoDecoder:
    def __init__(self, session: Session) -> None:
        import av

        self._session = session
        self._context: Any = av.CodecContext.create("h264", "r")
        self._context.thread_count = 1  # others hold pictures back
        self._waiting: list[float] = []

    def frames(self, record: Record, arrived_s: float) -> Iterator[VideoFrame]:
        import av

        self._waiting.append(record.captured_s)
        try:
            decoded = self._context.decode(av.Packet(record.message.data))
        except av.FFmpegError as error:
            raise SessionInvalid(f"{self._session.path}: its pictures cannot be decoded ({error.strerror})") from None
        for frame in decoded:
            yield VideoFrame(frame.to_ndarray(format="bgr24"), self._waiting.pop(0), arrived_s)
