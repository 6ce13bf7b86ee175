"""What light, hands, lenses and codecs do to the picture of a face: augmentation of batches of crops."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from dhmd.features.expression import CROP_SIDE, EYE_HEIGHT
from training.features.face_images import SIDE

POOR: Final = 0.6
"""Share of the crops that become poor pictures. Of these the shares:"""
OCCLUDED: Final = 0.15
"""Lower face covered, by a mask or by something as large as a hand."""
EXPOSED: Final = 0.6
"""Under- or overexposed; half of all are lit from one side."""
BLURRED: Final = 0.3
SHARPENED: Final = 0.2
COMPRESSED: Final = 0.3

_BLOCK: Final = 8  # pixels of a block of JPEG and its like
_EYES: Final = EYE_HEIGHT * CROP_SIDE + (SIDE - CROP_SIDE) / 2  # row of the eyes in a crop with margin


def photographed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """The same faces, a share POOR of them in poor pictures: covered, badly lit, out of focus, noisy, compressed.

    crops: (B, SIDE, SIDE) float in [0, 255]. Returns the same kind.
    """
    chosen = _drawn(len(crops), POOR, generator)
    if not len(chosen):
        return crops
    poor = focused(exposed(occluded(crops[chosen], generator), generator), generator)
    noise = 4 * torch.rand(len(poor), 1, 1, generator=generator)
    poor = (poor + noise * torch.randn(poor.shape, generator=generator)).clamp(0, 255).round()
    result = crops.clone()
    result[chosen] = compressed(poor, generator)
    return result


def occluded(crops: Tensor, generator: torch.Generator) -> Tensor:
    """A share OCCLUDED of the crops with the lower face covered by a smooth patch."""
    chosen = _drawn(len(crops), OCCLUDED, generator)
    count, mid = len(chosen), SIDE / 2
    axis = torch.arange(SIDE) + 0.5
    down, across = axis[:, None], axis[None, :]

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    # A mask covers all below an edge that is bent over the nose.
    mask = down > _EYES + draw(9, 15) + draw(0, 0.015) * (across - mid - draw(-4, 4)) ** 2
    x, y, angle = across - draw(mid - 14, mid + 14), down - draw(_EYES + 10, _EYES + 28), draw(0, math.pi)
    along, aside = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    hand = (along / draw(9, 18)) ** 2 + (aside / draw(5, 11)) ** 2 < 1
    covered = torch.where(torch.rand(count, 1, 1, generator=generator) < 0.5, mask, hand)
    patch = draw(15, 240) + draw(-0.8, 0.8) * x + draw(-0.8, 0.8) * y
    result = crops.clone()
    result[chosen] = torch.where(covered, patch.clamp(0, 255), crops[chosen])
    return result


def exposed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """A share EXPOSED of the crops darker, to a third, or brighter, by 1.7; half of all lit from one side.

    What is too bright is cut off; in the dark few levels are left.
    """
    batch = len(crops)
    axis = torch.linspace(-1, 1, SIDE)
    towards = 2 * math.pi * torch.rand(batch, 1, 1, generator=generator)
    slope = 0.7 * (2 * torch.rand(batch, 1, 1, generator=generator) - 1).clamp_min(0)
    light = slope * (towards.cos() * axis[None, None, :] + towards.sin() * axis[None, :, None])
    gain = -math.log(3) + math.log(3 * 1.7) * torch.rand(batch, 1, 1, generator=generator)
    light = light + gain * (torch.rand(batch, 1, 1, generator=generator) < EXPOSED)
    return (crops * light.exp()).clamp(0, 255)


def focused(crops: Tensor, generator: torch.Generator) -> Tensor:
    """A share BLURRED of the crops out of focus by up to 1.2 pixels, a share SHARPENED with edges made harder."""
    batch = len(crops)
    draw = torch.rand(batch, 1, 1, generator=generator)
    amount = torch.where(draw < BLURRED, 1.0, torch.where(draw < BLURRED + SHARPENED, -0.8, 0.0))
    amount = torch.where(amount < 0, amount * torch.rand(batch, 1, 1, generator=generator), amount)
    spread = 0.5 + 0.7 * torch.rand(batch, 1, generator=generator)  # (B, 1) standard deviation, pixels
    kernel = torch.exp(-((torch.arange(-3, 4) / spread) ** 2) / 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, None, None, :]  # (B, 1, 1, 7)
    blurred = F.pad(crops[None], (3, 3, 3, 3), mode="replicate")
    blurred = F.conv2d(F.conv2d(blurred, kernel, groups=batch), kernel.transpose(2, 3), groups=batch)[0]
    return crops + amount * (blurred - crops)


def compressed(crops: Tensor, generator: torch.Generator) -> Tensor:
    """A share COMPRESSED of the crops with the higher frequencies of each block coarsely rounded, as JPEG does."""
    chosen = _drawn(len(crops), COMPRESSED, generator)
    place = torch.arange(_BLOCK)
    # Step of rounding: grows with the frequency, from 2 to 16 levels at the lowest.
    lowest = 2 * torch.exp(math.log(8) * torch.rand(len(chosen), 1, 1, 1, 1, generator=generator))
    step = lowest * (1 + 0.7 * (place[:, None] + place[None, :]))
    basis = torch.cos(math.pi / _BLOCK * (place[None, :] + 0.5) * place[:, None]) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)  # (frequency, pixel), orthonormal
    count = SIDE // _BLOCK
    blocks = crops[chosen].reshape(-1, count, _BLOCK, count, _BLOCK).transpose(2, 3)
    rounded = ((basis @ blocks @ basis.T) / step).round() * step
    result = crops.clone()
    result[chosen] = (basis.T @ rounded @ basis).transpose(2, 3).reshape(-1, SIDE, SIDE).clamp(0, 255)
    return result


def _drawn(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Places of about that share of a batch."""
    return torch.nonzero(torch.rand(batch, generator=generator) < share)[:, 0]
