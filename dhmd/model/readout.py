"""The model as a function of plain tensors, as tracing and exporting want it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.model.dhmd import DHMD

COLUMNS: Final[tuple[str, ...]] = (
    "sentiment",
    *(f"emotion {name}" for name in EMOTIONS),
    *(f"sentiment of {m} alone" for m in Modality),
    *(f"homogeneous edge {edge}" for edge in EDGES),
    *(f"heterogeneous edge {edge}" for edge in EDGES),
)
"""What stands in each column of a readout. Emotions are scores: softmax(score / temperature) gives probabilities."""


class Readout(nn.Module):
    """Gives the numbers an estimate needs, side by side, of a model with the heads `sentiment` and `emotion`.

    activations: append how strongly each modality uses each atom of the two dictionaries.
    """

    def __init__(self, model: DHMD, *, activations: bool = False) -> None:
        super().__init__()
        self.model = model
        self.activations = activations

    def forward(self, *windows: Tensor) -> Tensor:
        """windows: inputs (B, steps, width), then masks (B, steps), each in modality order.

        Returns (B, 1 + 7 + 3 + 6 + 6) in the order of `COLUMNS`: sentiment, emotion scores, each modality's own
        sentiment, two graphs' edges. Activations follow as (2, 3, K) laid flat: homogeneous and heterogeneous space,
        modality, atom.
        """
        inputs, masks = windows[: len(Modality)], windows[len(Modality) :]
        out = self.model(dict(zip(Modality, inputs, strict=True)), dict(zip(Modality, masks, strict=True)))
        heads = self.model.split(out.output)
        alone = [self.model.split(out.homogeneous.logit[m])["sentiment"] for m in Modality]
        spaces = (out.homogeneous, out.heterogeneous)
        columns = [heads["sentiment"], heads["emotion"], *alone, *(space.edges for space in spaces)]
        if self.activations:
            columns += [space.match[m].activation for space in spaces for m in Modality]
        return torch.cat(columns, dim=-1)
