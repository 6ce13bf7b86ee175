"""Sound of a device that runs by its own crystal: mixed, brought to 16 kHz, and evenly placed on the stream clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dhmd.media.resample import Resampler, frame_of
from realtime.capture.samples import SAMPLE_RATE_HZ
from realtime.clock import SampleClock


class SteadySound:
    """Stream of one device, see SampleClock."""

    def __init__(self, rate_hz: int, channels: int = 1) -> None:
        self.rate_hz = rate_hz
        self._times = SampleClock(SAMPLE_RATE_HZ)
        self._resampler = None if (rate_hz, channels) == (SAMPLE_RATE_HZ, 1) else Resampler()
        self._held_s = 0.0
        """Seconds of sound given to the resampler and not yet returned."""

    def push(self, samples: NDArray[np.float32], measured_s: float) -> tuple[NDArray[np.float32], float]:
        """Returns what is ready at 16 kHz, (N,), and the stream time of its first sample.

        samples: (M,), or (M, C) of several channels, in [-1, 1] at the device's rate. measured_s: capture time of the
        first as measured, which is right or late.
        """
        measured_s -= self._held_s
        if self._resampler is not None:
            self._held_s += len(samples) / self.rate_hz
            samples = self._resampler.push(frame_of(samples.reshape(len(samples), -1).T, self.rate_hz))
            self._held_s -= len(samples) / SAMPLE_RATE_HZ
        return samples, self._times.place(len(samples), measured_s)
