"""A limit to how often what comes from outside is listened to."""

from __future__ import annotations


class Allowance:
    """So much a second, and `burst` at once: a token bucket that starts full."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._seen_s: float | None = None

    def takes(self, now_s: float, amount: float = 1.0) -> bool:
        """Whether there is room for this much now; if so, it is used."""
        if self._seen_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._rate)
        self._seen_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True
