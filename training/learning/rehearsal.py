"""Rehearsal: a network that learns from new utterances is held to what it said before (Li & Hoiem 2016, "Learning
without Forgetting").

What the network learned from is not at hand then, so it rehearses imagined windows, of any modalities: rows drawn from
the statistics of its normaliser, and what it said of them before it learned anything new. This keeps what it knows of
the modalities that are not learned from. In the end its weights are averaged with the old ones (Wortsman et al. 2022,
"Robust fine-tuning"), which keeps what it knows of those that are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION, Head
from training.data.batch import Batch
from training.data.compose import SUBSETS

POOL: Final = 1024
"""Windows that are imagined once and drawn from ever after."""

LASTING: Final = 0.8
"""Deviation of what all rows of a window have in common, of 1 in all: sentences differ more than their words."""


class Rehearsal:
    """Imagined windows, and what was said of them."""

    def __init__(self, model: DHMD, specs: Mapping[Modality, FeatureSpec], seed: int) -> None:
        """model: as it is now."""
        self._seed = seed
        draw = np.random.default_rng([seed, POOL])
        shown = np.array([[m in subset for m in Modality] for subset in SUBSETS])[
            draw.integers(len(SUBSETS), size=POOL)
        ]
        self._inputs, self._masks = {}, {}
        for i, m in enumerate(Modality):
            self._masks[m] = torch.from_numpy(_newest(specs[m].steps, draw) & shown[:, i : i + 1])
            self._inputs[m] = _rows(model, m, specs[m].steps, draw) * self._masks[m][..., None]
        self._said = _said(model, self._inputs, self._masks)
        self._named = model.split(self._said)[EMOTION.name].argmax(dim=1)

    def agreement(self, model: DHMD) -> float:
        """Share of the windows in which another model, or this one later, finds the same emotion likeliest."""
        now = model.split(_said(model, self._inputs, self._masks))[EMOTION.name].argmax(dim=1)
        return float((now == self._named).float().mean())

    def beside(self, batch: Batch, count: int, epoch: int, step: int) -> Batch:
        """The batch with so many rehearsed windows after its own."""
        chosen = torch.from_numpy(np.random.default_rng([self._seed, epoch, step]).integers(POOL, size=count))
        return Batch(
            {m: torch.cat([x, self._inputs[m][chosen]]) for m, x in batch.inputs.items()},
            {m: torch.cat([x, self._masks[m][chosen]]) for m, x in batch.masks.items()},
            batch.labels,
            self._said[chosen],
        )


def _newest(steps: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    """(POOL, steps): the newest rows of each window, at least one."""
    return np.asarray(np.arange(steps) >= steps - draw.integers(1, steps, size=(POOL, 1), endpoint=True))


def _rows(model: DHMD, m: Modality, steps: int, draw: np.random.Generator) -> Tensor:
    """(POOL, steps, width)."""
    statistics = model.normaliser[m].state_dict()
    mean, deviation = statistics["mean"].cpu(), statistics["std"].cpu()
    lasting = draw.standard_normal((POOL, 1, len(mean)), np.float32)
    passing = draw.standard_normal((POOL, steps, len(mean)), np.float32)
    noise = torch.from_numpy(LASTING * lasting + (1 - LASTING**2) ** 0.5 * passing)
    rows: Tensor = mean + deviation * noise
    return rows


@torch.no_grad()
def _said(model: DHMD, inputs: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]) -> Tensor:
    """(POOL, O) on the CPU; the model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    said = [
        model({m: x[part] for m, x in inputs.items()}, {m: x[part] for m, x in masks.items()}).output
        for part in torch.split(torch.arange(POOL), 64)
    ]
    model.train(was_training)
    return torch.cat(said)


def averaged(model: DHMD, old: Mapping[str, Tensor], share: float) -> DHMD:
    """A copy whose weights are the mean of its own and old ones, of which that share is taken. Where it has grown
    since, what is new stays."""
    mean = deepcopy(model)
    state = mean.state_dict()
    for name, value in state.items():
        part = value[tuple(slice(size) for size in old[name].shape)]
        part.copy_(part.lerp(old[name].to(value.device), share))
    mean.load_state_dict(state)
    return mean


@torch.no_grad()
def grown(model: DHMD, heads: Sequence[Head]) -> DHMD:
    """A copy with more heads at the end; what it says otherwise stays the same, and the new ones begin by chance."""
    bigger = DHMD(replace(model.config, heads=(*model.config.heads, *heads)))
    state = bigger.state_dict()
    for name, value in model.state_dict().items():
        if state[name].shape != value.shape and name.endswith("from_logit.weight"):
            state[name].zero_()  # edges do not yet read the new ones
        state[name][tuple(slice(size) for size in value.shape)].copy_(value)
    bigger.load_state_dict(state)
    return bigger
