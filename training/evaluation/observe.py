"""Observation of a model from inside, over many windows: who teaches whom, which atoms answer, how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION
from training.data.batch import Batch

Floats = NDArray[np.float64]


class Space(StrEnum):
    """The two spaces that features are decoupled into, each with a graph and a dictionary of its own."""

    HOMOGENEOUS = "homogeneous"
    HETEROGENEOUS = "heterogeneous"


@dataclass(frozen=True, slots=True)
class Observations:
    """N windows. emotion: (N,), index into EMOTIONS; edges: (N, 6) in the order of `EDGES`; activations: (N, K)."""

    emotion: NDArray[np.int64]
    edges: Mapping[Space, Floats]
    activations: Mapping[Space, Mapping[Modality, Floats]]


@torch.inference_mode()
def observe(model: DHMD, windows: Iterable[Batch]) -> Observations:
    """Run the model, which must be in evaluation mode, over all windows."""
    emotion, parts = [], []
    for batch in windows:
        out = model(batch.inputs, batch.masks)
        parts.append({Space.HOMOGENEOUS: out.homogeneous, Space.HETEROGENEOUS: out.heterogeneous})
        emotion.append(batch.labels.values[EMOTION.name])
    return Observations(
        emotion=torch.cat(emotion).numpy(),
        edges={space: _joined(part[space].edges for part in parts) for space in Space},
        activations={
            space: {m: _joined(part[space].match[m].activation for part in parts) for m in Modality} for space in Space
        },
    )


def _joined(parts: Iterable[torch.Tensor]) -> Floats:
    return np.asarray(torch.cat(list(parts)).numpy(), np.float64)


def by_emotion(values: Floats, emotion: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(N, K) -> mean and standard deviation over the windows of each emotion, (7, K); NaN where there is none."""
    mean, deviation = (np.full((len(EMOTIONS), values.shape[1]), np.nan) for _ in range(2))
    for label in np.unique(emotion[emotion >= 0]):
        own = values[emotion == label]
        mean[label], deviation[label] = own.mean(axis=0), own.std(axis=0)
    return mean, deviation
