"""How still a stream's answer is kept, as its settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MARGIN: Final = 0.2


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How still a stream's answer is kept.

    smoothing_s: time constant of the average of emotions and sentiment; 0: none.
    margin: probability by which another emotion has to lead the one on top to take its place; 0: any.
    """

    smoothing_s: float = 0.0
    margin: float = MARGIN


BY_DEFAULT: Final = Steadiness()
