"""The part of a recording in which somebody speaks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.features.speech import ENCODER_HOP

_QUIET: Final = 1e-3
"""A frame 30 dB below the loudest is a pause."""


def spoken_part(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples without the silence before and after, but for 0.1 s of each."""
    count = len(samples) // ENCODER_HOP
    power = np.square(samples[: count * ENCODER_HOP]).reshape(count, ENCODER_HOP).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * _QUIET)
    if not len(loud):
        return samples
    return samples[max(0, loud[0] - 5) * ENCODER_HOP : (loud[-1] + 6) * ENCODER_HOP]
