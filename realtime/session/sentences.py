"""Sentences put together from words, each with what the estimates said while it was spoken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dhmd.contract import Word
from realtime.session.timeline import Timeline

PAUSE_S = 0.8
"""Silence that ends a sentence."""
HEARD_S = 1.0
"""Time after which words, once spoken, reach the estimates."""
ENDINGS = (".", "?", "!", "…")
CLOSING = "\"')\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words spoken one after the other. top, sentiment: of that stretch, None where nothing was estimated."""

    words: tuple[Word, ...]
    top: str | None = None
    sentiment: float | None = None

    @property
    def text(self) -> str:
        return join(self.words)

    @property
    def start_s(self) -> float:
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        return self.words[-1].end_s


def join(words: Sequence[Word]) -> str:
    """Return words as one line, whatever they hold."""
    return printable(" ".join(" ".join(word.text.split()) for word in words))


def printable(text: str) -> str:
    """Replace characters that neither XML nor HTML may hold, escaped or not."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def sentences(timeline: Timeline, fits: Callable[[str], bool] = lambda _: True) -> list[Sentence]:
    """Return sentences up to a full stop or a pause, or of as many words as fit."""
    groups = list(_groups(timeline.words, fits))
    told = []
    for words in groups:
        # Estimates of its first half are mostly about the sentence before.
        middle_s = (words[0].start_s + words[-1].end_s) / 2
        mean = timeline.mean(middle_s, words[-1].end_s + HEARD_S)
        told.append(Sentence(words, *(mean or (None, None))))
    return told


def _groups(words: Sequence[Word], fits: Callable[[str], bool]) -> Iterator[tuple[Word, ...]]:
    group: list[Word] = []
    for word in words:
        if not word.text.split():
            continue
        if group and (word.start_s - group[-1].end_s >= PAUSE_S or not fits(join([*group, word]))):
            yield tuple(group)
            group = []
        group.append(word)
        if word.text.rstrip(CLOSING).endswith(ENDINGS):
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)
