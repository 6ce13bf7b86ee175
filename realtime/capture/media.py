"""A media file as a camera and a microphone would have delivered it."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dhmd.media.reader import MediaReader
from dhmd.media.track import Still, Track
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

BLOCK_SAMPLES = 512
LATE_S = 0.25
"""A picture this late for playback is converted only if none was for LATE_INTERVAL_S of media."""
LATE_INTERVAL_S = 0.2
SKIP_S = 2.0
"""Decoding this late for playback goes on at the next key picture that is not late."""


class MediaFile:
    """A file with video, sound or both. Raises MediaUnreadable, with cause and remedy, when nothing can be decoded.

    Each iteration decodes it from its start; what was damaged or is missing is told of once, at the end.
    skipped: pictures that playback left out because decoding was late.
    """

    def __init__(self, path: str | Path) -> None:
        self.reader = MediaReader(Path(path))
        self.skipped = 0
        self._told_of_cut = self._told_of_splices = False
        for passed_over in self.reader.passed_over:
            logger.warning("%s", passed_over)

    @property
    def missing_s(self) -> float:
        """Seconds by which the file ends before its stated duration; 0 until all of it was read, nothing skipped."""
        return 0.0 if self.skipped else self.reader.missing_s

    def samples(self) -> Iterator[VideoFrame | AudioBlock]:
        """Everything, in the order in which a live capture would deliver it: a picture at its time, sound at its end.

        `arrived_s` is that time, on the media's timeline: the same file gives the same samples, whatever the machine.
        """
        tracks: list[Iterator[VideoFrame | AudioBlock]] = [self.frames(), self.blocks()]
        return heapq.merge(*tracks, key=lambda sample: sample.arrived_s)

    def frames(self, late_by: Callable[[float], float] | None = None) -> Iterator[VideoFrame]:
        """Pictures at increasing times; none if there is no video.

        late_by: for playback, by how many seconds a media time is already past. Pictures that are too late are left
        out, and counted, so that a slow decoder never falls behind without limit.
        """
        converted_s = -LATE_INTERVAL_S
        for picture in self.reader.pictures(None if late_by is None else self._not_late(late_by)):
            time_s = picture.time_s
            if late_by is not None and late_by(time_s) > LATE_S and time_s - converted_s < LATE_INTERVAL_S:
                self.skipped += 1
                continue
            converted_s = time_s
            yield VideoFrame(picture.image(), captured_s=time_s, arrived_s=time_s)
        self._tell(self.reader.film)

    def blocks(self) -> Iterator[AudioBlock]:
        """Sound in blocks of BLOCK_SAMPLES (the last one shorter) without gaps; none if there is no sound.

        Times count samples from the first one's stamp, so blocks touch exactly.
        """
        sent = held = 0
        waiting: list[NDArray[np.float32]] = []
        for piece in self.reader.sound():
            waiting.append(piece)
            held += len(piece)
            if held < BLOCK_SAMPLES:
                continue
            joined = np.concatenate(waiting)
            whole = held - held % BLOCK_SAMPLES
            for offset in range(0, whole, BLOCK_SAMPLES):
                yield self._block(joined[offset : offset + BLOCK_SAMPLES], sent + offset)
            waiting, held, sent = [joined[whole:]], held - whole, sent + whole
        if held:
            yield self._block(np.concatenate(waiting), sent)
        self._tell(self.reader.soundtrack)

    def _not_late(self, late_by: Callable[[float], float]) -> Callable[[float, bool], bool]:
        """Returns what tells whether to decode a packet, see SKIP_S; it counts those that are not."""
        skipping = False

        def wanted(time_s: float, is_key: bool) -> bool:
            nonlocal skipping
            late_s = late_by(time_s)
            skipping = late_s > SKIP_S or (skipping and not (is_key and late_s <= 0))
            self.skipped += skipping
            return not skipping

        return wanted

    def _block(self, samples: NDArray[np.float32], position: int) -> AudioBlock:
        captured_s = self.reader.sound_start_s + position / SAMPLE_RATE_HZ
        return AudioBlock(samples, captured_s, arrived_s=captured_s + len(samples) / SAMPLE_RATE_HZ)

    def _tell(self, track: Track[av.VideoFrame] | Track[av.AudioFrame] | Still | None) -> None:
        if track is None:
            return
        if track.damaged:
            logger.warning("%s: %d damaged packets of %s left out", self.reader.path, track.damaged, track.name)
        if track.splices and not self._told_of_splices:
            self._told_of_splices = True
            longest_s = max(abs(splice.jump_s) for splice in track.splices)
            logger.warning(
                "%s: time stamps jump (%d times, by up to %.0f s); read as if spliced there",
                self.reader.path,
                len(track.splices),
                longest_s,
            )
        # Pictures may end while the last block of sound is still held.
        if self.missing_s and not self._told_of_cut:
            self._told_of_cut = True
            logger.warning("%s: cut off %.1f s before its stated end", self.reader.path, self.missing_s)
