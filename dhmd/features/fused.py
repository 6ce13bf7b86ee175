"""Convolutions for use: norm, ReLU and shortcut are done within them, by oneDNN.

torch has these operators for its own compiler. They are asked for by name; machines without oneDNN have none.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLVE, _ADD, _LAY_OUT = _OPERATORS = (
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_reorder_convolution_weight",
)


def available() -> bool:
    """Whether torch has the operators on this machine."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


class FusedConvolution:
    """A convolution with the batch norm behind it in its weights, which lie as oneDNN reads them.

    The weights are copied: a network that learns on needs a new one.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, size: torch.Size) -> None:
        """size: of the input (B, C, H, W) for which the weights are laid out; others are served, too."""
        fused = fuse_conv_bn_eval(convolution, norm)
        geometry: Final = (list(fused.padding), list(fused.stride), list(fused.dilation), fused.groups)
        weight = _operator(_LAY_OUT)(fused.weight.detach(), *geometry, list(size))
        self._given: tuple[Any, ...] = (weight, None if fused.bias is None else fused.bias.detach(), *geometry)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        made: Tensor = _operator(_CONVOLVE)(x, *self._given, "none", [], "")
        return made

    def relu(self, x: Tensor) -> Tensor:
        """The same, and the ReLU of it."""
        made: Tensor = _operator(_CONVOLVE)(x, *self._given, "relu", [], "")
        return made

    def relu_of_sum(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """The ReLU of the sum with `shortcut`, in whose place it is put."""
        made: Tensor = _operator(_ADD).binary(shortcut, x, *self._given, "add", 1.0, "relu", [], None)
        return made


def _operator(name: str) -> Any:
    return getattr(torch.ops.mkldnn, name)
