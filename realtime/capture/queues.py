"""Hand-over from capture to the extractors, under named policies. Nothing here is unbounded, nothing lost uncounted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from realtime.capture.samples import AudioBlock, VideoFrame


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples (frames, blocks) since the start: `put` = `delivered` + `dropped` + `pending`.

    dropped_s: seconds of sound in the dropped blocks; 0 for frames.
    """

    put: int
    delivered: int
    dropped: int
    pending: int
    dropped_s: float = 0.0


class LatestFrame:
    """Latest wins: a frame not yet taken when the next arrives is dropped and counted. Safe between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: VideoFrame | None = None
        self._put = self._delivered = self._dropped = 0
        self._closed = False

    def put(self, frame: VideoFrame) -> None:
        """Offer a frame; once closed it is dropped and counted."""
        with self._changed:
            self._put += 1
            if self._closed:
                self._dropped += 1
                return
            if self._frame is not None:
                self._dropped += 1
            self._frame = frame
            self._changed.notify()

    def wait(self, timeout_s: float) -> bool:
        """Whether a frame waits, by then at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            return self._frame is not None

    def get(self, timeout_s: float | None = None) -> VideoFrame | None:
        """The newest frame not yet taken, waiting for one; None after `timeout_s`, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout_s)
            frame, self._frame = self._frame, None
            self._delivered += frame is not None
            return frame

    def close(self) -> None:
        """No more frames will come; a frame that waits can still be taken. Wakes every waiting thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def dropped(self) -> int:
        return self._dropped

    def counts(self) -> Counts:
        with self._changed:
            return Counts(self._put, self._delivered, self._dropped, int(self._frame is not None))


class AudioRing:
    """Every block in order, up to `capacity_s` seconds; beyond that the oldest blocks are dropped and counted.

    What is lost shows to the consumer as a gap between one block's `end_s` and the next one's `captured_s`.
    Each consumer of the same sound has its own ring (see AudioFanOut). Safe between threads.
    """

    def __init__(self, capacity_s: float) -> None:
        self.capacity_s = capacity_s
        self._changed = threading.Condition()
        self._blocks: deque[AudioBlock] = deque()
        self._pending_s = self._dropped_s = 0.0
        self._put = self._delivered = self._dropped = 0
        self._closed = False

    def put(self, block: AudioBlock) -> None:
        """Append a block; once closed it is dropped and counted."""
        with self._changed:
            self._put += 1
            if self._closed:
                self._drop(block)
                return
            self._blocks.append(block)
            self._pending_s += _duration_s(block)
            # The newest block always stays, even one longer than the ring.
            while self._pending_s > self.capacity_s and len(self._blocks) > 1:
                self._drop(self._shift())
            self._changed.notify()

    def wait(self, timeout_s: float) -> bool:
        """Whether a block waits, by then at the latest."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._blocks) or self._closed, timeout_s)
            return bool(self._blocks)

    def get(self, timeout_s: float | None = None) -> AudioBlock | None:
        """The oldest block, waiting for one; None after `timeout_s`, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._blocks) or self._closed, timeout_s)
            if not self._blocks:
                return None
            self._delivered += 1
            return self._shift()

    def close(self) -> None:
        """No more blocks will come; those that wait can still be taken. Wakes every waiting thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def pending_s(self) -> float:
        """Seconds of sound that wait: how far the consumer is behind."""
        return self._pending_s

    def counts(self) -> Counts:
        with self._changed:
            return Counts(self._put, self._delivered, self._dropped, len(self._blocks), self._dropped_s)

    def _shift(self) -> AudioBlock:
        block = self._blocks.popleft()
        # Not a running difference when empty, so that rounding errors do not pile up over hours.
        self._pending_s = self._pending_s - _duration_s(block) if self._blocks else 0.0
        return block

    def _drop(self, block: AudioBlock) -> None:
        self._dropped += 1
        self._dropped_s += _duration_s(block)


class AudioFanOut:
    """The same sound to several consumers, each at its own pace through its own ring."""

    def __init__(self, rings: Sequence[AudioRing]) -> None:
        self.rings = tuple(rings)

    def put(self, block: AudioBlock) -> None:
        for ring in self.rings:
            ring.put(block)

    def close(self) -> None:
        for ring in self.rings:
            ring.close()


def _duration_s(block: AudioBlock) -> float:
    return block.end_s - block.captured_s
