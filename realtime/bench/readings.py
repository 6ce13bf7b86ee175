"""Arithmetic on what was read from clips: how steady a label is, and how much of it stays when the clip is changed."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from realtime.messages.estimate import EmotionName
from realtime.recognition.steadied import Hysteresis

Label = EmotionName | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Ticks of a clip, a hop of `hop_s` apart.

    end_s: when each window ends. emotions: probabilities that the model gave each; None where nothing was perceived.
    """

    hop_s: float
    end_s: Sequence[float]
    emotions: Sequence[tuple[float, ...] | None]

    def labels(self, margin: float) -> list[Label]:
        """Return the emotion on top at each tick, as published with that margin."""
        hysteresis = Hysteresis(margin)
        return [hysteresis.top(emotions, end_s) for end_s, emotions in zip(self.end_s, self.emotions, strict=True)]


def changes_a_minute(readings: Iterable[Reading], margin: float) -> float:
    """Return how often one label follows another, a minute of ticks that have one; clips are not joined."""
    changes, labelled_s = 0, 0.0
    for reading in readings:
        labels = reading.labels(margin)
        changes += sum(a is not None and b is not None and a != b for a, b in pairwise(labels))
        labelled_s += reading.hop_s * sum(label is not None for label in labels)
    return 60 * changes / labelled_s if labelled_s else 0.0


def shares(readings: Iterable[Reading], margin: float) -> dict[EmotionName, float]:
    """Return the share of each label among the ticks that have one, largest first."""
    counts = Counter(label for reading in readings for label in reading.labels(margin) if label is not None)
    return {label: count / counts.total() for label, count in counts.most_common()}


@dataclass(frozen=True, slots=True)
class Kept:
    """Number of ticks whose label stayed, of those that had one before the change."""

    stayed: int = 0
    ticks: int = 0

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.stayed + other.stayed, self.ticks + other.ticks)

    @property
    def share(self) -> float:
        return self.stayed / self.ticks if self.ticks else float("nan")


def kept(original: Reading, changed: Reading, tempo: float, margin: float) -> Kept:
    """Set each tick of a changed clip beside the same moment of the original.

    tempo: speed of the changed clip; what lasts a second in the original lasts 1 / tempo.
    """
    before = original.labels(margin)
    stayed = ticks = 0
    for end_s, label in zip(changed.end_s, changed.labels(margin), strict=True):
        moment_s = end_s * tempo
        after = bisect.bisect_left(original.end_s, moment_s)
        near = [i for i in (after - 1, after) if 0 <= i < len(before)]
        place = min(near, key=lambda i: abs(original.end_s[i] - moment_s))
        if abs(original.end_s[place] - moment_s) <= original.hop_s / 2 + 1e-6 and before[place] is not None:
            ticks += 1
            stayed += label == before[place]
    return Kept(stayed, ticks)
