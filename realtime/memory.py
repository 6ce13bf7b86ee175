"""Resident memory of a process over time."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from statistics import median
from typing import Final, Self

import psutil

MEMORY_EVERY_S: Final = 1.0
KEPT_MB: Final = 256
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""


def resident_mb() -> float | None:
    """Resident memory of this process, MB; None where the system does not tell."""
    try:
        size: int = psutil.Process().memory_info().rss
    except psutil.Error:
        return None
    return round(size / 1e6, 1)


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to KEPT_MB, for what is allocated next; where it is glibc.

    Else tensors of some megabytes are given back to the system after each product, and come again page by page: a
    tenth of the model's time in batches. For servers; a run has no batches, and would grow by 2 % in five minutes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_MB << 20)
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes


def spare_what_is_loaded() -> None:
    """Have the garbage collector pass over all that there is by now: models, and what their libraries made.

    Else it looks at each of their parts some seconds into a run, and all threads wait for it: 0.15 s, two pictures.
    """
    gc.freeze()


class MemoryLog:
    """Resident memory, MB, once a second while it is open. process_id: None for this process."""

    def __init__(self, process_id: int | None = None) -> None:
        self.samples_mb: list[float] = []
        self._process = psutil.Process(process_id)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def minute(self, number: int) -> float | None:
        """Median of the `number`-th minute, from 1; None where the run was shorter."""
        samples = self.samples_mb[(number - 1) * 60 : number * 60]
        return median(samples) if len(samples) >= 50 else None

    def _watch(self) -> None:
        while not self._stop.wait(MEMORY_EVERY_S):
            self.samples_mb.append(self._process.memory_info().rss / 1e6)
