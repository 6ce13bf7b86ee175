"""The model as a function of plain tensors, as tracing and exporting want it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.model.config import EMOTION, SENTIMENT, Head
from dhmd.model.dhmd import DHMD

SHARED: Final = (SENTIMENT.name, EMOTION.name)
"""Heads that every live checkpoint has; others are its own."""


def own_heads(heads: Iterable[Head]) -> tuple[Head, ...]:
    return tuple(head for head in heads if head.name not in SHARED)


def columns(heads: Iterable[Head]) -> tuple[str, ...]:
    """What stands in each column of a readout of a model with these heads. Those of classes are scores:
    softmax(score / temperature) gives probabilities."""
    named = {head.name: head for head in heads}
    sentiment = SENTIMENT.name in named
    return (
        *((SENTIMENT.name,) if sentiment else ()),
        *(f"emotion {name}" for name in EMOTIONS if EMOTION.name in named),
        *(f"sentiment of {m} alone" for m in Modality if sentiment),
        *(f"homogeneous edge {edge}" for edge in EDGES),
        *(f"heterogeneous edge {edge}" for edge in EDGES),
        *(f"{head.name} {one}".strip() for head in own_heads(named.values()) for one in head.classes or ("",)),
    )


COLUMNS: Final = columns((SENTIMENT, EMOTION))
"""Those of a checkpoint without heads of its own; where there are some, theirs follow."""


class Readout(nn.Module):
    """Gives the numbers an estimate needs, side by side: see `columns`.

    activations: append how strongly each modality uses each atom of the two dictionaries.
    """

    def __init__(self, model: DHMD, *, activations: bool = False) -> None:
        super().__init__()
        self.model = model
        self.activations = activations

    def forward(self, *windows: Tensor) -> Tensor:
        """windows: inputs (B, steps, width), then masks (B, steps), each in modality order.

        Returns (B, 1 + 7 + 3 + 6 + 6) in the order of `COLUMNS`: sentiment, emotion scores, each modality's own
        sentiment, two graphs' edges; then what the heads of its own say. Activations follow as (2, 3, K) laid flat:
        homogeneous and heterogeneous space, modality, atom.
        """
        inputs, masks = windows[: len(Modality)], windows[len(Modality) :]
        out = self.model(dict(zip(Modality, inputs, strict=True)), dict(zip(Modality, masks, strict=True)))
        heads = self.model.split(out.output)
        alone = [self.model.split(out.homogeneous.logit[m]) for m in Modality]
        spaces = (out.homogeneous, out.heterogeneous)
        columns = [heads[name] for name in SHARED if name in heads]
        columns += [said[SENTIMENT.name] for said in alone if SENTIMENT.name in said]
        columns += [space.edges for space in spaces]
        columns += [heads[head.name] for head in own_heads(self.model.config.heads)]
        if self.activations:
            columns += [space.match[m].activation for space in spaces for m in Modality]
        return torch.cat(columns, dim=-1)
