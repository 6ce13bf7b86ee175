"""Whether a mouth is covered, by a mask, a hand, a cup.

It is read, linearly, from what the expression network computes of the lower third of a face anyway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

import torch
from torch import Tensor, nn

from dhmd.features.expression import LOWER_WIDTH
from dhmd.features.weights import fill, load_single

COVERED: Final = 1.0
"""Logit from which on a mouth is covered."""
WEIGHTS: Final = Path(__file__).parents[1] / "pretrained" / "covered.safetensors"


class CoveredMouth(nn.Module):
    """A reading of one expression network; what another computes, it does not know."""

    network: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.reading = nn.Linear(LOWER_WIDTH, 1)
        self.register_buffer("network", torch.zeros(32, dtype=torch.uint8))

    def forward(self, lower: Tensor) -> Tensor:
        """How likely mouths are covered, as logits (B,). lower: (B, LOWER_WIDTH), see `Seen`."""
        logits: Tensor = self.reading(lower)[:, 0]
        return logits

    @classmethod
    def of(cls, network: str, path: Path = WEIGHTS) -> Self | None:
        """The trained reading of the expression network of this sha256; None where it was learned of another one.

        Raises WeightsInvalid.
        """
        reading = cls()
        fill(reading, load_single(path), path)
        return reading.eval() if bytes(reading.network.tolist()).hex() == network else None
