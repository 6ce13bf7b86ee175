"""The language that is spoken in one stream: found in its first seconds, and kept until it clearly changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from dhmd.contract import Language

_SURE: Final = 0.5
"""Probability of the language at hand from which on an utterance is not asked about it again."""
_FLOOR: Final = 0.02
"""Least probability that is believed: one utterance alone proves nothing."""
_REMEMBERED: Final = 0.7
"""Share of the evidence that is left when the next utterance begins."""
_MOST: Final = 6.0
"""Evidence that can gather for a language: a new one takes its place within two utterances or three."""
_LEAD: Final = 2.0
"""Lead in evidence by which another language takes the place of the one at hand."""
_WHOLE_S: Final = 3.0
"""Seconds of sound from which on it counts in full."""
_LEAST_S: Final = 1.0
"""Seconds of sound below which nothing is asked."""


class SpokenLanguage:
    """Gathers what a speech model takes the utterances of a stream for.

    fixed: the language that is known to be spoken; None finds it. Used by one thread.
    """

    def __init__(self, fixed: str | None = None) -> None:
        self.found = None if fixed is None else Language(fixed, 1.0)
        """The language at hand; None before the first utterance."""
        self._fixed = fixed is not None
        self._before: dict[str, float] = {}
        """Evidence of the utterances before the one that is spoken."""
        self._now: dict[str, float] = {}
        self._settled = False

    def asks(self, seconds: float) -> bool:
        """Returns whether to look what so many seconds of the utterance that is spoken are taken for."""
        return not (self._fixed or self._settled) and (self.found is None or seconds >= _LEAST_S)

    def heard(self, probabilities: Mapping[str, float], seconds: float) -> None:
        """Take in what the utterance so far is taken for, by language."""
        weight = min(1.0, seconds / _WHOLE_S)
        # Against a language of which nothing is known.
        self._now = {code: weight * math.log(p / _FLOOR) for code, p in probabilities.items() if p > _FLOOR}
        evidence = self._evidence()
        leader = max(evidence, key=lambda code: evidence[code], default=None)
        if leader is None:
            return
        current = self.found.code if self.found is not None else leader
        if evidence[leader] >= evidence.get(current, 0.0) + _LEAD:
            current = leader
        others = 1.0 + sum(math.exp(value) for code, value in evidence.items() if code != current)
        mine = math.exp(evidence.get(current, 0.0))
        self.found = Language(current, mine / (mine + others))
        self._settled = seconds >= _WHOLE_S and probabilities.get(current, 0.0) >= _SURE

    def utterance_ended(self) -> None:
        """Begin another utterance."""
        if self._now:
            self._before = {code: min(_MOST, value) for code, value in self._evidence().items()}
        self._now, self._settled = {}, False

    def _evidence(self) -> dict[str, float]:
        return {
            code: _REMEMBERED * self._before.get(code, 0.0) + self._now.get(code, 0.0)
            for code in self._before.keys() | self._now.keys()
        }
