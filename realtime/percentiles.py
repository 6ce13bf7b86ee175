"""Percentiles of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Percentiles(NamedTuple):
    """The median and the tail, in the unit of the values."""

    p50: float
    p95: float
    p99: float


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """None without values."""
    return Percentiles(*np.percentile(np.asarray(values), [50, 95, 99]).tolist()) if len(values) else None
