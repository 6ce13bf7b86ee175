"""Labelled stills, each seen once through the face landmarker and kept as an aligned crop; their feature rows."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dhmd.features.expression import CROP_SIDE, ExpressionNet, aligned_crop
from dhmd.features.landmarks import BLENDSHAPES, POSE, Face, FaceLandmarks, pixel_boxes, within_max_side
from dhmd.features.tracks import largest
from dhmd.labels import EMOTIONS
from training.data.items import Split, Utterance

MARGIN: Final = 8
"""Pixels of surroundings kept around every crop, so that shifts and turns need invent nothing."""
SIDE: Final = CROP_SIDE + 2 * MARGIN

DETECTION_CONFIDENCE: Final = 0.2
"""FER2013's faces fill their 48 pixels, often cut off: the detector needs to be generous."""

LARGEST_CROP: Final = 112
"""An image of at most so many pixels a side in which no face is found is taken to be the crop of a face."""

SPLITS: Final = tuple(split.value for split in Split)
MEASURES: Final = len(BLENDSHAPES) + len(POSE)

VARIANTS: Final = ("as seen", "mirrored", "jittered", "jittered")
"""The rows that `feature_rows` gives of every still."""


@dataclass(frozen=True, slots=True)
class Sight:
    """Holds what the landmarker saw in a still.

    crop: (SIDE, SIDE) uint8, aligned, with MARGIN. Where no face was found: the plain image if it is no larger than
    LARGEST_CROP, else None. found: whether a face was.
    measures: (55,) float32, blendshapes and pose; zero where no face was found.
    """

    crop: NDArray[np.uint8] | None
    found: bool
    measures: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceImages:
    """N stills as the landmarker saw them.

    split: (N,) index into SPLITS. label: (N,) index into EMOTIONS. corpus: (N,) name of the manifest.
    votes: (N, 7) float32, shares of the people asked that named each of EMOTIONS; zero where nobody counted.
    crops: (N, SIDE, SIDE) uint8. found: (N,) bool. measures: (N, 55) float32. See `Sight`.
    """

    split: NDArray[np.int64]
    label: NDArray[np.int64]
    votes: NDArray[np.float32]
    corpus: NDArray[np.str_]
    crops: NDArray[np.uint8]
    found: NDArray[np.bool_]
    measures: NDArray[np.float32]

    @classmethod
    def of(cls, labelled: Sequence[tuple[Utterance, Sight]]) -> Self:
        """Collects the stills of utterances with an emotion; each must have a crop."""
        nobody = (0.0,) * len(EMOTIONS)
        return cls(
            split=np.array([SPLITS.index(one.split) for one, _ in labelled], np.int64),
            label=np.array([EMOTIONS.index(one.emotion or "") for one, _ in labelled], np.int64),
            votes=np.array([one.votes or nobody for one, _ in labelled], np.float32).reshape(-1, len(EMOTIONS)),
            corpus=np.array([one.corpus for one, _ in labelled], np.str_),
            crops=np.array([seen.crop for _, seen in labelled], np.uint8).reshape(-1, SIDE, SIDE),
            found=np.array([seen.found for _, seen in labelled], np.bool_),
            measures=np.array([seen.measures for _, seen in labelled], np.float32).reshape(-1, MEASURES),
        )

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


def see(image: NDArray[np.uint8], landmarks: FaceLandmarks) -> Sight:
    """Look for the largest face of a still.

    image: (H, W, 3) BGR. landmarks: in image mode, with DETECTION_CONFIDENCE. Takes about 12 ms.
    """
    picture, face = largest_face(image, landmarks)
    if face is not None:
        crop = aligned_crop(picture, face.landmarks, MARGIN)
        return Sight(crop, True, np.concatenate([face.blendshapes, face.pose]).astype(np.float32))
    return Sight(_plain(image) if _is_small(image) else None, False, np.zeros(MEASURES, np.float32))


def largest_face(image: NDArray[np.uint8], landmarks: FaceLandmarks) -> tuple[NDArray[np.uint8], Face | None]:
    """The picture in which the largest face of a still is looked for, and that face, of that picture; see `see`."""
    picture = enlarged(image) if _is_small(image) else within_max_side(image)
    faces = landmarks.find(picture, 0.0)
    chosen = largest(pixel_boxes(faces, picture))
    return picture, None if chosen is None else faces[chosen]


def _is_small(image: NDArray[np.uint8]) -> bool:
    return bool(max(image.shape[:2]) <= LARGEST_CROP)


def enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tight face as a picture the detector can work on: its longest side 192 pixels, its edges repeated around it.

    image: (H, W) grey or (H, W, 3) BGR. Returns (H', W', 3); (320, 320, 3) of a square one.
    """
    import cv2

    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    height, width = (max(1, round(side * 192 / max(image.shape[:2]))) for side in image.shape[:2])
    large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.copyMakeBorder(large, 64, 64, 64, 64, cv2.BORDER_REPLICATE), np.uint8)


def _plain(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image itself as a crop with MARGIN."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if grey.shape != (CROP_SIDE, CROP_SIDE):
        shrinks = max(grey.shape) > CROP_SIDE
        grey = cv2.resize(grey, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.asarray(cv2.copyMakeBorder(grey, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE), np.uint8)


def jittered(crops: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Turned (to 12 degrees), scaled (to 12 %) and shifted (to 3 pixels) crops under other light.

    crops: (B, S, S) float with MARGIN. Returns (B, CROP_SIDE, CROP_SIDE). strength 0 cuts off the margin only.
    """
    batch, side = len(crops), crops.shape[1]

    def spread(*shape: int) -> Tensor:
        return strength * (2 * torch.rand(*shape, generator=generator) - 1)

    angle = math.radians(12) * spread(batch)
    scale = CROP_SIDE / side * torch.exp(0.12 * spread(batch))
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale * angle.cos()
    theta[:, 0, 1] = -scale * angle.sin()
    theta[:, 1, 0] = scale * angle.sin()
    theta[:, :, 2] = 3 * 2 / side * spread(batch, 2)
    grid = F.affine_grid(theta, [batch, 1, CROP_SIDE, CROP_SIDE], align_corners=False)
    moved = F.grid_sample(crops[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    gamma = torch.exp(0.4 * spread(batch, 1, 1))
    lit: Tensor = 255 * (moved.clamp(0, 255) / 255) ** gamma
    return lit


def feature_rows(crop: NDArray[np.uint8], measures: NDArray[np.float32], network: ExpressionNet) -> NDArray[np.float32]:
    """Rows as FaceExtractor would give them of a still, (4, WIDTH), one a variant of VARIANTS.

    crop: (SIDE, SIDE) with MARGIN; measures: (55,) blendshapes and pose, see `Sight`.
    Mirrored: left and right blendshapes change places, yaw and roll their sign. Jittered: the crop is turned, scaled,
    shifted and lit a little differently, which moves embedding and logits; blendshapes and pose stay.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(crop.tobytes()))
    plain = inner(crop[None]).float()
    moved = jittered(torch.from_numpy(crop.copy()).float().expand(VARIANTS.count("jittered"), -1, -1), generator, 0.5)
    with torch.inference_mode():
        # What it perceives of a face it perceives of its mirror image.
        perceived = torch.cat(network.eval().perceive(plain), dim=1).expand(2, -1)
        embedded = torch.cat([perceived, torch.cat(network(moved), dim=1)]).numpy()
    of_variant = {"as seen": measures, "mirrored": _mirrored(measures[None])[0], "jittered": measures}
    seen = np.stack([of_variant[variant] for variant in VARIANTS])
    return np.concatenate([seen, embedded], axis=1)


def inner(crops: NDArray[np.uint8]) -> Tensor:
    """The crops as the extractor makes them: without the margin."""
    return torch.from_numpy(np.ascontiguousarray(crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]))


def _mirrored(measures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blendshapes and pose (N, 55) of the same faces in a mirror."""
    swapped = [name.replace("Left", "*").replace("Right", "Left").replace("*", "Right") for name in BLENDSHAPES]
    places = [BLENDSHAPES.index(name) for name in swapped]
    pose = measures[:, len(BLENDSHAPES) :] * np.array([-1, 1, -1], np.float32)
    return np.concatenate([measures[:, places], pose], axis=1)
