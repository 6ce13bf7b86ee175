"""Dropout whose masks are cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16


def keep(count: int, rate: float, like: Tensor) -> Tensor:
    """(count,) of 0 with probability `rate`, in steps of 1 / 65536, and 1 elsewhere.

    One 64-bit draw makes four: `bernoulli_` takes a draw for each, which was a fifth of a training step.
    """
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return draws.view(torch.int16)[:count].to(like.dtype).ge_(round(rate * LEVELS) - LEVELS // 2)


def dropout(x: Tensor, rate: float) -> Tensor:
    """Numbers of `x` set to zero with probability `rate`, the others scaled so that the mean stays."""
    if rate == 0:
        return x
    return x * keep(x.numel(), rate, x).view(x.shape).div_(1 - rate)


class Dropout(nn.Module):
    """`dropout` in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate) if self.training else x
