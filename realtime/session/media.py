"""Pictures and sound of a session, where they are recorded: written as H.264, read as a source of samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from dhmd.errors import LibraryMissing
from dhmd.media.picture import bgr
from dhmd.session import Session, SessionInvalid, SessionMessage, schema
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.session import messages

ENCODER: Final = "libx264"


def has_media(session: Session) -> bool:
    """Return whether pictures or sound were recorded."""
    return next(session.records({schema.VIDEO, schema.SOUND}), None) is not None


def samples(session: Session) -> Iterator[VideoFrame | AudioBlock]:
    """Yield pictures and sound in the order they were perceived, which is nearly that of arrival.

    Raises SessionInvalid.
    """
    decoder = VideoDecoder(session)
    newest_s = 0.0
    for record in session.records({schema.VIDEO, schema.SOUND}):
        newest_s = max(newest_s, record.arrived_s)
        if record.topic == schema.VIDEO:
            yield from decoder.frames(record, newest_s)
        else:
            sound = np.frombuffer(record.message.data, "<i2").astype(np.float32) / np.float32(32768)
            yield AudioBlock(sound, record.captured_s, newest_s)


KEY_PICTURE: Final = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
"""A parameter set, which comes with each key picture."""


class VideoDecoder:
    """Decodes the pictures of a session, from the first key picture on."""

    def __init__(self, session: Session) -> None:
        import av

        self._session = session
        self._context: Any = av.CodecContext.create("h264", "r")
        self._context.thread_count = 1  # others hold pictures back
        self._waiting: list[float] = []
        self._begun = False

    def frames(self, record: SessionMessage, arrived_s: float) -> Iterator[VideoFrame]:
        import av

        self._begun = self._begun or KEY_PICTURE.search(record.message.data) is not None
        if not self._begun:
            return
        self._waiting.append(record.captured_s)
        try:
            decoded = self._context.decode(av.Packet(record.message.data))
        except av.FFmpegError as error:
            raise SessionInvalid(f"{self._session.path}: its pictures cannot be decoded ({error.strerror})") from None
        for frame in decoded:
            yield VideoFrame(bgr(frame), self._waiting.pop(0), arrived_s)


def require_encoder() -> None:
    """Raise LibraryMissing where pictures cannot be encoded: x264 is under the GPL, and not every build holds it."""
    import av

    if ENCODER not in av.codecs_available:
        raise LibraryMissing("pictures are recorded with x264, which this build of PyAV lacks; leave them out")


class VideoEncoder:
    """Encodes pictures as H.264, each readable as soon as it is written; a key picture every two seconds.

    Raises LibraryMissing.
    """

    def __init__(self) -> None:
        require_encoder()
        self._context: Any = None
        self._size = (0, 0)
        self._count = 0

    def encode(self, image: NDArray[np.uint8], when: Timestamp) -> Any:
        """Return a message, or None where the encoder keeps the picture back. image: (H, W, 3) BGR."""
        import av

        height, width = (side // 2 * 2 for side in image.shape[:2])
        if self._size != (width, height):
            self._open(width, height)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
        frame = frame.reformat(format="yuv420p", threads=1)  # as in `bgr`
        frame.pts = self._count
        self._count += 1
        data = b"".join(bytes(packet) for packet in self._context.encode(frame))
        return messages.video(data, when) if data else None

    def _open(self, width: int, height: int) -> None:
        from fractions import Fraction

        import av

        context = av.CodecContext.create(ENCODER, "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 15), Fraction(15)
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "crf": "23",
            "x264-params": "keyint=30:min-keyint=30:scenecut=0:repeat-headers=1:annexb=1",
        }
        context.thread_count = 1
        self._context, self._size, self._count = context, (width, height), 0
