"""A media file as pictures and sound on one timeline, through PyAV.

Time is what the file's own presentation stamps say; 0 is its first picture or sound, whichever comes first.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from realtime.capture.resample import Resampler
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame
from realtime.errors import MediaUnreadable

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = 512
DEFAULT_FPS = 25.0
SOUND_GAP_S = 0.03
"""Stamps of sound jitter with the container's time base (1 ms in Matroska); from here on it is a real gap."""
LATE_S = 0.25
"""A picture this late for playback is converted only if none was for LATE_INTERVAL_S of media."""
LATE_INTERVAL_S = 0.2
SKIP_S = 2.0
"""Decoding this late for playback goes on at the next key picture that is not late."""
EXACT_DURATION = ("mov,", "matroska,", "avi", "wav")
"""Containers that state their duration; for others it is an estimate, which proves nothing about truncation."""
CUT_OFF_S = 0.5
"""A file that ends this much before its stated duration was cut off."""


@dataclass(frozen=True, slots=True)
class MediaDescription:
    """duration_s: as the container states it, None if it does not. size: (width, height) as stored. fps: the mean."""

    path: Path
    container: str
    duration_s: float | None
    has_video: bool
    has_audio: bool
    size: tuple[int, int] | None
    fps: float | None


class MediaFile:
    """A file with video, sound or both. Raises MediaUnreadable, with cause and remedy, when nothing can be decoded.

    Each iteration opens the file anew and decodes it from its start, pictures and sound separately: memory does not
    depend on how the container interleaves them. What is damaged is left out, counted, and told of once at the end.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _check_file(self.path)
        with _open(self.path) as container:
            from av import AudioFrame
            from av import VideoFrame as Picture
            from av.stream import Disposition

            # Cover art is a stream of one picture that belongs to the sound.
            films = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
            video, sound = next(films, None), container.streams.best("audio")
            if video is None and sound is None:
                raise MediaUnreadable(f"{self.path}: holds neither video nor sound; name a file that does")
            rate = None if video is None else video.average_rate or video.guessed_rate
            self._fps = float(rate) if rate else None
            self._size = None if video is None else (video.width, video.height)
            self._container = container.format.name
            self._stated_s = None if container.duration is None else container.duration / 1e6
            video_index, sound_index = (None if stream is None else stream.index for stream in (video, sound))
        self._video = _Track.decodable(self.path, video_index, Picture)
        self._audio = _Track.decodable(self.path, sound_index, AudioFrame)
        if not self._tracks:
            raise MediaUnreadable(f"{self.path}: nothing in it can be decoded; it is damaged or of zero length")
        self._origin_s = min(track.first_stamp_s or 0.0 for track in self._tracks)

    def describe(self) -> MediaDescription:
        has_video, has_audio = self._video is not None, self._audio is not None
        size, fps = (self._size, self._fps) if has_video else (None, None)
        return MediaDescription(self.path, self._container, self._stated_s, has_video, has_audio, size, fps)

    @property
    def damaged(self) -> int:
        """Packets that could not be decoded, in the last pass over each stream."""
        return sum(track.damaged for track in self._tracks)

    @property
    def skipped(self) -> int:
        """Pictures that playback left out because decoding was late."""
        return 0 if self._video is None else self._video.skipped

    @property
    def missing_s(self) -> float:
        """How much the file ends before the duration it states; 0 until all of it was read, with nothing skipped."""
        if self._stated_s is None or self.skipped or not self._container.startswith(EXACT_DURATION):
            return 0.0
        ends_s = [track.end_s for track in self._tracks if track.end_s is not None]
        missing_s = self._stated_s - max(ends_s) if len(ends_s) == len(self._tracks) else 0.0
        return missing_s if missing_s > CUT_OFF_S else 0.0

    def samples(self) -> Iterator[VideoFrame | AudioBlock]:
        """Everything, in the order in which a live capture would deliver it: a picture at its time, sound at its end.

        `arrived_s` is that time, on the media's timeline: the same file gives the same samples, whatever the machine.
        """
        tracks: list[Iterator[VideoFrame | AudioBlock]] = [self.frames(), self.blocks()]
        return heapq.merge(*tracks, key=lambda sample: sample.arrived_s)

    def frames(self, late_by: Callable[[float], float] | None = None) -> Iterator[VideoFrame]:
        """Pictures at increasing times, turned upright; none if there is no video.

        late_by: for playback, by how many seconds a media time is already past. Pictures that are too late are left
        out, and counted, so that a slow decoder never falls behind without limit.
        """
        if self._video is None:
            return
        step_s = 1.0 / (self._fps or DEFAULT_FPS)
        origin_s = self._origin_s
        last_s, converted_s = -step_s, -LATE_INTERVAL_S
        for frame in self._video.decode(None if late_by is None else lambda stamp_s: late_by(stamp_s - origin_s)):
            stamp_s = None if frame.time is None else frame.time - origin_s
            # No stamp (a raw stream), or one that runs backwards (a splice): the next picture follows its predecessor.
            last_s = stamp_s if stamp_s is not None and stamp_s > last_s else last_s + step_s
            if late_by is not None and late_by(last_s) > LATE_S and last_s - converted_s < LATE_INTERVAL_S:
                self._video.skipped += 1
                continue
            converted_s = last_s
            yield VideoFrame(_upright(frame), captured_s=last_s, arrived_s=last_s)
        self._finish(self._video, last_s + step_s)

    def blocks(self) -> Iterator[AudioBlock]:
        """Sound in blocks of BLOCK_SAMPLES (the last one shorter) without gaps; none if there is no sound.

        Times count samples from the first one's stamp, so blocks touch exactly. A gap in the stamps is filled with
        silence; a stamp that runs backwards is passed over.
        """
        if self._audio is None:
            return
        start_s = (self._audio.first_stamp_s or 0.0) - self._origin_s
        sent = held = 0
        waiting: list[NDArray[np.float32]] = []
        for piece in _sound(self._audio):
            waiting.append(piece)
            held += len(piece)
            if held < BLOCK_SAMPLES:
                continue
            joined = np.concatenate(waiting)
            whole = held - held % BLOCK_SAMPLES
            for offset in range(0, whole, BLOCK_SAMPLES):
                yield _block(joined[offset : offset + BLOCK_SAMPLES], start_s, sent + offset)
            waiting, held, sent = [joined[whole:]], held - whole, sent + whole
        if held:
            yield _block(np.concatenate(waiting), start_s, sent)
        self._finish(self._audio, start_s + (sent + held) / SAMPLE_RATE_HZ)

    @property
    def _tracks(self) -> list[_Track[av.VideoFrame] | _Track[av.AudioFrame]]:
        return [track for track in (self._video, self._audio) if track is not None]

    def _finish(self, track: _Track[av.VideoFrame] | _Track[av.AudioFrame], end_s: float) -> None:
        track.end_s = end_s
        if track.damaged:
            logger.warning("%s: %d damaged packets of %s left out", self.path, track.damaged, track.name)
        if self.missing_s:
            logger.warning("%s: cut off %.1f s before its stated end", self.path, self.missing_s)


Decoded = TypeVar("Decoded", "av.VideoFrame", "av.AudioFrame")


class _Track(Generic[Decoded]):
    """One stream of a file. Stamps are the container's own; `end_s` is on the file's timeline, once it was read."""

    def __init__(self, path: Path, index: int, frame_type: type[Decoded]) -> None:
        self.damaged = self.skipped = 0
        self.first_stamp_s: float | None = None
        self.end_s: float | None = None
        self.name = "video" if frame_type.__name__ == "VideoFrame" else "sound"
        self._path = path
        self._index = index
        self._frame_type: type[Decoded] = frame_type

    @classmethod
    def decodable(cls, path: Path, index: int | None, frame_type: type[Decoded]) -> _Track[Decoded] | None:
        """The track, if there is one and anything in it can be decoded."""
        if index is None:
            return None
        track = cls(path, index, frame_type)
        first = next(track.decode(), None)
        if first is None:
            return None
        track.first_stamp_s = first.time
        return track

    def decode(self, late_by: Callable[[float], float] | None = None) -> Iterator[Decoded]:
        """Decoded frames in presentation order. With `late_by`, see SKIP_S."""
        from av.error import FFmpegError

        with _open(self._path) as container:
            stream = container.streams[self._index]
            self.damaged = 0
            packets = container.demux(stream)
            skipping = False
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    if late_by is not None and packet.pts is not None:
                        late_s = late_by(float(packet.pts * packet.time_base))
                        skipping = late_s > SKIP_S or (skipping and not (packet.is_keyframe and late_s <= 0))
                        if skipping:
                            self.skipped += 1
                            continue
                    frames = packet.decode()
                except FFmpegError:
                    self.damaged += 1
                    continue
                yield from (frame for frame in frames if isinstance(frame, self._frame_type))


def _sound(track: _Track[av.AudioFrame]) -> Iterator[NDArray[np.float32]]:
    """16 kHz mono float32 in pieces of any length, without gaps."""
    resampler = Resampler()
    start_s = end_s = track.first_stamp_s or 0.0
    sent = 0
    for frame in track.decode():
        stamp_s = frame.time
        if stamp_s is not None and stamp_s - end_s > SOUND_GAP_S:
            tail = resampler.flush()
            yield tail
            sent += len(tail)
            silent = round((stamp_s - start_s) * SAMPLE_RATE_HZ) - sent
            for offset in range(0, silent, SAMPLE_RATE_HZ):
                yield np.zeros(min(SAMPLE_RATE_HZ, silent - offset), np.float32)
            sent += max(silent, 0)
            end_s = stamp_s
        piece = resampler.push(frame)
        yield piece
        sent += len(piece)
        end_s += frame.samples / frame.sample_rate
    yield resampler.flush()


def _block(samples: NDArray[np.float32], start_s: float, position: int) -> AudioBlock:
    captured_s = start_s + position / SAMPLE_RATE_HZ
    return AudioBlock(samples, captured_s, arrived_s=captured_s + len(samples) / SAMPLE_RATE_HZ)


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, BGR, turned by the rotation that phones store beside the picture."""
    image = frame.to_ndarray(format="bgr24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4), np.uint8)


def _open(path: Path) -> InputContainer:
    """Only the file itself: a playlist that names network addresses or other files stays unread."""
    try:
        import av
    except ModuleNotFoundError:
        raise MediaUnreadable(f"{path}: PyAV, which reads media files, is missing; pip install av") from None
    try:
        container = av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        if is_mp4:
            cause = "is an MP4 or MOV file without its index, so it was cut off; copy or record it again"
        else:
            cause = f"is not a media file that FFmpeg knows ({error.strerror}); name a video or sound file"
        raise MediaUnreadable(f"{path}: {cause}") from None
    if container.format.name == "tty":  # FFmpeg types any text out as a film
        container.close()
        raise MediaUnreadable(f"{path}: is text, not a media file; name a video or sound file")
    return container


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise MediaUnreadable(f"{path}: is a directory; name a media file in it")
    if not path.exists():
        raise MediaUnreadable(f"{path}: no such file; check the path given to --source")
    if not path.is_file():
        raise MediaUnreadable(f"{path}: is not a regular file; a camera is named camera:N or by its /dev/videoN")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise MediaUnreadable(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not head:
        raise MediaUnreadable(f"{path}: is empty (0 bytes); copy or record it again")
