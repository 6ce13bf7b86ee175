"""Pictures and sound as they are captured, each with the time it was captured and the time it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.features.timeline import SAMPLE_RATE_HZ

__all__ = ["SAMPLE_RATE_HZ", "AudioBlock", "VideoFrame"]


class Picture(Protocol):
    """A picture as it waits to be looked at."""

    @property
    def captured_s(self) -> float: ...
    def decoded(self) -> VideoFrame | None:
        """Returns the frame, or None where there is no picture in it."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """image: (H, W, 3) uint8, BGR. Times are seconds on the stream clock."""

    image: NDArray[np.uint8]
    captured_s: float
    arrived_s: float

    def decoded(self) -> Self:
        return self


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """samples: (N,) float32 in [-1, 1], mono, 16 kHz. `captured_s` is the time of the first sample."""

    samples: NDArray[np.float32]
    captured_s: float
    arrived_s: float

    @property
    def end_s(self) -> float:
        return self.captured_s + len(self.samples) / SAMPLE_RATE_HZ
