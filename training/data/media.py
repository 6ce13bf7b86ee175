"""Files of sound, pictures and film: a look whether they can be read, and what is in them.

Time is what the live capture makes of a file: its own presentation stamps, 0 at its first picture or sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.features.timeline import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

SOUND_GAP_S: Final = 0.03
"""Stamps of sound jitter with the container's time base; from here on it is a real gap, filled with silence."""
DEFAULT_FPS: Final = 25.0


class Kind(StrEnum):
    """What a file is named for."""

    AUDIO = "audio"
    IMAGE = "image"
    VIDEO = "video"


class Unreadable(Exception):
    """A file is not what it should be; the message says in a few words why."""


def probe(kind: Kind, path: Path) -> float | None:
    """Open a file and decode the first of it. Returns its duration in seconds where it states one.

    Raises Unreadable.
    """
    if not path.is_file():
        raise Unreadable("no such file" if not path.exists() else "is no file")
    if kind is Kind.IMAGE:
        import cv2

        read_image(path, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        return None
    with _open(path) as container:
        stream = _stream(container, kind)
        if stream is None:
            raise Unreadable("has no pictures" if kind is Kind.VIDEO else "has no sound")
        if next(_decoded(container, stream), None) is None:
            raise Unreadable("nothing in it can be decoded")
        return None if container.duration is None else container.duration / 1e6


def read_image(path: Path, flags: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) BGR, turned upright, unless OpenCV's flags ask for something else. Raises Unreadable."""
    import cv2

    encoded = np.fromfile(path, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR if flags is None else flags) if len(encoded) else None
    if image is None:
        raise Unreadable("is no image that OpenCV knows" if len(encoded) else "is empty (0 bytes)")
    return np.asarray(image, np.uint8)


def pictures(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Iterator[tuple[float, av.VideoFrame]]:
    """Time and undecoded picture (see `upright`) of what a film shows from `start_s` on and before `end_s`.

    Times count from `start_s`, and increase. Raises Unreadable.
    """
    origin_s = _origin_s(path)
    with _open(path) as container:
        stream = _stream(container, Kind.VIDEO)
        if stream is None:
            return
        rate = stream.average_rate or stream.guessed_rate
        step_s = 1.0 / (float(rate) if rate else DEFAULT_FPS)
        last_s = -step_s
        for frame in _decoded(container, stream):
            stamp_s = None if frame.time is None else frame.time - origin_s
            last_s = stamp_s if stamp_s is not None and stamp_s > last_s else last_s + step_s
            if end_s is not None and last_s >= end_s:
                return
            if last_s >= start_s:
                yield last_s - start_s, frame


def upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) BGR, turned by the rotation that phones store beside the picture."""
    image = frame.to_ndarray(format="bgr24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4), np.uint8)


def sound(path: Path, start_s: float = 0.0, end_s: float | None = None) -> tuple[NDArray[np.float32], float]:
    """(N,) samples from `start_s` to `end_s`, 16 kHz mono in [-1, 1], and the time of the first from `start_s` on.

    Gaps in the stamps are silent. No samples where the file has no sound. Raises Unreadable.
    """
    origin_s = _origin_s(path)
    with _open(path) as container:
        stream = _stream(container, Kind.AUDIO)
        if stream is None:
            return np.empty(0, np.float32), 0.0
        parts: list[NDArray[np.float32]] = []
        first_s = _continuous(_decoded(container, stream), parts, None if end_s is None else end_s + origin_s)
    samples = np.concatenate([np.empty(0, np.float32), *parts])
    begin_s = first_s - origin_s - start_s  # of the first sample, on the utterance's clock
    skipped = max(0, round(-begin_s * SAMPLE_RATE_HZ))
    last = None if end_s is None else max(0, round((end_s - start_s - begin_s) * SAMPLE_RATE_HZ))
    return samples[skipped:last], begin_s + skipped / SAMPLE_RATE_HZ


def _continuous(frames: Iterator[Any], parts: list[NDArray[np.float32]], until_s: float | None) -> float:
    """Resample and append what comes before the stamp `until_s`; returns the stamp of the first frame."""
    from av import AudioResampler

    # To 16 bits on purpose, as live: to float, FFmpeg mixes channels down without keeping their sum within [-1, 1].
    def resampler() -> AudioResampler:
        return AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)

    def add(resampled: list[av.AudioFrame]) -> None:
        parts.extend(one.to_ndarray()[0].astype(np.float32) / np.float32(32768) for one in resampled)

    active, shape, first_s, expected_s = resampler(), None, None, 0.0
    for frame in frames:
        stamp_s = frame.time
        if first_s is None:
            first_s = expected_s = stamp_s or 0.0
        if until_s is not None and stamp_s is not None and stamp_s >= until_s:
            break
        gap = stamp_s is not None and stamp_s - expected_s > SOUND_GAP_S
        changed = shape is not None and shape != (frame.sample_rate, frame.layout.name, frame.format.name)
        shape = (frame.sample_rate, frame.layout.name, frame.format.name)
        if gap or changed:
            add(active.resample(None))
            active = resampler()
        if gap:
            parts.append(
                np.zeros(max(0, round((stamp_s - first_s) * SAMPLE_RATE_HZ) - sum(map(len, parts))), np.float32)
            )
            expected_s = stamp_s
        expected_s += frame.samples / frame.sample_rate
        frame.pts = None  # samples are counted, not stamped
        add(active.resample(frame))
    add(active.resample(None))
    return first_s or 0.0


def _origin_s(path: Path) -> float:
    """The stamp of the first picture or sound of a file, whichever comes first."""
    stamps = []
    for kind in (Kind.VIDEO, Kind.AUDIO):
        with _open(path) as container:
            stream = _stream(container, kind)
            first = None if stream is None else next(_decoded(container, stream), None)
            if first is not None:
                stamps.append(first.time or 0.0)
    return min(stamps, default=0.0)


def _stream(container: InputContainer, kind: Kind) -> Any:
    """The film or the sound of a file; None where it has none. Cover art belongs to the sound."""
    from av.stream import Disposition

    if kind is Kind.AUDIO:
        return container.streams.best("audio")
    films = (one for one in container.streams.video if not one.disposition & Disposition.attached_pic)
    return next(films, None)


def _decoded(container: InputContainer, stream: Any) -> Iterator[Any]:
    """Frames in presentation order; what is damaged is left out."""
    from av import AudioFrame, VideoFrame
    from av.error import FFmpegError

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except FFmpegError:
            continue
        yield from (frame for frame in frames if isinstance(frame, VideoFrame | AudioFrame))


@contextmanager
def _open(path: Path) -> Iterator[InputContainer]:
    """Only the file itself: a playlist that names network addresses or other files stays unread."""
    import av

    try:
        container = av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        raise Unreadable(f"is no media file that FFmpeg knows ({error.strerror})") from None
    with container:
        if container.format.name == "tty":  # FFmpeg types any text out as a film
            raise Unreadable("is text, not a media file")
        yield container
