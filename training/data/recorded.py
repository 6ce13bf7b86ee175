"""Sessions that were recorded live, as data: how long they are, the marks in them, the features of a stretch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from dhmd.contract import Rows, Word
from dhmd.modality import Modality
from dhmd.session import Session, SessionInvalid, schema
from dhmd.session.reader import Contents, Mark, mark_of, rows_of, words_of


def extent(path: Path) -> tuple[float, bool]:
    """Seconds up to the last thing in it, and whether it was cut or is damaged there. Raises SessionInvalid."""
    contents = Contents.of(Session.open(path))
    return contents.last_s, not contents.whole


def marks(session: Session) -> tuple[list[Mark], int]:
    """The labelled stretches in the order in which they were marked, and the number of those without a label.

    Where two overlap the later one holds; it was perhaps to correct the other, of which less than half would be left.
    Raises SessionInvalid.
    """
    kept: list[Mark] = []
    unlabelled = 0
    for record in session.records({schema.MARK}):
        mark = mark_of(record.message, session)
        if mark.emotion is None and mark.sentiment is None:
            unlabelled += 1
        else:
            kept = [left for one in kept if (left := _before(one, mark)) is not None] + [mark]
    return kept, unlabelled


def _before(one: Mark, later: Mark) -> Mark | None:
    """The part that is left of a mark when a later one was made."""
    if not (one.start_s < later.end_s and later.start_s < one.end_s):
        return one
    if later.start_s - one.start_s < (one.end_s - one.start_s) / 2:
        return None
    return replace(one, end_s=later.start_s)


@dataclass(frozen=True, slots=True)
class RecordedFeatures:
    """All rows of face and voice of a session, and its words once they were final, oldest first.

    Times are in seconds of the recording; what the window held when it began in the middle of a run is before 0.
    """

    rows: Mapping[Modality, Rows]
    words: tuple[Word, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a session up to where it was cut. Raises SessionInvalid."""
        modality_of = {topic: m for m, topic in schema.FEATURES.items()}
        parts: dict[Modality, list[Rows]] = {m: [] for m in schema.FEATURES}
        words: list[Word] = []
        try:
            session = Session.open(path)
            width = {m: session.features[m].width for m in parts}
            began_s = session.start_s
            for record in session.records({*modality_of, schema.WORDS}):
                if record.topic == schema.WORDS:
                    words += (
                        replace(word, start_s=word.start_s - began_s, end_s=word.end_s - began_s)
                        for word in words_of(record.message.final)
                    )
                    continue
                m, rows = modality_of[record.topic], rows_of(record.message)
                if rows.values.shape[1] != width[m]:
                    numbers = rows.values.shape[1]
                    raise SessionInvalid(f"{path}: damaged, a row of {m} has {numbers} numbers and not {width[m]}")
                parts[m].append(Rows(rows.times_s - began_s, rows.values))
        except OSError as error:
            raise SessionInvalid(f"{path}: cannot be read ({error.strerror})") from None
        return cls({m: Rows.concatenate(own, width[m]) for m, own in parts.items()}, tuple(words))

    def features(self, modality: Modality, start_s: float, end_s: float | None) -> Rows:
        """Rows of a stretch (None: to the end), times from its start."""
        rows = self.rows[modality]
        inside = (rows.times_s >= start_s) & (rows.times_s <= (np.inf if end_s is None else end_s))
        return Rows(rows.times_s[inside] - start_s, rows.values[inside])

    def spoken(self, start_s: float, end_s: float | None) -> list[Word]:
        """Words whose middle lies in a stretch (None: to the end), times from its start."""
        last_s = np.inf if end_s is None else end_s
        return [
            replace(word, start_s=max(word.start_s, start_s) - start_s, end_s=min(word.end_s, last_s) - start_s)
            for word in self.words
            if start_s <= (word.start_s + word.end_s) / 2 < last_s
        ]
