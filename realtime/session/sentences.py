"""Sentences put together from words, each with what the estimates said while it was spoken."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dhmd.contract import Word
from dhmd.modality import Modality
from realtime.session.timeline import Timeline

PAUSE_S = 0.8
"""Silence that ends a sentence."""
HEARD_S = 1.0
"""Time after which words, once spoken, reach the estimates."""
SLACK_S = 0.1
"""By which times of words and of their rows may differ."""
ENDINGS = (".", "?", "!", "…")
CLOSING = "\"')\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words spoken one after the other.

    top, sentiment: of all that was perceived with it, None where nothing was estimated. alone: sentiment of the words
    by themselves, None where it is not known.
    """

    words: tuple[Word, ...]
    top: str | None = None
    sentiment: float | None = None
    alone: float | None = None

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
    following = itertools.chain((words[0].start_s for words in groups[1:]), [math.inf])
    return [_sentence(timeline, words, next_s) for words, next_s in zip(groups, following, strict=False)]


def _sentence(timeline: Timeline, words: tuple[Word, ...], next_s: float) -> Sentence:
    """next_s: start of the next sentence."""
    newest_s = timeline.t_s - timeline.age_s[Modality.TEXT]
    # Windows that hold the whole sentence, if none is so long, and nothing of the next.
    heard = timeline.present[Modality.TEXT] & (newest_s >= words[-1].end_s - SLACK_S) & (newest_s < next_s + SLACK_S)
    whole = heard & (timeline.start_s <= words[0].start_s)
    chosen = whole if whole.any() else heard
    if not chosen.any():
        # Of the time in which it was spoken, the second half: the first is mostly about the sentence before.
        middle_s = (words[0].start_s + words[-1].end_s) / 2
        chosen = (timeline.t_s >= middle_s) & (timeline.t_s <= words[-1].end_s + HEARD_S)
    alone = timeline.alone[Modality.TEXT][chosen & ~np.isnan(timeline.alone[Modality.TEXT])]
    top, sentiment = timeline.mean(chosen) or (None, None)
    return Sentence(words, top, sentiment, float(alone.mean()) if len(alone) else None)


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
