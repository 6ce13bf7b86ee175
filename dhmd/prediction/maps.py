"""Affine maps of several modules side by side, and what is taken into them.

What is the same at each step stands in columns: (G, d, N), N steps of all samples side by side. Products are then wide,
which is what their kernels are fast at, norms run along the wide side, and heads are rows that need no copying.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]
"""Weight (..., outputs, inputs) and bias (..., outputs), as of `nn.Linear`."""

EPS: Final = 1e-5
"""Of every layer norm, as in the model."""


class Map(nn.Module):
    """G affine maps side by side: (G, N, inputs) -> (G, N, outputs)."""

    weight: Tensor
    """(G, inputs, outputs)."""
    bias: Tensor
    """(G, 1, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: (G, outputs, inputs); bias: (G, outputs)."""
        super().__init__()
        self.register_buffer("weight", copied(weight.transpose(1, 2)))
        self.register_buffer("bias", copied(bias[:, None]))

    @classmethod
    def of(cls, linears: Iterable[nn.Module]) -> Map:
        """The map of `nn.Linear`s of one shape."""
        return cls(*stacked(affine(linear) for linear in linears))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class ColumnMap(nn.Module):
    """G affine maps side by side: (G, inputs, N) -> (G, outputs, N)."""

    weight: Tensor
    """(G, outputs, inputs)."""
    bias: Tensor
    """(G, outputs, 1)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: (G, outputs, inputs); bias: (G, outputs)."""
        super().__init__()
        self.register_buffer("weight", copied(weight))
        self.register_buffer("bias", copied(bias[..., None]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, self.weight, x)

    def into(self, x: Tensor, out: Tensor) -> Tensor:
        """Puts what the maps make of `x` into `out`."""
        return torch.baddbmm(self.bias, self.weight, x, out=out)

    def onto(self, x: Tensor, sum_: Tensor) -> None:
        """Adds what the maps make of `x` to `sum_`."""
        sum_.baddbmm_(self.weight, x).add_(self.bias)


def copied(x: Tensor) -> Tensor:
    """A copy with memory of its own, laid out as it is read."""
    return x.detach().clone(memory_format=torch.contiguous_format)


def standardise(x: Tensor) -> Tensor:
    """A layer norm without its scale and shift, of columns (G, d, N)."""
    return scaled(x - x.mean(dim=1, keepdim=True))


def scaled(x: Tensor) -> Tensor:
    """The same of columns whose mean is zero."""
    return x * torch.rsqrt((x * x).mean(dim=1, keepdim=True).add_(EPS))


def centred(maps: Affine) -> Affine:
    """The same maps, but for the mean of what they give: a layer norm does not see it. Where all that is added to a
    residual stream is centred, the stream is."""
    weight, bias = maps
    return weight - weight.mean(dim=-2, keepdim=True), bias - bias.mean(dim=-1, keepdim=True)


def affine(module: nn.Module) -> Affine:
    """Weight and bias of a linear map or a layer norm."""
    weight = cast("Tensor", module.weight)
    bias = cast("Tensor | None", module.bias)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def after(second: Affine, first: Affine) -> Affine:
    """One map for `first`, then `second`."""
    return second[0] @ first[0], second[1] + second[0] @ first[1]


def after_norm(linear: nn.Module, norm: nn.Module) -> Affine:
    """A linear map with the scale and shift of the layer norm before it taken in."""
    (weight, bias), (scale, shift) = affine(linear), affine(norm)
    return weight * scale, bias + weight @ shift


def places(chosen: Sequence[int]) -> Tensor:
    """Indices as a tensor: lists would be made into one in each call."""
    return torch.tensor(chosen, dtype=torch.long)


def stacked(maps: Iterable[Affine]) -> Affine:
    weights, biases = zip(*maps, strict=True)
    return torch.stack(weights), torch.stack(biases)


def joined(maps: Iterable[Affine]) -> Affine:
    """Groups of maps, one behind the other."""
    weights, biases = zip(*maps, strict=True)
    return torch.cat(weights), torch.cat(biases)
