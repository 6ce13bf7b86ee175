"""Yardsticks of both benches: the paper's network, and a large matrix product that gives a machine's rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from dhmd.modality import Modality
from dhmd.model import DHMDConfig, ModalityConfig

PAPER: Final = DHMDConfig(
    {
        Modality.TEXT: ModalityConfig(768, 5, 0.3),
        Modality.VISION: ModalityConfig(20, 5),
        Modality.AUDIO: ModalityConfig(5, 5, 0.2),
    }
)
"""The constants of the DHMD paper for CMU-MOSI, and the widths of its published features."""

PAPER_STEPS: Final = dict.fromkeys(Modality, 50)
MATRIX: Final = 1024
"""Side of the square matrices."""

PRODUCT_OPERATIONS: Final = 2 * MATRIX**3


def product(kind: torch.dtype = torch.float32) -> Callable[[], Tensor]:
    """Returns the work of multiplying two matrices."""
    square = torch.randn(MATRIX, MATRIX).to(kind)
    out = torch.empty_like(square)
    return lambda: torch.mm(square, square, out=out)
