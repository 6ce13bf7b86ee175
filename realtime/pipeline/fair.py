"""Fair turns of people at the engine: with more than it can follow, each is estimated less often, and none later."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

SHARE: Final = 0.5
"""Of a hop, that people's windows may take."""
NEW: Final = 0.1
"""Weight of the newest measurement of what a window takes."""


class FairTurns:
    """Chooses whose estimates are made at a tick: those that waited longest, as many as there is time for.

    Used in one thread.
    """

    def __init__(self) -> None:
        self._waiting: list[int] = []
        """People in the order of their turns; who has just come is first."""
        self._hops_s: deque[float] = deque(maxlen=8)
        self._tick_s: float | None = None
        self._window_s = 0.0
        """Time that a window takes, in the mean."""

    def at(self, end_s: float, people: Sequence[int]) -> list[int]:
        """Return those whose turn it is at the tick of `end_s`, in the order given."""
        if self._tick_s is not None:
            self._hops_s.append(end_s - self._tick_s)
        self._tick_s = end_s
        come = [person for person in people if person not in self._waiting]
        waiting = [*come, *(person for person in self._waiting if person in people)]
        room = self.room(len(people))
        chosen = waiting[:room]
        self._waiting = waiting[room:] + chosen
        return [person for person in people if person in chosen]

    def room(self, people: int) -> int:
        """Return for how many of so many people there is time at a tick; at least one."""
        if not self._hops_s or not self._window_s:
            return people
        return max(1, min(people, int(SHARE * min(self._hops_s) / self._window_s)))

    def took(self, windows: int, lasted_s: float) -> None:
        """Learn what windows take, what is done for them after a tick included."""
        each_s = lasted_s / windows
        self._window_s = each_s if not self._window_s else (1 - NEW) * self._window_s + NEW * each_s

    def rate_hz(self, people: int) -> float:
        """Return how often each of so many people is estimated a second."""
        return self.room(people) / max(people, 1) / min(self._hops_s) if self._hops_s else 0.0
