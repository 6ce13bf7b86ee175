"""The memory of an edge of its people: how much of each one's window has been sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.modality import Modality
from realtime.messages.estimate import Silence
from realtime.scale.window_message import APPENDED, PersonPart

if TYPE_CHECKING:
    from realtime.perception.people import PerceivedPerson


@dataclass(frozen=True, slots=True)
class PersonWindow:
    """All that one person's window holds from `start_s` on. far, silent, covered: see PersonPart."""

    person: int
    start_s: float
    rows: Mapping[Modality, Rows]
    words: tuple[Word, ...]
    far: bool = False
    silent: Silence | None = None
    covered: bool = False

    @classmethod
    def of(cls, perceived: PerceivedPerson) -> Self:
        """What a person's window holds now, without rows that no window will hold again."""
        rows = {m: perceived.window.since(m, perceived.cut.start_s) for m in APPENDED}
        rows[Modality.TEXT] = perceived.window.since(Modality.TEXT, -math.inf)
        seen = perceived.cut.attention
        return cls(
            perceived.person, perceived.cut.start_s, rows, perceived.words, seen.far, perceived.silent, seen.covered
        )


class PeopleLog:
    """Remembers what was sent of each person. Used in one thread."""

    def __init__(self, specs: Mapping[Modality, FeatureSpec]) -> None:
        self._specs = specs
        self._sent: dict[int, PersonWindow] = {}

    def since_last(self, people: Sequence[PersonWindow], *, everything: bool) -> tuple[PersonPart, ...]:
        """What is to be sent of those in view, and counts as sent from now on; `everything` as if nothing was."""
        before = {} if everything else self._sent
        self._sent = {one.person: one for one in people}
        return tuple(self._part(before.get(one.person), one) for one in people)

    def _part(self, before: PersonWindow | None, now: PersonWindow) -> PersonPart:
        nothing = {m: Rows.empty(spec.width) for m, spec in self._specs.items()}
        known = nothing if before is None else before.rows
        rows, anew = {}, False
        for m in APPENDED:
            times_s, held = now.rows[m].times_s, known[m].times_s
            held = held[held > now.start_s]
            if m is Modality.AUDIO and not np.array_equal(held, times_s[: len(held)]):
                anew, held = True, held[:0]
            rows[m] = Rows(times_s[len(held) :], now.rows[m].values[len(held) :])
        text, words = now.rows[Modality.TEXT], now.words
        if (before is None and not len(text)) or (
            before is not None and words == before.words and np.array_equal(text.values, known[Modality.TEXT].values)
        ):
            return PersonPart(now.person, rows, None, anew, now.far, now.silent, now.covered)
        rows = {**rows, Modality.TEXT: text}
        return PersonPart(now.person, rows, words, anew, now.far, now.silent, now.covered)
