"""Projection to the common width, and decoupling by self-regression (DHMD, steps 1 and 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.model.config import ModalityConfig


class Normaliser(nn.Module):
    """Standardises raw features with the training set's statistics and clips outliers; they travel with the weights."""

    LIMIT = 10.0
    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return ((x - self.mean) / self.std).clamp(-self.LIMIT, self.LIMIT)


class Projection(nn.Module):
    """Conv1d over time without padding or bias, (B, T, in) -> (B, T - k + 1, d); skipped when in == d."""

    def __init__(self, config: ModalityConfig, d: int) -> None:
        super().__init__()
        self.kernel = 1 if config.width == d else config.kernel
        self.conv = None if config.width == d else nn.Conv1d(config.width, d, config.kernel, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, in), mask: (B, T) bool. A step is present when any step under its kernel is."""
        x = x * mask[..., None]
        if self.conv is None:
            return x, mask
        if x.shape[1] < self.kernel:
            raise ValueError(f"a window of {x.shape[1]} steps is shorter than the kernel of {self.kernel}")
        projected = self.conv(x.transpose(1, 2)).transpose(1, 2)
        if self.kernel > 1:
            mask = F.max_pool1d(mask[:, None].float(), self.kernel, stride=1)[:, 0] > 0
        return projected, mask


class Decoupled(NamedTuple):
    """All (B, T', d)."""

    homogeneous: Tensor  # C
    heterogeneous: Tensor  # S
    reconstruction: Tensor  # R
    heterogeneous_again: Tensor  # S'


class Decoupler(nn.Module):
    """The private encoder E_s and decoder D of one modality; the shared encoder E_c is passed in."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(d, d, bias=False)
        self.decoder = nn.Linear(2 * d, d, bias=False)

    def forward(self, x: Tensor, shared_encoder: nn.Module) -> Decoupled:
        """x: (B, T', d)."""
        shared = shared_encoder(x)
        private = self.encoder(x)
        rebuilt = self.decoder(torch.cat([private, shared], dim=-1))
        return Decoupled(shared, private, rebuilt, self.encoder(rebuilt))
