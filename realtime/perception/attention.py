"""How far perception has come in each modality: nobody knows what is in that which was not looked at in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from dhmd.contract import Language
from dhmd.modality import Modality


@dataclass(frozen=True, slots=True)
class Patience:
    """Ages of what was looked at last. usual_s: where perception keeps up. behind_s: from which on it is behind.
    longest_s: up to which it stands for now."""

    usual_s: float
    behind_s: float
    longest_s: float


PATIENCE: Final = {
    Modality.TEXT: Patience(5.0, 5.0, 8.0),
    Modality.VISION: Patience(0.2, 0.5, 2.0),
    Modality.AUDIO: Patience(0.6, 1.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Attention:
    """How far perception had come when a window was cut; whoever cuts it again needs it, too.

    as_of_s: moment at which the presence of a modality is judged; none: at the end of the window. late: modalities of
    which something waits that is too old to stand for now. far: whether the face that is seen is too far away.
    unread: whether speech is heard of which the model reads nothing. language: the one that was found to be spoken.
    covered: whether the mouth of the face that is seen is covered.
    """

    as_of_s: Mapping[Modality, float] = field(default_factory=dict)
    late: frozenset[Modality] = frozenset()
    far: bool = False
    unread: bool = False
    language: Language | None = None
    covered: bool = False


WHOLE: Final = Attention()
"""All that was captured has been looked at."""


class Arrivals(Protocol):
    """What is captured, before it is perceived."""

    def newest_s(self, modality: Modality, /) -> float:
        """Returns until when samples have been captured."""


class Progress:
    """Follows how far each modality has been looked at, beside what arrives. Safe between threads.

    now_s: the stream clock. Without arrivals there is nothing to be late for: what comes is looked at as it comes.
    """

    def __init__(self) -> None:
        self._arrivals: Arrivals | None = None
        self._now_s: Callable[[], float] = lambda: 0.0
        self._looked_s: dict[Modality, float] = {}

    def follow(self, arrivals: Arrivals, now_s: Callable[[], float]) -> None:
        """Begin to compare what is looked at with what arrives."""
        self._looked_s = dict.fromkeys(Modality, now_s())
        self._arrivals, self._now_s = arrivals, now_s

    def looked(self, modality: Modality, until_s: float) -> None:
        """Note that all up to a moment of the stream clock has been looked at."""
        self._looked_s[modality] = until_s

    def lag_s(self, modality: Modality) -> float:
        """Returns how old what was looked at last is, while something newer waits; 0 without."""
        if self._arrivals is None or self._arrivals.newest_s(modality) <= self._looked_s[modality]:
            return 0.0
        return max(0.0, self._now_s() - self._looked_s[modality])

    def at(self, end_s: float) -> Attention:
        """Returns how far the window that ends at `end_s` is looked at."""
        if self._arrivals is None:
            return WHOLE
        as_of_s, late = dict[Modality, float](), set[Modality]()
        for modality, patience in PATIENCE.items():
            looked_s = self._looked_s[modality]
            if end_s - looked_s > patience.longest_s:
                if self._arrivals.newest_s(modality) > looked_s + patience.usual_s:
                    late.add(modality)
            elif (judged_s := looked_s + patience.usual_s) < end_s:
                as_of_s[modality] = judged_s
        return Attention(as_of_s, frozenset(late))
