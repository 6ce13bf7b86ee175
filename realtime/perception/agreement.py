"""Agreement of successive hypotheses, by which words can be trusted never to change.

LocalAgreement-2 (Liu et al. 2020; Machacek et al. 2023, "Turning Whisper into Real-Time Transcription System"): a word
is final once two successive hypotheses of the growing sound agree on it and on all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dhmd.contract import Word


class LocalAgreement:
    """Hypotheses of one growing piece of sound in, final words out.

    `final` are the final words that lie in the sound at hand; `partial` the rest of the newest hypothesis.
    """

    def __init__(self) -> None:
        self.final: list[Word] = []
        self.partial: list[Word] = []

    def update(self, hypothesis: Sequence[Word]) -> tuple[Word, ...]:
        """Take in the newest hypothesis, from the start of the sound at hand. Returns the words that became final."""
        rest = list(hypothesis[_covered(self.final, hypothesis) :])
        agreed = 0
        for before, now in zip(self.partial, rest, strict=False):
            if _spoken(before) != _spoken(now):
                break
            agreed += 1
        return self._accept(rest, agreed)

    def settle(self, until_s: float = float("inf")) -> tuple[Word, ...]:
        """Make final what the newest hypothesis places before `until_s`."""
        return self._accept(self.partial, sum(word.end_s <= until_s for word in self.partial))

    def forget(self, before_s: float) -> None:
        """Forget words from before that time: their sound is gone, and hypotheses to come begin after it."""
        self.final = [word for word in self.final if word.start_s >= before_s]

    def _accept(self, words: list[Word], count: int) -> tuple[Word, ...]:
        last_s = self.final[-1].end_s if self.final else -float("inf")
        accepted = tuple(
            replace(word, start_s=max(word.start_s, last_s), end_s=max(word.end_s, last_s)) for word in words[:count]
        )
        self.final.extend(accepted)
        self.partial = words[count:]
        return accepted


def _spoken(word: Word) -> str:
    """The word as it sounds: without case and punctuation."""
    return "".join(character for character in word.text.lower() if character.isalnum())


def _covered(final: Sequence[Word], hypothesis: Sequence[Word]) -> int:
    """Count the words of the hypothesis that say what is already final: the prefix at the least edit distance from it,
    and among like ones that which ends nearest in time."""
    distance = np.arange(len(hypothesis) + 1)
    said = [_spoken(word) for word in hypothesis]
    for row, word in enumerate(final, 1):
        above, distance = distance, np.empty_like(distance)
        distance[0] = row
        spoken = _spoken(word)
        for column, other in enumerate(said, 1):
            distance[column] = min(above[column - 1] + (spoken != other), above[column] + 1, distance[column - 1] + 1)
    if not final:
        return 0
    ends_s = np.array([-np.inf, *(word.end_s for word in hypothesis)])
    alike = np.flatnonzero(distance == distance.min())
    return int(alike[np.abs(ends_s[alike] - final[-1].end_s).argmin()])
