"""Windows composed of items from corpora of one modality each: same label, random partners, modalities left out.

No corpus at hand has face, voice and words of the same moment with labels. A composed sample is therefore made of
strangers who show the same emotion. Every sample is a function of (seed, epoch, index) alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec, Rows
from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import Modality
from training.data.items import Example
from training.data.placement import arrived, whole
from training.losses import Labels

SUBSETS: Final[tuple[frozenset[Modality], ...]] = tuple(
    frozenset(chosen) for size in (1, 2, 3) for chosen in combinations(Modality, size)
)
"""Every set of modalities that can be present."""

SENTIMENT_OF_VALENCE: Final = 2.0
"""Sentiment of a class is its valence times this: a happy face counts as 1.8 of 3."""


@dataclass(frozen=True, slots=True)
class Composition:
    """How windows are composed.

    subsets: share of the windows for each set of present modalities, by `subset_name`.
    balance: classes are drawn in proportion to their frequency to the power 1 - balance; 1 draws all equally often.
    sentiment_share: share of the windows that are utterances labelled with sentiment and not with an emotion.
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
    sentiment_share: float = 0.12
    valence_weight: float = 0.3


@dataclass(frozen=True, slots=True)
class Sample:
    """One window. values: (steps, width), masks: (steps,) by modality. items: the ids it was made of.

    emotion: index into EMOTIONS, -1 unknown. sentiment: NaN unknown.
    """

    values: Mapping[Modality, NDArray[np.float32]]
    masks: Mapping[Modality, NDArray[np.bool_]]
    items: Mapping[Modality, str]
    emotion: int
    sentiment: float
    sentiment_weight: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as tensors: (B, steps, width) and (B, steps) by modality."""

    inputs: Mapping[Modality, Tensor]
    masks: Mapping[Modality, Tensor]
    labels: Labels


class Composer:
    """Draws windows from the examples of one split."""

    def __init__(
        self,
        examples: Sequence[Example],
        specs: Mapping[Modality, FeatureSpec],
        scale: Mapping[Modality, NDArray[np.float32]],
        composition: Composition,
        seed: int,
    ) -> None:
        """scale: (width,) standard deviation of each feature over the training set, the unit of what is varied."""
        self.specs, self._scale, self._composition, self._seed = specs, scale, composition, seed
        usable = [example for example in examples if len(example.rows)]
        self._by_class: dict[Modality, defaultdict[int, list[Example]]] = {m: defaultdict(list) for m in Modality}
        for example in usable:
            if example.item.emotion is not None:
                self._by_class[example.item.modality][EMOTIONS.index(example.item.emotion)].append(example)
        self._sentiment = [example for example in usable if example.item.sentiment is not None]
        names = {subset_name(subset): subset for subset in SUBSETS}
        shares = {name: share for name, share in composition.subsets.items() if share > 0}
        self._subsets = [names[name] for name in shares]
        self._shares = np.array(list(shares.values())) / sum(shares.values())

    def sample(self, epoch: int, index: int) -> Sample:
        """A window for training: parts as they arrive live, varied."""
        draw = np.random.default_rng([self._seed, epoch, index])
        if self._sentiment and draw.random() < self._composition.sentiment_share:
            chosen = self._sentiment[draw.integers(len(self._sentiment))]
            return self._window({chosen.item.modality: chosen}, draw, varied=True)
        subset = self._subsets[draw.choice(len(self._subsets), p=self._shares)]
        return self._window(self._partners(subset, self._draw_class(subset, draw), draw), draw, varied=True)

    def fixed(self, subset: frozenset[Modality], per_class: int) -> list[Sample]:
        """Windows for measuring: parts as they were recorded, as many of every class that all the modalities have."""
        order = [subset_name(other) for other in SUBSETS].index(subset_name(subset))
        draw = np.random.default_rng([self._seed, order])
        classes = [c for c in range(len(EMOTIONS)) if all(self._by_class[m][c] for m in subset)]
        return [
            self._window(self._partners(subset, emotion, draw), draw, varied=False)
            for emotion in classes
            for _ in range(per_class)
        ]

    def alone(self, example: Example) -> Sample:
        """The window of one item as it was recorded."""
        return self._window({example.item.modality: example}, np.random.default_rng(0), varied=False)

    def _draw_class(self, subset: frozenset[Modality], draw: np.random.Generator) -> int:
        counts = np.array([[len(self._by_class[m][c]) for c in range(len(EMOTIONS))] for m in subset], np.float64)
        frequency = counts / counts.sum(axis=1, keepdims=True)
        chance = (frequency ** (1 - self._composition.balance)).mean(axis=0) * (counts > 0).all(axis=0)
        return int(draw.choice(len(EMOTIONS), p=chance / chance.sum()))

    def _partners(
        self, subset: frozenset[Modality], emotion: int, draw: np.random.Generator
    ) -> dict[Modality, Example]:
        parts: dict[Modality, Example] = {}
        for m in Modality:
            if m in subset:
                pool = self._by_class[m][emotion]
                parts[m] = pool[draw.integers(len(pool))]
        return parts

    def _window(self, parts: Mapping[Modality, Example], draw: np.random.Generator, *, varied: bool) -> Sample:
        values: dict[Modality, NDArray[np.float32]] = {}
        masks: dict[Modality, NDArray[np.bool_]] = {}
        for m, spec in self.specs.items():
            if m in parts:
                rows = parts[m].rows
                rows, end_s = arrived(rows, spec, self._scale[m], draw) if varied else whole(rows, spec)
            else:
                rows, end_s = Rows.empty(spec.width), 0.0
            values[m], masks[m] = spec.window(rows, end_s)
        items = [part.item for part in parts.values()]
        emotion = items[0].emotion
        sentiment, weight = items[0].sentiment, 1.0
        if sentiment is None and emotion is not None:
            sentiment, weight = SENTIMENT_OF_VALENCE * CIRCUMPLEX[emotion][0], self._composition.valence_weight
        return Sample(
            values=values,
            masks=masks,
            items={m: part.item.id for m, part in parts.items()},
            emotion=-1 if emotion is None else EMOTIONS.index(emotion),
            sentiment=float("nan") if sentiment is None else sentiment,
            sentiment_weight=weight,
        )


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
            },
            weights={"sentiment": torch.tensor([s.sentiment_weight for s in samples])},
        ),
    )


def statistics(
    examples: Sequence[Example], specs: Mapping[Modality, FeatureSpec]
) -> dict[Modality, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Mean and deviation (width,) of each modality's rows. A feature that hardly varies gets a deviation that keeps
    its noise small, so that it cannot shout when it does."""
    result = {}
    for m, spec in specs.items():
        rows = np.concatenate([example.rows.values for example in examples if example.item.modality is m])
        if rows.shape[1] != spec.width or not len(rows):
            raise ValueError(f"{m}: rows {rows.shape}, expected (N > 0, {spec.width})")
        result[m] = mean_and_deviation(rows)
    return result


def mean_and_deviation(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """rows: (N, width). Returns two of (width,), see `statistics`."""
    deviation = rows.std(axis=0, dtype=np.float64)
    floor = 0.05 * np.median(deviation)
    return rows.mean(axis=0, dtype=np.float64).astype(np.float32), np.maximum(deviation, floor).astype(np.float32)
