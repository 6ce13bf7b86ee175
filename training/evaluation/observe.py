"""Observation of a model from inside, over many windows: who teaches whom, which atoms answer, how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION, DHMDOutput, Head
from training.data.batch import Batch

Floats = NDArray[np.float64]


BEFORE: Final = "before decoupling"


class Space(StrEnum):
    """The two spaces that features are decoupled into, each with a graph and a dictionary of its own."""

    HOMOGENEOUS = "homogeneous"
    HETEROGENEOUS = "heterogeneous"


@dataclass(frozen=True, slots=True)
class Observations:
    """N windows. emotion: (N,), place in `names`; edges: (N, 6) in the order of `EDGES`; activations: (N, K).

    features: (N, d) by what they are and by modality: the input, and what each space makes of it, mean over the steps.
    """

    emotion: NDArray[np.int64]
    edges: Mapping[Space, Floats]
    activations: Mapping[Space, Mapping[Modality, Floats]]
    features: Mapping[str, Mapping[Modality, Floats]] = field(default_factory=dict)
    names: tuple[str, ...] = EMOTIONS


@torch.inference_mode()
def observe(model: DHMD, windows: Iterable[Batch], head: Head = EMOTION) -> Observations:
    """Run the model, which must be in evaluation mode, over all windows. head: by whose labels they are
    grouped; numbers by their sign."""
    emotion, parts, pooled = [], [], []
    for batch in windows:
        out = model(batch.inputs, batch.masks)
        parts.append({Space.HOMOGENEOUS: out.homogeneous, Space.HETEROGENEOUS: out.heterogeneous})
        pooled.append(_features(out))
        label = batch.labels.values[head.name]
        emotion.append(label if head.kind == "classification" else torch.sign(label).long() + 1)
    return Observations(
        emotion=torch.cat(emotion).numpy(),
        edges={space: _joined(part[space].edges for part in parts) for space in Space},
        activations={
            space: {m: _joined(part[space].match[m].activation for part in parts) for m in Modality} for space in Space
        },
        features={
            stage: {m: _joined(part[stage][m] for part in pooled) for m in Modality} for stage in (BEFORE, *Space)
        },
        names=head.classes or ("negative", "neutral", "positive"),
    )


def _features(out: DHMDOutput) -> dict[str, dict[Modality, torch.Tensor]]:
    """(B, d) means over the present steps; NaN of an absent modality."""

    def mean(x: torch.Tensor, m: Modality) -> torch.Tensor:
        mask = out.mask[m][..., None]
        return (x * mask).sum(dim=1) / mask.sum(dim=1)

    return {
        BEFORE: {m: mean(out.projected[m], m) for m in Modality},
        Space.HOMOGENEOUS: {m: mean(out.decoupled[m].homogeneous, m) for m in Modality},
        Space.HETEROGENEOUS: {m: mean(out.decoupled[m].heterogeneous, m) for m in Modality},
    }


def _joined(parts: Iterable[torch.Tensor]) -> Floats:
    return np.asarray(torch.cat(list(parts)).numpy(), np.float64)


def by_emotion(values: Floats, emotion: NDArray[np.int64], count: int = len(EMOTIONS)) -> tuple[Floats, Floats]:
    """(N, K) -> mean and standard deviation over the windows of each group, (count, K); NaN where there is none."""
    mean, deviation = (np.full((count, values.shape[1]), np.nan) for _ in range(2))
    for label in np.unique(emotion[emotion >= 0]):
        own = values[emotion == label]
        mean[label], deviation[label] = own.mean(axis=0), own.std(axis=0)
    return mean, deviation
