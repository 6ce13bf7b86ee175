"""The expression of a face: an aligned grey crop, and a small residual network that embeds and classifies it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dhmd.features.fused import FusedConvolution, available
from dhmd.features.weights import digest, fill, load_single, save_half
from dhmd.labels import EMOTIONS

CROP_SIDE: Final = 48
"""Side of an aligned crop in pixels: that of FER2013's images."""

EYE_DISTANCE: Final = 0.37
"""Distance between the eyes of an upright frontal face, as a fraction of the crop's side: the median of FER2013."""

EYE_HEIGHT: Final = 0.39
"""Height of the eyes below the crop's upper edge, as a fraction of its side: the median of FER2013."""

EMBEDDING_WIDTH: Final = 64

_POOLING: Final = -2
"""Where in the trunk the pooling begins."""

LOWER_WIDTH: Final = 256
"""Numbers of the lower third of a face, see `Seen`."""

_EYE_CORNERS: Final = ((33, 133), (362, 263))
"""Landmarks at the corners of the eye on the left and on the right of an unmirrored picture."""


def eye_centres(landmarks: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """(2, 3) midpoints between the eye corners, in pixels: x, y and depth. They do not move with the gaze.

    landmarks: (478, 3) as in Face.landmarks, of a picture of `width` x `height` pixels.
    """
    corners = landmarks[np.array(_EYE_CORNERS)].astype(np.float64) * (width, height, width)  # (eye, corner, xyz)
    centres: NDArray[np.float64] = corners.mean(axis=1)
    return centres


def aligned_crop(image: NDArray[np.uint8], landmarks: NDArray[np.float32], margin: int = 0) -> NDArray[np.uint8]:
    """Grey crop with level eyes at a fixed height, centred, scaled by their distance in space.

    Depth counts in the distance, so a face in half profile is not blown up. Outside the picture its edge is repeated.

    image: (H, W, 3) BGR or (H, W) grey. landmarks: (478, 3) as in Face.landmarks.
    margin: pixels of surroundings added on every side; the inner part is the same crop.
    Returns (S, S) uint8, S = CROP_SIDE + 2 * margin.
    """
    import cv2

    height, width = image.shape[:2]
    left, right = eye_centres(landmarks, width, height)
    pixels_per_crop = max(float(np.linalg.norm(right - left)), 1e-3) / (EYE_DISTANCE * CROP_SIDE)
    # Warped at about the picture's own resolution, then averaged down: sampling directly would alias.
    oversampling = int(np.clip(round(pixels_per_crop), 1, 4))
    scale = oversampling / pixels_per_crop
    across, down = right[:2] - left[:2]
    angle = np.arctan2(down, across)
    rotate = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    anchor = (np.array([0.5, EYE_HEIGHT]) * CROP_SIDE + margin) * oversampling
    # Landmarks count from the corner of the first pixel, warpAffine from its centre.
    shift = anchor - rotate @ ((left + right)[:2] / 2 - 0.5) - 0.5
    side = CROP_SIDE + 2 * margin
    warped = cv2.warpAffine(
        image,
        np.column_stack([rotate, shift]),
        (side * oversampling, side * oversampling),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if warped.ndim == 3:
        warped = cv2.cvtColor(warped, cv2.COLOR_BGR2GRAY)
    if oversampling > 1:
        warped = cv2.resize(warped, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(warped, np.uint8)


class _Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016); a stride halves the side."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.body(x))


class _FusedResidual:
    """The same for use. size: of what it gives, where its input is of the size it was made for."""

    def __init__(self, block: _Residual, size: torch.Size) -> None:
        first, first_norm, _, second, second_norm = cast("Sequence[Any]", block.body)
        self._first = FusedConvolution(first, first_norm, size)
        self._shortcut = None
        if isinstance(block.shortcut, nn.Sequential):
            convolution, norm = cast("Sequence[Any]", block.shortcut)
            self._shortcut = FusedConvolution(convolution, norm, size)
        self.size = torch.Size((size[0], first.out_channels, *(-(-side // first.stride[0]) for side in size[2:])))
        self._second = FusedConvolution(second, second_norm, self.size)

    def __call__(self, x: Tensor) -> Tensor:
        """x is overwritten where the shortcut is x itself."""
        halfway = self._first.relu(x)
        return self._second.relu_of_sum(x if self._shortcut is None else self._shortcut(x), halfway)


Convolve = Callable[[Tensor], Tensor]
"""Standardised crops (B, 1, 48, 48) to features (B, 256, 6, 6)."""


class Seen(NamedTuple):
    """What is seen of aligned crops: embedding (B, 64), logits (B, 7), order of EMOTIONS, and lower (B, LOWER_WIDTH),
    the mean of the last features over the lower third, where the mouth is."""

    embedding: Tensor
    logits: Tensor
    lower: Tensor


class ExpressionNet(nn.Module):
    """Embedding and class logits of aligned crops; trained by `dhmd-train encoder vision`.

    Every crop is standardised first, so brightness and contrast do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),  # (B, 32, 48, 48)
            _Residual(32, 64, 2),  # (B, 64, 24, 24)
            _Residual(64, 128, 2),  # (B, 128, 12, 12)
            _Residual(128, 128, 1),
            _Residual(128, 256, 2),  # (B, 256, 6, 6)
            _Residual(256, 256, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.embed = nn.Sequential(nn.Linear(256, EMBEDDING_WIDTH, bias=False), nn.BatchNorm1d(EMBEDDING_WIDTH))
        self.classify = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(EMBEDDING_WIDTH, len(EMOTIONS)))
        # A sixth less time for one crop, a third less for a training step.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._fused: Convolve | None = None

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (B, 64) and logits (B, 7), order of EMOTIONS, of grey crops (B, 48, 48) in any range of levels."""
        return self._see(crops)[:2]

    def _see(self, crops: Tensor, convolve: Convolve | None = None) -> Seen:
        x = crops.float()
        x = x - x.mean(dim=(1, 2), keepdim=True)
        x = x / (x.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-3)
        features = (convolve or self.trunk[:_POOLING])(x[:, None])
        embedding = self.embed(self.trunk[_POOLING:](features))
        lower = features[:, :, -(features.shape[2] // 3) :].mean(dim=(2, 3))
        return Seen(embedding, self.classify(embedding), lower)

    def see(self, crops: Tensor, convolve: Convolve | None = None) -> Seen:
        """What is seen of grey crops (B, 48, 48), averaged over them and their mirror images: an expression has no
        handedness. convolve: what `fused` gives, if it does."""
        seen = self._see(torch.cat([crops, crops.flip(2)]), convolve)
        return Seen(*(part.reshape(2, -1, part.shape[1]).mean(dim=0) for part in seen))

    def perceive(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits of `see`."""
        return self.see(crops)[:2]

    def train(self, mode: bool = True) -> Self:
        """As of any module; what learns on is fused anew."""
        if mode:
            self._fused = None
        return super().train(mode)

    def fused(self) -> Convolve | None:
        """The convolutions for use in `see`, which then takes two thirds of the time; None on machines without them.

        Made once, of a copy of the weights, until the network is put in training mode. For CPUs and
        `torch.inference_mode` alone.
        """
        if self._fused is None and available():
            self._fused = self._fuse()
        return self._fused

    def _fuse(self) -> Convolve:
        convolution, norm, _, *blocks = cast("Sequence[Any]", self.trunk[:_POOLING])
        size = torch.Size((2, 1, CROP_SIDE, CROP_SIDE))
        first = FusedConvolution(convolution, norm, size)
        size = torch.Size((2, convolution.out_channels, CROP_SIDE, CROP_SIDE))
        residuals = list[_FusedResidual]()
        for block in blocks:
            residuals.append(_FusedResidual(block, size))
            size = residuals[-1].size

        def convolve(x: Tensor) -> Tensor:
            x = first.relu(x)
            for residual in residuals:
                x = residual(x)
            return x

        return convolve

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read weights written by `save`; the network comes in evaluation mode. Raises WeightsInvalid."""
        network = cls()
        fill(network, load_single(path), path)
        return network.eval()

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, floating point numbers in half precision."""
        save_half(path, self.state_dict())

    def sha256(self) -> str:
        """Digest of the weights themselves, whatever file they came from."""
        return digest(self.state_dict())
