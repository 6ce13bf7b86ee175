"""How still a stream's answer is kept, as its settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MARGIN: Final = 0.2
"""On clips of talkers a half to a tenth of the changes is left, and true ones come half a second later."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How still a stream's answer is kept.

    smoothing_s: time constant of the average of emotions and sentiment; 0: none.
    margin: probability by which another emotion has to lead the one on top for a second to take its place, see
    Hysteresis; 0: the likeliest is on top.
    """

    smoothing_s: float = 0.0
    margin: float = MARGIN


BY_DEFAULT: Final = Steadiness()
