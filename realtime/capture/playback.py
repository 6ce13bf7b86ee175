"""A media file played at its own pace, as if a camera and a microphone delivered it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from realtime.capture.media import MediaFile
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.clock import StreamClock


class MediaPlayer:
    """Releases each sample when the stream clock reaches its time: a picture at its own, sound at its end.

    Playback starts when the first of `frames` and `blocks` is asked for something; media time 0 is at `start_s` of the
    session. Both follow the clock, not each other, so neither drifts, and a late picture does not hold up the sound.
    Each is to be run by one thread; iterating again after a failure goes on after the last sample released.
    """

    def __init__(self, media: MediaFile, clock: StreamClock) -> None:
        self.media = media
        self.clock = clock
        self._starting = threading.Lock()
        self._start_s: float | None = None
        self._last_frame_s = self._last_block_s = -1.0

    @property
    def start_s(self) -> float:
        """Stream time of media time 0. Reading it starts playback."""
        with self._starting:
            if self._start_s is None:
                self._start_s = self.clock.now()
            return self._start_s

    def frames(self, stop: threading.Event) -> Iterator[VideoFrame]:
        start_s = self.start_s
        for frame in self.media.frames(late_by=lambda t_s: self.clock.now() - start_s - t_s):
            if frame.captured_s <= self._last_frame_s:
                continue
            if not self._wait(start_s + frame.captured_s, stop):
                return
            self._last_frame_s = frame.captured_s
            yield VideoFrame(frame.image, start_s + frame.captured_s, self.clock.now())

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        start_s = self.start_s
        for block in self.media.blocks():
            if block.captured_s <= self._last_block_s:
                continue
            if not self._wait(start_s + block.end_s, stop):
                return
            self._last_block_s = block.captured_s
            yield AudioBlock(block.samples, start_s + block.captured_s, self.clock.now())

    def _wait(self, until_s: float, stop: threading.Event) -> bool:
        """Whether to go on: false once stopped."""
        while (wait_s := until_s - self.clock.now()) > 0:
            if stop.wait(wait_s):
                return False
        return not stop.is_set()
