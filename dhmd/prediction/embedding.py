"""Projection of one modality (DHMD, step 1)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dhmd.modality import Modality
from dhmd.model import DHMD
from dhmd.model.decoupling import Normaliser, Projection
from dhmd.prediction.maps import copied


class Embedding(nn.Module):
    """Applies the normaliser and the convolution to a modality's rows."""

    scale: Tensor
    shift: Tensor
    taps: Tensor | None

    def __init__(self, model: DHMD, m: Modality) -> None:
        super().__init__()
        normaliser, projection = cast("Normaliser", model.normaliser[m]), cast("Projection", model.projection[m])
        self.kernel, self.d = projection.kernel, model.config.d
        self.limit = normaliser.LIMIT
        self.register_buffer("scale", 1 / normaliser.std)
        self.register_buffer("shift", -normaliser.mean / normaliser.std)
        # All taps of the kernel side by side, (inputs, kernel * d): one product, then a sum along its diagonals.
        conv = projection.conv
        self.register_buffer("taps", None if conv is None else copied(conv.weight.permute(1, 2, 0).flatten(1)))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, inputs) and (B, T) bool -> (B, T', d) and (B, T') bool."""
        x = torch.addcmul(self.shift, x, self.scale).clamp_(-self.limit, self.limit).mul_(mask[..., None])
        if self.taps is None:
            return x, mask
        (batch, steps), d, k = mask.shape, self.d, self.kernel
        x = x @ self.taps
        if k == 1:
            return x, mask
        diagonals = x.as_strided((batch, steps - k + 1, k, d), (steps * k * d, k * d, k * d + d, 1))
        return diagonals.sum(dim=2), mask.unfold(1, k, 1).any(dim=-1)
