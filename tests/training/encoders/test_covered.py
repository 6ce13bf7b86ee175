"""What is drawn over faces, and the reading of covered mouths that is learned from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from dhmd.assets.store import fetch
from dhmd.checkpoint import load
from dhmd.features.expression import ExpressionNet, aligned_crop
from dhmd.features.landmarks import FaceLandmarks
from dhmd.media.reader import MediaReader
from dhmd.modality import Modality
from tests import composites
from training.encoders.covered import BESIDE, COVERS, HIDDEN, Image, Thing, beard, drawn, train
from training.features.face_images import DETECTION_CONFIDENCE, largest_face

LIPS = slice(140, 154), slice(110, 145)
"""Rows and columns of the portrait."""


@pytest.fixture(scope="module")
def landmarks() -> Iterator[FaceLandmarks]:
    with FaceLandmarks(fetch("face-landmarker") / "face_landmarker.task", "image", DETECTION_CONFIDENCE) as landmarks:
        yield landmarks


@pytest.mark.parametrize("thing", [*dict.fromkeys(COVERS), *BESIDE], ids=lambda thing: thing.__name__)
def test_covers_hide_the_lips_and_other_things_do_not(landmarks: FaceLandmarks, thing: Thing) -> None:
    portrait, face = largest_face(np.ascontiguousarray(data.astronaut()[:256, 96:352, ::-1]), landmarks)
    assert face is not None
    without_lips = portrait.copy()
    without_lips[LIPS] = 0
    shares = []
    for seed in range(5):
        image, hidden = drawn(thing, portrait, face, np.random.default_rng(seed))
        other, _ = drawn(thing, without_lips, face, np.random.default_rng(seed))
        assert np.mean(np.abs(image.astype(int) - portrait) > 20) > 0.01
        seen = np.mean(image[LIPS].astype(int) - other[LIPS]) / np.mean(portrait[LIPS])
        assert seen == pytest.approx(1 - hidden, abs=0.1)
        shares.append(hidden)
    assert np.median(shares) > HIDDEN if thing in COVERS else max(shares) < 0.1


def test_covers_are_told_from_open_mouths_on_faces_that_were_not_learned_from(
    landmarks: FaceLandmarks, shared: Path
) -> None:
    def image(clip: Path) -> Image:
        return next(MediaReader(clip).pictures()).image()

    network = ExpressionNet.load(load("base").encoder(Modality.VISION))
    learned = ("mead_happy.mp4", "mead_sad.mp4", "mead_disgusted.mp4", "single_face_smile.mp4", "grid_lbax4n.mpg")
    reading = train(network, 2 * [image(shared / "clips" / name) for name in learned], landmarks)
    assert bytes(reading.network.tolist()).hex() == network.sha256()

    def logit(picture: Image) -> float:
        face = largest_face(picture, landmarks)[1]
        assert face is not None
        with torch.inference_mode():
            crop = torch.from_numpy(aligned_crop(picture, face.landmarks))[None]
            return float(reading(network.see(crop).lower))

    random = np.random.default_rng(0)
    for clip in composites.grid(shared, composites.FIRST, composites.SECOND):
        picture, face = largest_face(image(clip), landmarks)
        assert face is not None
        # Beards take more faces to learn than these.
        beside = [logit(drawn(thing, picture, face, random)[0]) for thing in BESIDE if thing is not beard]
        covered = [logit(drawn(thing, picture, face, random)[0]) for thing in COVERS[1:]]
        assert max(logit(picture), *beside) < 0 < min(covered)
