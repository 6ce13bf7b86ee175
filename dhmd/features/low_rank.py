"""Low-rank adaptation of a large encoder: a few numbers that tune it to a task (Hu et al. 2021, "LoRA").

A linear map W x is replaced by W x + s B A x, with A (rank, inputs) and B (outputs, rank). For use, s B A is added to
the weights once, so an adapted encoder costs what the encoder costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE: Final = 2.0
_DOWN, _UP = "down", "up"


class LowRankLinear(nn.Module):
    """A linear map that stays as it is, and a low-rank one beside it that learns; at first it adds nothing."""

    def __init__(self, linear: nn.Linear, rank: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        added: Tensor = self.linear(x) + SCALE * F.linear(F.linear(self.dropout(x), self.down), self.up)
        return added


def adapt(model: nn.Module, maps: Iterable[str], rank: int) -> list[nn.Parameter]:
    """Freeze `model` and put a LowRankLinear in the place of every linear map whose name ends in one of `maps`.

    Returns the parameters that learn.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    ends = tuple(maps)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {name: linear for name, linear in linears.items() if name.endswith(ends)}
    if not chosen:
        raise ValueError(f"not a linear map is called {', '.join(ends)}")
    for name, linear in chosen.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, LowRankLinear(linear, rank))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def adapter_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns what an adapted model learned: `NAME.down` (rank, inputs) and `NAME.up` (outputs, rank) of each map."""
    return {
        f"{name}.{part}": getattr(module, part).detach()
        for name, module in model.named_modules()
        if isinstance(module, LowRankLinear)
        for part in (_DOWN, _UP)
    }


@torch.no_grad()
def merge(model: nn.Module, adapter: Mapping[str, Tensor]) -> None:
    """Add an adapter to the weights of the model that it was learned for. Raises KeyError, AttributeError or
    RuntimeError where it does not fit."""
    for key in adapter:
        name, _, part = key.rpartition(".")
        if part == _DOWN:
            weight = model.get_submodule(name).weight
            if not isinstance(weight, Tensor):
                raise AttributeError(f"{name} has no weight")
            weight += SCALE * adapter[f"{name}.{_UP}"].float() @ adapter[key].float()
