"""Number of streams this machine can follow at once, measured on a moment of a talking face before anybody comes."""

from __future__ import annotations

from typing import Final

from dhmd.machine import processors
from realtime.perception.extractors import StreamExtractors
from realtime.perception.rates import Rates
from realtime.pipeline.costs import measured
from realtime.recognition.engine import Engine

PICTURES_HZ: Final = 5.0
"""The least at which faces are looked at; sound and words may not wait."""
SHARE: Final = 0.9
"""Of the processor that streams may take: the rest is for the page's server."""


def streams_at_once(extractors: StreamExtractors, engine: Engine, hop_s: float) -> int:
    """Return how many streams fit; at least one."""
    cost = measured(extractors, engine).asked(Rates(PICTURES_HZ, hop_s))
    return max(1, int(processors() * SHARE / cost))
