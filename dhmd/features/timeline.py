"""Times of a stream's samples on the stream clock."""

from __future__ import annotations

import math
from typing import Final

SAMPLE_RATE_HZ: Final = 16_000
PICTURES_HZ: Final = 15.0
GAP_S: Final = 0.02
_DRIFT_S: Final = 0.001


def picture_cell(captured_s: float, pictures_hz: float = PICTURES_HZ) -> int:
    """Return the cell of the grid, of 15 Hz or coarser, in which a picture falls; one of each is looked at."""
    # The small term keeps frames of a 15 or 30 fps stream, which stand on the grid, on one side of it.
    return math.floor(captured_s * pictures_hz + 1e-3)


class SampleTimeline:
    """Maps sample numbers of a 16 kHz stream to capture times, and notices where the stream is not continuous.

    A sound card and the stream clock drift apart slowly; the mapping follows in steps of a millisecond. A block that
    starts more than `GAP_S` away from the end of the one before begins a new stream, whose samples count from zero.
    """

    def __init__(self) -> None:
        self._origin_s: float | None = None
        self._count = 0
        self._end_s = 0.0

    def append(self, count: int, captured_s: float) -> bool:
        """Count on by `count` samples, the first captured at `captured_s`; returns whether they begin a new stream."""
        begins = self._origin_s is None or abs(captured_s - self._end_s) > GAP_S
        if self._origin_s is None or begins:
            self._origin_s, self._count = captured_s, 0
        elif abs(captured_s - self.time_of(self._count)) > _DRIFT_S:
            self._origin_s = captured_s - self._count / SAMPLE_RATE_HZ
        self._count += count
        self._end_s = captured_s + count / SAMPLE_RATE_HZ
        return begins

    def time_of(self, sample: int) -> float:
        """Capture time in seconds of the sample of that number, which may lie ahead."""
        if self._origin_s is None:
            raise ValueError("a timeline has no times before its first block")
        return self._origin_s + sample / SAMPLE_RATE_HZ
