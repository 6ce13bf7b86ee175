"""A media file as pictures and sound on one timeline, through PyAV.

Time is what the file's own presentation stamps say; 0 is its first picture or sound, whichever comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import MediaUnreadable
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.container import open_media
from dhmd.media.picture import Picture, Raster
from dhmd.media.resample import Resampler
from dhmd.media.track import Decoded, Still, Track, streams_of

if TYPE_CHECKING:
    import av

DEFAULT_FPS: Final = 25.0
SOUND_GAP_S: Final = 0.03
"""Stamps of sound jitter with the container's time base (1 ms in Matroska); from here on it is a real gap."""
STANDS_S: Final = 0.25
"""Time after which a picture that is still shown is given again: who looks at a film sees it all the while."""
LEAD_S: Final = 0.5
"""Pictures and sound may be this far behind their stamps where stamps are too close; more is left out."""
EXACT_DURATION: Final = ("mov,", "matroska,", "avi", "wav")
"""Containers that state their duration; for others it is an estimate, which proves nothing about truncation."""
STILLS: Final = frozenset((".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
STILL_S: Final = 5.0
"""A still is shown for as long as the model looks back."""
CUT_OFF_S: Final = 0.5
"""A file that ends this much before its stated duration was cut off."""


class MediaReader:
    """A file with film, sound or both; a still is a film of STILL_S. Raises MediaUnreadable, with cause and remedy,
    when nothing can be decoded.

    Each iteration opens the file anew and decodes it from its start, pictures and sound separately: memory does not
    depend on how the container interleaves them. What is damaged is left out, and counted.
    film, soundtrack: the first of each kind that can be decoded, from the one that is meant to be played on; None where
    there is none. duration_s: of these, as the container states it. passed_over: what of them cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over: list[str] = []
        self.soundtrack: Track[av.AudioFrame] | None = None
        self._raster = Raster()
        if path.suffix.lower() in STILLS:
            self.film: Track[av.VideoFrame] | Still | None = Still(path)
            self.duration_s: float | None = STILL_S
            self._step_s, self._duration_is_exact, self._origin_s = STILL_S, True, 0.0
            return
        with open_media(path) as container:
            from av import AudioFrame, VideoFrame

            films, sounds = streams_of(container)
            if not films and not sounds:
                raise MediaUnreadable(f"{path}: holds neither video nor sound; name a file that does")
            self.film = self._first(films, VideoFrame)
            self.soundtrack = self._first(sounds, AudioFrame)
            if not self.tracks:
                raise MediaUnreadable(f"{path}: nothing in it can be decoded; it is damaged or of zero length")
            film = next((film for film in films if self.film and film.index == self.film.index), None)
            rate = None if film is None else film.average_rate or film.guessed_rate
            self._step_s = 1.0 / (float(rate) if rate else DEFAULT_FPS)
            if film is not None:
                self._raster = Raster.of(container, film)
            stated_s = [track.duration_s for track in self.tracks if track.duration_s is not None]
            all_s = None if container.duration is None else container.duration / 1e6
            self.duration_s = max(stated_s) if len(stated_s) == len(self.tracks) else all_s
            is_of_these = len(stated_s) == len(self.tracks) or len(container.streams) == len(self.tracks)
            self._duration_is_exact = is_of_these and container.format.name.startswith(EXACT_DURATION)
        self._origin_s = min(track.first_stamp_s for track in self.tracks)

    @property
    def tracks(self) -> list[Track[av.VideoFrame] | Track[av.AudioFrame] | Still]:
        return [track for track in (self.film, self.soundtrack) if track is not None]

    @property
    def sound_start_s(self) -> float:
        """Time of the first sample of `sound`."""
        return 0.0 if self.soundtrack is None else self.soundtrack.first_stamp_s - self._origin_s

    @property
    def missing_s(self) -> float:
        """Seconds by which the file ends before the duration it states; 0 until all of it was read."""
        ends_s = [track.end_s for track in self.tracks if track.end_s is not None]
        if self.duration_s is None or not self._duration_is_exact or len(ends_s) < len(self.tracks):
            return 0.0
        missing_s = self.duration_s - max(ends_s)
        return missing_s if missing_s > CUT_OFF_S and not any(track.splices for track in self.tracks) else 0.0

    def pictures(self, wanted: Callable[[float, bool], bool] | None = None) -> Iterator[Picture]:
        """Pictures at increasing times, one that stands for long again every STANDS_S; none if there is no film.

        wanted: see `Track.decode`; asked with times on the file's timeline.
        """
        shown, left_out_s = None, -math.inf

        def wants(stamp_s: float, is_key: bool) -> bool:
            nonlocal left_out_s
            if wanted is None or wanted(stamp_s, is_key):
                return True
            left_out_s = max(left_out_s, stamp_s)
            return False

        for picture in self._decoded(wants):
            if shown is not None and left_out_s < shown.time_s:
                yield from _standing(shown, picture.time_s)
            yield picture
            shown = picture
        if shown is not None:
            yield from _standing(shown, shown.time_s + self._step_s)

    def _decoded(self, wanted: Callable[[float, bool], bool]) -> Iterator[Picture]:
        if self.film is None:
            return
        last_s, stamp_s, origin_s = -self._step_s, -math.inf, self._origin_s
        for frame in self.film.decode(lambda stamp_s, is_key: wanted(stamp_s - origin_s, is_key)):
            before_s, stamp_s = stamp_s, math.nan if frame.time is None else frame.time - origin_s
            if stamp_s > last_s:
                last_s = stamp_s
            elif stamp_s > before_s and last_s + self._step_s - stamp_s > LEAD_S:
                continue
            else:
                # No stamp (a raw stream), or one that does not move on: the picture follows its predecessor.
                last_s += self._step_s
            yield Picture(last_s, frame, self._raster)
        self.film.end_s = last_s + self._step_s

    def sound(self, until_s: float | None = None) -> Iterator[NDArray[np.float32]]:
        """Sound from `sound_start_s` on, 16 kHz mono in [-1, 1], in pieces of any length; none if there is no sound.

        Pieces touch: a gap in the stamps is filled with silence. What comes too early for its stamp follows its
        predecessor, until that would be more than LEAD_S late.
        until_s: what is stamped from then on is left out.
        """
        if self.soundtrack is None:
            return
        resampler, given = Resampler(), 0
        start_s = expected_s = self.soundtrack.first_stamp_s
        stamp_s: float | None = None
        for frame in self.soundtrack.decode():
            before_s, stamp_s = stamp_s, frame.time
            if until_s is not None and stamp_s is not None and stamp_s >= until_s + self._origin_s:
                break
            if before_s is not None and stamp_s is not None and before_s < stamp_s < expected_s - LEAD_S:
                continue
            if stamp_s is not None and stamp_s - expected_s > SOUND_GAP_S:
                tail = resampler.flush()
                given += len(tail)
                yield tail
                for silence in _silence(round((stamp_s - start_s) * SAMPLE_RATE_HZ) - given):
                    given += len(silence)
                    yield silence
                expected_s = stamp_s
            expected_s += frame.samples / frame.sample_rate
            piece = resampler.push(frame)
            given += len(piece)
            yield piece
        tail = resampler.flush()
        yield tail
        if until_s is None:
            self.soundtrack.end_s = self.sound_start_s + (given + len(tail)) / SAMPLE_RATE_HZ

    def _first(
        self, streams: Sequence[av.VideoStream | av.AudioStream], frame_type: type[Decoded]
    ) -> Track[Decoded] | None:
        for stream in streams:
            try:
                return Track(self.path, stream, frame_type)
            except MediaUnreadable as unreadable:
                self.passed_over.append(str(unreadable))
        return None


def _standing(picture: Picture, until_s: float) -> Iterator[Picture]:
    """The picture again while it is shown. The last time is not right before the next picture."""
    times = math.ceil((until_s - picture.time_s) / STANDS_S - 0.5)
    return (replace(picture, time_s=picture.time_s + STANDS_S * number) for number in range(1, times))


def _silence(samples: int) -> Iterator[NDArray[np.float32]]:
    """Silence, at most a second in one piece: a gap may be long."""
    for begin in range(0, samples, SAMPLE_RATE_HZ):
        yield np.zeros(min(SAMPLE_RATE_HZ, samples - begin), np.float32)
