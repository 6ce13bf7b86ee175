"""The picture that an estimate waits for."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final


class AwaitedPicture:
    """The newest picture taken up: estimates wait for it while it is looked at, if not for long, and ticks move, a
    little each, to where one has just been taken up.

    A moment later it is in, and the estimate a whole picture newer. Of ticks that fall differently among the pictures
    the best falls right behind one. now_s: a monotonic clock.
    """

    PATIENCE: Final = 0.8
    """Longest wait of an estimate, in hops: what is not waited for costs a picture's age instead."""
    PATIENCE_S: Final = 0.16
    """And in seconds."""
    BEHIND_S: Final = 0.008
    """Distance of the best tick from the picture before it: pictures come late by that now and then."""
    STEP_S: Final = 0.001
    """Longest move of a tick."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._captured_s = self._taken_up_s = -math.inf
        self._patience_s = 0.0
        self._seen = threading.Event()
        self._seen.set()
        self._ages_s: deque[float] = deque(maxlen=12)
        """Time since a picture was taken up at each of the newest ticks, had they fallen where ticks fall now."""

    @contextmanager
    def looked_at(self, captured_s: float) -> Iterator[None]:
        """Let estimates wait while this picture is looked at."""
        self._captured_s, self._taken_up_s = captured_s, self._now_s()
        self._seen.clear()
        try:
            yield
        finally:
            self._seen.set()

    def wait(self, end_s: float) -> None:
        """Wait for the picture if it belongs to the window that ends at `end_s`."""
        if self._captured_s <= end_s:
            self._seen.wait(self._patience_s)

    def shift_s(self, hop_s: float) -> float:
        """Returns by how much to move the tick that is due, and all after it. hop_s: until the next one."""
        self._patience_s = min(self.PATIENCE * hop_s, self.PATIENCE_S)
        self._ages_s.append(self._now_s() - self._taken_up_s)
        least_s = min(self._ages_s)
        if least_s > 1.0:
            return 0.0
        shift_s = max(-self.STEP_S, min(self.STEP_S, self.BEHIND_S - least_s))
        self._ages_s = deque((age_s + shift_s for age_s in self._ages_s), self._ages_s.maxlen)
        return shift_s
