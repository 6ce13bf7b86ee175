"""Windows for training and measuring: of one utterance, or composed of strangers; modalities are left out at random.

The public corpora at hand have one modality each. A composed window is made of strangers who show the same emotion; an
utterance that has several modalities of its own also gives native windows, with all of it on one clock. Every sample is
a function of (seed, epoch, index) alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec, Rows
from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import Modality
from dhmd.model import Head
from training.data.batch import Batch, Labels
from training.data.items import Example
from training.data.placement import arrived, arrived_together, whole, whole_together
from training.errors import TooLittleData

SUBSETS: Final[tuple[frozenset[Modality], ...]] = tuple(
    frozenset(chosen) for size in (1, 2, 3) for chosen in combinations(Modality, size)
)
"""Every set of modalities that can be present."""

SENTIMENT_OF_VALENCE: Final = 2.0
"""Sentiment of a class is its valence times this: a happy face counts as 1.8 of 3."""


@dataclass(frozen=True, slots=True)
class Composition:
    """Says how windows are composed.

    subsets: share of the windows for each set of present modalities, by `subset_name`.
    balance: classes are drawn in proportion to their frequency to the power 1 - balance; 1 draws all equally often.
        Windows of several modalities are drawn so; `balance_alone` is that of windows of one, by modality, else 0.
    corpora: how much more often an utterance of a corpus is drawn than others, by the name of its manifest; else 1.
    unlike_share: share of the windows composed of strangers in which each shows an emotion of its own. They have no
        label.
    native_share: share of the windows that are of one utterance, where some have several modalities.
    sentiment_share: share of the windows that are utterances labelled with sentiment and not with an emotion.
    own_share: share of the windows that are utterances labelled for heads of one's own, where there are any.
    valence_weight: weight of the sentiment that a class's valence stands for, next to a labelled one.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    subsets: Mapping[str, float] = field(
        default_factory=lambda: {
            "text": 0.18,
            "vision": 0.18,
            "audio": 0.18,
            "text+vision": 0.1,
            "text+audio": 0.1,
            "vision+audio": 0.1,
            "text+vision+audio": 0.16,
        }
    )
    balance: float = 0.5
    balance_alone: Mapping[Modality, float] = field(default_factory=lambda: dict.fromkeys(Modality, 0.5))
    corpora: Mapping[str, float] = field(default_factory=dict)
    unlike_share: float = 0.0
    native_share: float = 0.5
    sentiment_share: float = 0.12
    own_share: float = 0.5
    valence_weight: float = 0.3


@dataclass(frozen=True, slots=True)
class Sample:
    """One window. values: (steps, width), masks: (steps,) by modality. items: the ids of the utterances it was made of.

    emotion: index into EMOTIONS, -1 unknown. sentiment: NaN unknown. extra: for each head of one's own, the place of a
    class, -1 unknown, or a number as the network learns it, NaN unknown.
    """

    values: Mapping[Modality, NDArray[np.float32]]
    masks: Mapping[Modality, NDArray[np.bool_]]
    items: Mapping[Modality, str]
    emotion: int
    sentiment: float
    sentiment_weight: float
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def sentiment_labelled(self) -> bool:
        """Tells whether people labelled the sentiment, and it is not the valence of the class."""
        return self.sentiment_weight == 1.0 and not np.isnan(self.sentiment)


class Pool:
    """Examples by emotion, as an index into EMOTIONS; each is drawn in proportion to the weight of its corpus."""

    def __init__(self, corpora: Mapping[str, float]) -> None:
        self._corpora = corpora
        self._examples: defaultdict[int, list[Example]] = defaultdict(list)
        self._heights: defaultdict[int, list[float]] = defaultdict(list)  # sums of the weights so far

    def add(self, emotion: int, example: Example) -> None:
        weight = self._corpora.get(example.utterance.corpus, 1.0)
        if weight > 0:
            self._examples[emotion].append(example)
            self._heights[emotion].append(self.weight(emotion) + weight)

    def __bool__(self) -> bool:
        return bool(self._examples)

    def weight(self, emotion: int) -> float:
        """Weight of all examples of an emotion; 0 without any."""
        heights = self._heights.get(emotion)
        return heights[-1] if heights else 0.0

    def drawn(self, emotion: int, draw: np.random.Generator) -> Example:
        heights = self._heights[emotion]
        return self._examples[emotion][bisect_right(heights, draw.uniform(0, heights[-1])) % len(heights)]


class Composer:
    """Draws windows from the examples of one split."""

    def __init__(
        self,
        examples: Sequence[Example],
        specs: Mapping[Modality, FeatureSpec],
        scale: Mapping[Modality, NDArray[np.float32]],
        composition: Composition,
        seed: int,
        heads: Sequence[Head] = (),
    ) -> None:
        """scale: (width,) standard deviation of each feature over the training set, the unit of what is varied."""
        self._heads = heads
        self.specs, self._scale, self._composition, self._seed = specs, scale, composition, seed
        usable = [example for example in examples if example.rows]
        self._pool = {m: Pool(composition.corpora) for m in Modality}
        self._native = Pool(composition.corpora)
        for example in usable:
            if example.utterance.emotion is None:
                continue
            emotion = EMOTIONS.index(example.utterance.emotion)
            for m in example.rows:
                self._pool[m].add(emotion, example)
            if len(example.rows) > 1:
                self._native.add(emotion, example)
        self._sentiment = [example for example in usable if example.utterance.emotion is None]
        self._own = [example for example in usable if example.utterance.extra]
        names = {subset_name(subset): subset for subset in SUBSETS}
        self._shares = {names[name]: share for name, share in composition.subsets.items() if share > 0}
        self._possible = {subset: share for subset, share in self._shares.items() if self.classes(subset)}

    def __bool__(self) -> bool:
        """Tells whether there is anything to draw windows from."""
        return bool(self._possible or self._native or self._sentiment or self._own)

    def classes(self, subset: frozenset[Modality]) -> list[int]:
        """Emotions that every modality of a set has, as indices into EMOTIONS."""
        return [c for c in range(len(EMOTIONS)) if all(self._pool[m].weight(c) for m in subset)]

    def sample(self, epoch: int, index: int) -> Sample:
        """A window for training: parts as they arrive live, varied."""
        draw = np.random.default_rng([self._seed, epoch, index])
        if self._own and draw.random() < self._composition.own_share:
            return self._native_window(self._own[draw.integers(len(self._own))], draw)
        emotional = self._possible or self._native
        if self._sentiment and (not emotional or draw.random() < self._composition.sentiment_share):
            return self._native_window(self._sentiment[draw.integers(len(self._sentiment))], draw)
        if self._native and (not self._possible or draw.random() < self._composition.native_share):
            emotion = _drawn_class([self._native], self._composition.balance, draw)
            return self._native_window(self._native.drawn(emotion, draw), draw)
        subset = _drawn(self._possible, draw)
        balance = self._composition.balance
        if len(subset) == 1:
            balance = self._composition.balance_alone.get(next(iter(subset)), 0.0)
        if len(subset) > 1 and self._composition.unlike_share and draw.random() < self._composition.unlike_share:
            return self._window(self._unlike(subset, balance, draw), draw, varied=True)
        emotion = _drawn_class([self._pool[m] for m in subset], balance, draw)
        return self._window(self._partners(subset, emotion, draw), draw, varied=True)

    def fixed(self, subset: frozenset[Modality], per_class: int) -> list[Sample]:
        """Windows for measuring: parts as they were recorded, as many of every class that all the modalities have."""
        order = [subset_name(other) for other in SUBSETS].index(subset_name(subset))
        draw = np.random.default_rng([self._seed, order])
        return [
            self._window(self._partners(subset, emotion, draw), draw, varied=False)
            for emotion in self.classes(subset)
            for _ in range(per_class)
        ]

    def alone(self, example: Example, shown: Iterable[Modality] = Modality) -> Sample:
        """The window of one utterance as it was recorded, holding only the modalities in `shown`."""
        parts = {m: example for m in example.rows if m in set(shown)}
        return self._window(parts, np.random.default_rng(0), varied=False)

    def _native_window(self, example: Example, draw: np.random.Generator) -> Sample:
        """A window of one utterance for training, with some of its modalities left out."""
        own = frozenset(example.rows)
        shares = {subset: share for subset, share in self._shares.items() if subset <= own}
        subset = _drawn(shares, draw) if len(own) > 1 and shares else own
        return self._window({m: example for m in Modality if m in subset}, draw, varied=True)

    def _partners(
        self, subset: frozenset[Modality], emotion: int, draw: np.random.Generator
    ) -> dict[Modality, Example]:
        return {m: self._pool[m].drawn(emotion, draw) for m in Modality if m in subset}

    def _unlike(
        self, subset: frozenset[Modality], balance: float, draw: np.random.Generator
    ) -> dict[Modality, Example]:
        pools = {m: self._pool[m] for m in Modality if m in subset}
        return {m: pool.drawn(_drawn_class([pool], balance, draw), draw) for m, pool in pools.items()}

    def _window(self, parts: Mapping[Modality, Example], draw: np.random.Generator, *, varied: bool) -> Sample:
        placed = self._placed(parts, draw, varied=varied)
        values: dict[Modality, NDArray[np.float32]] = {}
        masks: dict[Modality, NDArray[np.bool_]] = {}
        for m, spec in self.specs.items():
            rows, end_s = placed.get(m, (Rows.empty(spec.width), 0.0))
            values[m], masks[m] = spec.window(rows, end_s)
        utterances = {part.utterance.id: part.utterance for part in parts.values()}
        first = next(iter(utterances.values()))
        emotion = first.emotion if len({utterance.emotion for utterance in utterances.values()}) == 1 else None
        # Strangers share the emotion at most, not how strong it is.
        sentiment, weight = first.sentiment if len(utterances) == 1 else None, 1.0
        if sentiment is None and emotion is not None:
            sentiment, weight = SENTIMENT_OF_VALENCE * CIRCUMPLEX[emotion][0], self._composition.valence_weight
        return Sample(
            values=values,
            masks=masks,
            items={m: part.utterance.id for m, part in parts.items()},
            emotion=-1 if emotion is None else EMOTIONS.index(emotion),
            sentiment=float("nan") if sentiment is None else sentiment,
            sentiment_weight=weight,
            extra={head.name: _own(head, first.extra if len(utterances) == 1 else {}) for head in self._heads},
        )

    def _placed(
        self, parts: Mapping[Modality, Example], draw: np.random.Generator, *, varied: bool
    ) -> dict[Modality, tuple[Rows, float]]:
        """Rows and end of the window: on one clock what one utterance recorded, else each modality for itself."""
        still = {m: m is Modality.VISION and part.still for m, part in parts.items()}
        same = len({part.utterance.id for part in parts.values()}) == 1
        clocked = {m: part.rows[m] for m, part in parts.items() if same and not still[m]}
        placed: dict[Modality, tuple[Rows, float]] = {}
        if len(clocked) > 1 and varied:
            together, end_s = arrived_together(clocked, self.specs, self._scale, draw)
            placed = {m: (rows, end_s) for m, rows in together.items()}
        elif len(clocked) > 1:
            placed = {m: (rows, whole_together(clocked, self.specs)) for m, rows in clocked.items()}
        for m, part in parts.items():
            if m not in placed:
                rows, spec = part.rows[m], self.specs[m]
                if varied:
                    placed[m] = arrived(rows, spec, self._scale[m], draw, still=still[m])
                else:
                    placed[m] = whole(rows, spec, still=still[m])
        return placed


def _own(head: Head, extra: Mapping[str, float]) -> float:
    if head.kind == "classification":
        return int(extra.get(head.name, -1))
    return head.scaled(extra.get(head.name, float("nan")))


def _drawn(shares: Mapping[frozenset[Modality], float], draw: np.random.Generator) -> frozenset[Modality]:
    chance = np.array(list(shares.values()))
    return list(shares)[draw.choice(len(shares), p=chance / chance.sum())]


def _drawn_class(pools: Sequence[Pool], balance: float, draw: np.random.Generator) -> int:
    """An emotion that all pools have, as often as the mean of them has it; see `Composition.balance`."""
    weights = np.array([[pool.weight(c) for c in range(len(EMOTIONS))] for pool in pools])
    frequency = weights / weights.sum(axis=1, keepdims=True)
    chance = (frequency ** (1 - balance)).mean(axis=0) * (weights > 0).all(axis=0)
    return int(draw.choice(len(EMOTIONS), p=chance / chance.sum()))


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples side by side."""
    modalities = list(samples[0].values)
    return Batch(
        inputs={m: torch.from_numpy(np.stack([s.values[m] for s in samples])) for m in modalities},
        masks={m: torch.from_numpy(np.stack([s.masks[m] for s in samples])) for m in modalities},
        labels=Labels(
            values={
                "emotion": torch.tensor([s.emotion for s in samples]),
                "sentiment": torch.tensor([s.sentiment for s in samples]),
                **{name: torch.tensor([s.extra[name] for s in samples]) for name in samples[0].extra},
            },
            weights={"sentiment": torch.tensor([s.sentiment_weight for s in samples])},
        ),
    )


def statistics(
    examples: Sequence[Example], specs: Mapping[Modality, FeatureSpec]
) -> dict[Modality, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Mean and deviation (width,) of each modality's rows. A feature that hardly varies gets a deviation that keeps
    its noise small, so that it cannot shout when it does. Raises TooLittleData for a modality without rows."""
    result = {}
    for m in specs:
        parts = [example.rows[m].values for example in examples if m in example.rows]
        if not parts:
            raise TooLittleData(f"no training utterance has {m}; add some, or begin from a checkpoint with `start:`")
        result[m] = mean_and_deviation(np.concatenate(parts))
    return result


def mean_and_deviation(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation (width,) of rows (N, width), see `statistics`."""
    deviation = rows.std(axis=0, dtype=np.float64)
    floor = 0.05 * np.median(deviation)
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32), np.maximum(deviation, floor).astype(np.float32)
