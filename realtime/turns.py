"""Who may compute now, where many streams share a few cores."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Urgency(IntEnum):
    """What goes first among those who wait."""

    SOUND = 0
    """Comes whether it is heard or not."""
    REST = 1


class Turns:
    """At most `at_once` threads compute; the others wait, the urgent first, otherwise in the order in which they came.

    Without it a dozen threads share the cores evenly with the engine, and every estimate waits for faces that are
    looked at ever later. With it faces are looked at less often: they alone can be.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._numbers = itertools.count()
        self._waiting: list[tuple[Urgency, int, threading.Event]] = []
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, urgency: Urgency) -> Iterator[None]:
        """Compute for as long as the context lasts, once there is room. Not to be taken again inside."""
        called = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                called.set()
            else:
                heapq.heappush(self._waiting, (urgency, next(self._numbers), called))
        called.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    heapq.heappop(self._waiting)[-1].set()
                else:
                    self._free += 1


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
