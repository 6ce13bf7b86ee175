"""The memory of an edge of its stream: the rows and words of the newest window, and how far they have been sent."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.modality import Modality
from realtime.perception.transcript import TranscriptUpdate
from realtime.perception.words import SpokenWords
from realtime.scale.window_message import APPENDED


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the stream, up to which somebody has it: rows so far of each modality, revisions of the words."""

    rows: Mapping[Modality, int]
    words: int


NOTHING: Final = Position(dict.fromkeys(APPENDED, 0), 0)


class WindowLog:
    """An observer of perception, which remembers what the window holds. Safe between threads.

    text: the rows of the newest words, as they stand in the window.
    """

    def __init__(self, specs: Mapping[Modality, FeatureSpec], text: Callable[[], Rows]) -> None:
        self.specs = specs
        self._text = text
        self._window_s = max(spec.window_s for spec in specs.values())
        self._lock = threading.Lock()
        self._rows: dict[Modality, deque[tuple[int, Rows]]] = {m: deque() for m in APPENDED}
        """Rows, with the number of those that came before."""
        self._counts = dict.fromkeys(APPENDED, 0)
        self._spoken = SpokenWords()
        self._read: list[Word] = []
        """The words of the window that ends with the newest of them."""
        self._text_sent: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._revision = 0

    def on_frame(self, *_: object) -> None:
        """Pictures and sound stay here; the rows of a face come apart."""

    on_sound = on_face = on_frame

    def on_rows(self, modality: Modality, rows: Rows, _: int = 0) -> None:
        """Take new rows, in half precision: see Rows.halved."""
        with self._lock:
            parts = self._rows[modality]
            parts.append((self._counts[modality], rows))
            self._counts[modality] += len(rows)
            oldest_s = rows.times_s[-1] - self._window_s
            while parts[0][1].times_s[-1] <= oldest_s:
                parts.popleft()

    def on_words(self, update: TranscriptUpdate, _: int = 0) -> None:
        with self._lock:
            words = self._spoken.update(update.final, update.partial, self._window_s)
            self._revision += words != self._read
            self._read = words

    def since(self, mark: Position, end_s: float) -> tuple[dict[Modality, Rows], tuple[Word, ...] | None, Position]:
        """New rows, the words if they have changed, and the mark that has both.

        Rows that no window will hold again are left out, but for the newest. The words are those of the window that
        ends at `end_s`, and of the one that ends with the newest word: these are encoded.
        """
        with self._lock:
            rows = {m: self._newer(m, mark.rows[m]) for m in APPENDED}
            words, text = None, self._text()
            # Of private words nothing is told here, but their rows are in the window.
            self._revision += not np.array_equal(text.values, self._text_sent)
            self._text_sent = text.values
            if self._revision != mark.words:
                newest_s = self._read[-1].end_s if self._read else end_s
                words = self._spoken.within(min(end_s, newest_s) - self._window_s, math.inf)
                rows[Modality.TEXT] = text
            return rows, words, Position(dict(self._counts), self._revision)

    def _newer(self, modality: Modality, count: int) -> Rows:
        parts = [
            Rows(rows.times_s[max(0, count - before) :], rows.values[max(0, count - before) :])
            for before, rows in self._rows[modality]
            if before + len(rows) > count
        ]
        return Rows.concatenate(parts, self.specs[modality].width)
