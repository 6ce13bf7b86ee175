"""Turns at computing, where many streams share a few cores."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Turns of which at most `at_once` are taken at a time; of the threads that wait, the one that had least goes next.

    Without it a dozen threads share the cores with the engine, and every estimate waits for faces that are looked at
    ever later. With it each worker of each stream has a fair part of the cores. What needs less than its part (a voice)
    is never late; what could use more (a face, words that are spoken without pause) is done less often.

    Start-time fair queuing (Goyal, Vin, Cheng 1996): a share's tag is the time it has used, and at least that of the
    newest turn, so that nobody saves up turns while there is nothing to do.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._newest_s = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._lock = threading.Lock()

    def share(self) -> Share:
        """Make the share of one worker."""
        return Share(self)

    def _begin(self, tag_s: float) -> float:
        """Wait for a turn; returns the tag under which it began."""
        called = threading.Event()
        with self._lock:
            tag_s = max(tag_s, self._newest_s)
            if self._free:
                self._free -= 1
                called.set()
            else:
                heapq.heappush(self._waiting, (tag_s, next(self._numbers), called))
        called.wait()
        with self._lock:
            self._newest_s = max(self._newest_s, tag_s)
        return tag_s

    def _end(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[-1].set()
            else:
                self._free += 1


class Share:
    """One worker's part of the turns."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._tag_s = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Compute for as long as the context lasts, once it is our turn. Not to be taken again inside."""
        self._tag_s = self._turns._begin(self._tag_s)  # noqa: SLF001 - the two are one
        begun_s = time.monotonic()
        try:
            yield
        finally:
            self._tag_s += time.monotonic() - begun_s
            self._turns._end()  # noqa: SLF001
