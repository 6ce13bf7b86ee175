"""Dictionary matching: each modality is rebuilt from a few atoms that all modalities share (DHMD, steps 4 and 6)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.modality import Modality


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of (..., K) scores onto the simplex (Martins & Astudillo 2016); most entries are zero."""
    ordered, _ = scores.sort(dim=-1, descending=True)
    rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
    in_support = 1 + rank * ordered > ordered.cumsum(dim=-1)
    size = in_support.sum(dim=-1, keepdim=True)
    threshold = ((ordered * in_support).sum(dim=-1, keepdim=True) - 1) / size
    return (scores - threshold).clamp(min=0)


class Match(NamedTuple):
    """Activation (B, K), sparse, which sums to 1, and feature (B, width), of length 1; zero for an absent modality."""

    activation: Tensor
    feature: Tensor


def unmatched(feature: Tensor) -> Match:
    """Stands for a match where there is no dictionary: the (B, width) feature itself, detached, of length 1."""
    return Match(feature.new_zeros(len(feature), 0), F.normalize(feature.detach(), dim=-1))


class Dictionary(nn.Module):
    """K learnable atoms, and one query map a modality."""

    def __init__(self, atoms: int, width: int, temperature: float) -> None:
        super().__init__()
        self.scale = 1.0 / (math.sqrt(width) * temperature)
        self.atoms = nn.Parameter(torch.randn(atoms, width) / math.sqrt(width))
        self.query = nn.ModuleDict(
            {
                modality: nn.Sequential(
                    nn.LayerNorm(width),
                    nn.Linear(width, width),
                    nn.GELU(),
                    nn.LayerNorm(width),
                    nn.Linear(width, width),
                )
                for modality in Modality
            }
        )

    def forward(self, modality: Modality, x: Tensor, mask: Tensor) -> Match:
        """x: (B, T, width), mask: (B, T) bool. The input is detached: the dictionary reads, it does not shape."""
        scores = self.query[modality](x.detach()) @ (self.atoms.T * self.scale)  # (B, T, K)
        scores = scores + torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, float("-inf"))[..., None]
        present = mask.any(dim=1)[:, None]
        best = scores.amax(dim=1)  # (B, K)
        activation = sparsemax(torch.where(present, best, 0.0)) * present
        return Match(activation, F.normalize(activation @ self.atoms, dim=-1))
