"""Utterances as sequences of features of all modalities, ready for the network, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.modality import Modality
from dhmd.model import SENTIMENT, Head
from training.data.batch import Batch, Labels
from training.data.items import Split


@dataclass(frozen=True, slots=True)
class Utterances:
    """N labelled utterances of one split.

    inputs: (N, steps, width) float32 and masks: (N, steps) bool, true where a row stands, by modality.
    label: (N,) of `head`: float32, or int64 the place of a class. speakers: who each is of; empty where their ids alone
    tell.
    """

    ids: tuple[str, ...]
    inputs: Mapping[Modality, NDArray[np.float32]]
    masks: Mapping[Modality, NDArray[np.bool_]]
    label: NDArray[np.float32] | NDArray[np.int64]
    head: Head = SENTIMENT
    speakers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """The chosen utterances side by side."""
        return Batch(
            inputs={m: torch.from_numpy(x[chosen]) for m, x in self.inputs.items()},
            masks={m: torch.from_numpy(x[chosen]) for m, x in self.masks.items()},
            labels=Labels({self.head.name: torch.from_numpy(self.label[chosen])}),
        )

    def in_order(self, size: int) -> Iterator[Batch]:
        """All of them, as they stand."""
        for first in range(0, len(self), size):
            yield self.batch(np.arange(first, min(first + size, len(self))))


@dataclass(frozen=True, slots=True)
class Sequences:
    """A data set. `sha256` of its file; `standardised` when its features need no normaliser. notes: lines on what was
    assumed of it."""

    splits: Mapping[Split, Utterances]
    sha256: str
    standardised: bool
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> Head:
        """What the utterances are labelled with."""
        return self.splits[Split.TRAIN].head

    @property
    def widths(self) -> dict[Modality, int]:
        return {m: x.shape[2] for m, x in self.splits[Split.TRAIN].inputs.items()}


@dataclass(frozen=True, slots=True)
class ShuffledBatches:
    """Every utterance once an epoch, in an order that seed and epoch fix."""

    utterances: Utterances
    size: int
    seed: int

    def __len__(self) -> int:
        return math.ceil(len(self.utterances) / self.size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.utterances))
        for first in range(0, len(order), self.size):
            yield self.utterances.batch(order[first : first + self.size])
