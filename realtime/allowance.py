"""A limit to how often what comes from outside is listened to."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MOST_CALLERS: Final = 1024


class Allowance:
    """So much a second, and `burst` at once: a token bucket that starts full."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._seen_s: float | None = None

    def takes(self, now_s: float, amount: float = 1.0) -> bool:
        """Whether there is room for this much now; if so, it is used."""
        self._refill(now_s)
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def wait_s(self, now_s: float, amount: float = 1.0) -> float:
        """Use this much in any case, and tell for how long whoever sends it has to wait before the next is heard."""
        self._refill(now_s)
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    def _refill(self, now_s: float) -> None:
        if self._seen_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._rate)
        self._seen_s = now_s


class Allowances:
    """An allowance for each caller by name; the one that came longest ago makes room."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._of: OrderedDict[str, Allowance] = OrderedDict()

    def of(self, caller: str) -> Allowance:
        found = self._of.setdefault(caller, Allowance(self._rate, self._burst))
        self._of.move_to_end(caller)
        while len(self._of) > MOST_CALLERS:
            self._of.popitem(last=False)
        return found
