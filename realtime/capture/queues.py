"""Hand-over from capture to the extractors, under named policies. Nothing here is unbounded, nothing lost uncounted."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from dhmd.features.timeline import PICTURES_HZ, picture_cell
from dhmd.media.reader import STANDS_S
from realtime.capture.samples import AudioBlock, Picture, VideoFrame

S = TypeVar("S")


OVERDUE: Final = 1.5
"""A picture stands for so many of the last period, as the next may be a little late."""
STANDS_LONGEST_S: Final = 3.0
"""But never longer than this."""


class HandOver(ABC, Generic[S]):
    """A queue between two threads. What is put into it is taken, dropped and counted, or still waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.closed = False
        self.dropped = 0
        self.newest_s = -math.inf
        """End of the newest sample that was put in, stream clock."""

    @abstractmethod
    def _holds(self) -> bool:
        """Returns whether something waits."""

    @abstractmethod
    def _add(self, sample: S) -> float:
        """Let it wait; what it leaves no room for is dropped. Returns its end, stream clock."""

    def put(self, sample: S) -> None:
        """Hand over a sample, without waiting."""
        with self._changed:
            if self.closed:
                self.dropped += 1
                return
            self.newest_s = self._add(sample)
            self._changed.notify()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Returns whether something waits, by then at the latest; once closed, at once."""
        with self._changed:
            self._changed.wait_for(lambda: self._holds() or self.closed, timeout_s)
            return self._holds()

    def close(self) -> None:
        """End the queue: what waits can still be taken, what is put later is dropped. Wakes every waiting thread."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class LatestFrame(HandOver[Picture]):
    """Latest wins: a picture not yet taken when the next arrives is left out. One that was taken stands until then.

    It counts as dropped if it leaves a cell of the grid, of so many a second, without a picture: others would not have
    been looked at.
    """

    def __init__(self, pictures_hz: float = PICTURES_HZ) -> None:
        super().__init__()
        self._pictures_hz = pictures_hz
        self._picture: Picture | None = None
        self._last: Picture | None = None
        self._cell: int | None = None
        """Of the last picture that was taken."""
        self._period_s = 0.0
        """Time between the two newest pictures."""
        self._shown_s = -math.inf

    def _add(self, picture: Picture) -> float:
        if self._picture is not None:
            cell = self._cell_of(self._picture)
            self.dropped += cell not in {self._cell, self._cell_of(picture)}
        self._period_s = 0.0 if self._last is None else picture.captured_s - self._last.captured_s
        self._picture = self._last = picture
        self._shown_s = picture.captured_s
        return picture.captured_s

    def standing(self, now_s: float) -> VideoFrame | None:
        """Returns the last picture as one of now, where few come a second and the next is not overdue; every STANDS_S.

        now_s: stream clock.
        """
        with self._changed:
            last, due = self._last, now_s - self._shown_s >= STANDS_S
            if last is None or self.closed or not due:
                return None
            if now_s - last.captured_s > min(OVERDUE * self._period_s, STANDS_LONGEST_S):
                return None
            self._shown_s = now_s
        frame = last.decoded()
        return None if frame is None else VideoFrame(frame.image, now_s, now_s)

    def take(self) -> Picture | None:
        """Returns the newest picture that was not taken yet."""
        with self._changed:
            picture, self._picture = self._picture, None
            if picture is not None:
                self._cell = self._cell_of(picture)
            return picture

    def _cell_of(self, picture: Picture) -> int:
        return picture_cell(picture.captured_s, self._pictures_hz)

    def _holds(self) -> bool:
        return self._picture is not None


class AudioRing(HandOver[AudioBlock]):
    """Every block in order, up to `capacity_s` seconds; beyond that the oldest blocks are dropped.

    What is lost shows to the consumer as a gap between one block's `end_s` and the next one's `captured_s`.
    Each consumer of the same sound has its own ring (see AudioFanOut).
    """

    def __init__(self, capacity_s: float) -> None:
        super().__init__()
        self.capacity_s = capacity_s
        self._blocks: deque[AudioBlock] = deque()
        self._waiting_s = 0.0

    def _add(self, block: AudioBlock) -> float:
        self._blocks.append(block)
        self._waiting_s += _duration_s(block)
        # The newest block always stays, even one longer than the ring.
        while self._waiting_s > self.capacity_s and len(self._blocks) > 1:
            self._shift()
            self.dropped += 1
        return block.end_s

    def take(self) -> AudioBlock | None:
        """Returns the oldest block that waits."""
        with self._changed:
            return self._shift() if self._blocks else None

    @property
    def waiting_s(self) -> float:
        """Length of what waits."""
        with self._changed:
            return self._waiting_s

    def _holds(self) -> bool:
        return bool(self._blocks)

    def _shift(self) -> AudioBlock:
        block = self._blocks.popleft()
        # Not a running difference when empty, so that rounding errors do not pile up over hours.
        self._waiting_s = self._waiting_s - _duration_s(block) if self._blocks else 0.0
        return block


class AudioFanOut:
    """The same sound to several consumers, each at its own pace through its own ring.

    What each lacks is its own matter, and so are voice activity and times of what it has: shared, they would cost the
    voice and the words their independence, to save 2 ms a second of sound, a 400th of what a person who talks takes.
    """

    def __init__(self, rings: Sequence[AudioRing]) -> None:
        self._rings = tuple(rings)

    def put(self, block: AudioBlock) -> None:
        for ring in self._rings:
            ring.put(block)

    def close(self) -> None:
        for ring in self._rings:
            ring.close()


def _duration_s(block: AudioBlock) -> float:
    return block.end_s - block.captured_s
