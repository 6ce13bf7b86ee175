"""The words of a session so far, and those of a window."""

from __future__ import annotations

import threading
from collections import deque
from itertools import takewhile

from dhmd.contract import Word

REMEMBERED = 4096


class SpokenWords:
    """Final words, and the partial ones after them. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._final: deque[Word] = deque(maxlen=REMEMBERED)
        self._partial: tuple[Word, ...] = ()

    def update(self, final: tuple[Word, ...], partial: tuple[Word, ...], window_s: float) -> list[Word]:
        """Take in what one recognition changed; returns the words of the window that ends with the newest of them."""
        with self._lock:
            self._final.extend(final)
            self._partial = partial
            newest = partial[-1] if partial else self._final[-1] if self._final else None
            return [] if newest is None else self._since(newest.end_s - window_s)

    def within(self, start_s: float, end_s: float) -> tuple[Word, ...]:
        """Words spoken in a window, those at its edges too, oldest first."""
        with self._lock:
            return tuple(word for word in self._since(start_s) if word.start_s < end_s)

    def since(self, start_s: float) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
        """Final and partial words that ended after `start_s`, oldest first."""
        with self._lock:
            words = self._since(start_s)
            partial = tuple(word for word in self._partial if word.end_s > start_s)
            return tuple(words[: len(words) - len(partial)]), partial

    @property
    def all(self) -> tuple[Word, ...]:
        """The newest REMEMBERED final ones and the partial ones, oldest first."""
        with self._lock:
            return (*self._final, *self._partial)

    def _since(self, start_s: float) -> list[Word]:
        """Words that ended after `start_s`; read from the newest back, as a session may be long."""
        recent = takewhile(lambda word: word.end_s > start_s, reversed(self._final))
        return [*reversed(list(recent)), *(word for word in self._partial if word.end_s > start_s)]
