"""Rates of a stream: how often it is looked at, listened to for words, and estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from dhmd.features.timeline import PICTURES_HZ

WORDS_S: Final = 0.64
"""New sound between two hypotheses of what is said."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one stream.

    pictures_hz: pictures looked at a second, at most. hop_s: time between two estimates. words_s: new sound between two
    hypotheses of what is said.
    """

    pictures_hz: float = PICTURES_HZ
    hop_s: float = 0.1
    words_s: float = WORDS_S


FULL: Final = Rates()
"""What the networks were trained on, and what a machine that is fast enough keeps."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Rates that somebody asked for; None: as the machine can keep."""

    pictures_hz: float | None = None
    hop_s: float | None = None

    def of(self, rates: Rates) -> Rates:
        """Return rates with those that were asked for in their place."""
        return replace(
            rates,
            pictures_hz=rates.pictures_hz if self.pictures_hz is None else self.pictures_hz,
            hop_s=rates.hop_s if self.hop_s is None else self.hop_s,
        )

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to choose."""
        return None not in {self.pictures_hz, self.hop_s}
