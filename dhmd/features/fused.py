"""Convolutions for use: norm, ReLU and shortcut are done within them, by oneDNN.

torch offers these operators to its own compiler; they are asked for by name, and where they are not, on machines
without oneDNN, there is nothing to be had.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_NEEDED: Final = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")


def available() -> bool:
    """Whether this machine's torch has the operators."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _NEEDED)


class FusedConvolution:
    """A convolution with the batch norm behind it in its weights, which lie as oneDNN reads them.

    The weights are copied: a network that learns on needs a new one.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, size: torch.Size) -> None:
        """size: of the input (B, C, H, W) for which the weights are laid out; others are served, too."""
        fused = fuse_conv_bn_eval(convolution, norm)
        self._geometry: tuple[Any, ...] = (list(fused.padding), list(fused.stride), list(fused.dilation), fused.groups)
        weight, self._bias = fused.weight.detach(), None if fused.bias is None else fused.bias.detach()
        self._weight: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, *self._geometry, list(size))

    def __call__(self, x: Tensor, after: str = "none") -> Tensor:
        """after: "relu" or "none"."""
        given = (x, self._weight, self._bias, *self._geometry)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(*given, after, [], "")
        return made

    def added_to(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """Add to `shortcut`, in its place, and take the ReLU of the sum."""
        given = (shortcut, x, self._weight, self._bias, *self._geometry)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(*given, "add", 1.0, "relu", [], None)
        return made
