from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.checkpoint import encoder_path, load
from dhmd.features.expression import (
    CROP_SIDE,
    EMBEDDING_WIDTH,
    EYE_DISTANCE,
    EYE_HEIGHT,
    ExpressionNet,
    aligned_crop,
    eye_centres,
)
from dhmd.features.fused import available
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality

WIDTH, HEIGHT = 640, 480


def landmarks_with_eyes(left: tuple[float, float], right: tuple[float, float], depth: float = 0) -> NDArray[np.float32]:
    """Landmarks whose eyes lie at these pixels, the right one `depth` pixels nearer to the camera."""
    landmarks = np.zeros((478, 3), np.float32)
    for (x, y), z, corners in ((left, 0.0, (33, 133)), (right, -depth, (362, 263))):
        for corner, offset in zip(corners, (-5, 5), strict=True):
            landmarks[corner] = ((x + offset) / WIDTH, y / HEIGHT, z / WIDTH)
    return landmarks


def bright_spots(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centres (x, y) of the light in the left and the right half, in pixels from the corner of the crop."""
    half = crop.shape[1] // 2
    centres = []
    for part, offset in ((crop[:, :half], 0), (crop[:, half:], half)):
        rows, columns = np.indices(part.shape) + 0.5
        centres.append(((columns * part).sum() / part.sum() + offset, (rows * part).sum() / part.sum()))
    return np.array(centres)


@pytest.mark.parametrize("degrees", [0, 25, -40, 160])
@pytest.mark.parametrize("distance", [18, 60, 170])
def test_eyes_come_to_their_places(degrees: float, distance: float) -> None:
    import cv2

    turn = np.deg2rad(degrees)
    reach = distance / 2 * np.array([np.cos(turn), np.sin(turn)])
    centre = np.array([330.0, 230.0])
    left, right = centre - reach, centre + reach
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for eye in (left, right):
        cv2.circle(image, np.round(eye - 0.5).astype(int).tolist(), max(2, round(distance / 20)), (255, 255, 255), -1)
    crop = aligned_crop(image, landmarks_with_eyes(tuple(left), tuple(right)))
    assert crop.shape == (CROP_SIDE, CROP_SIDE)
    across = EYE_DISTANCE / 2
    expected = np.array([[0.5 - across, EYE_HEIGHT], [0.5 + across, EYE_HEIGHT]]) * CROP_SIDE
    # Half a pixel of the picture is lost in drawing; at the smallest distance that is as much in the crop.
    np.testing.assert_allclose(bright_spots(crop), expected, atol=0.6)


def test_margin_adds_surroundings_and_leaves_the_crop() -> None:
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    landmarks = landmarks_with_eyes((290, 200), (360, 215))
    wide = aligned_crop(image, landmarks, margin=8)
    assert wide.shape == (CROP_SIDE + 16, CROP_SIDE + 16)
    inner = wide[8:-8, 8:-8].astype(int)
    assert np.abs(inner - aligned_crop(image, landmarks)).max() <= 2


def test_depth_counts_in_the_distance_of_the_eyes() -> None:
    """A face turned by 45 degrees is as large in the crop as one seen from the front."""
    frontal = landmarks_with_eyes((280, 200), (380, 200))
    turned = landmarks_with_eyes((295, 200), (295 + 100 * 0.5**0.5, 200), depth=100 * 0.5**0.5)
    for landmarks in (frontal, turned):
        left, right = eye_centres(landmarks, WIDTH, HEIGHT)
        assert np.linalg.norm(right - left) == pytest.approx(100, rel=1e-4)


def test_beyond_the_picture_its_edge_is_repeated() -> None:
    image = np.full((HEIGHT, WIDTH), 90, np.uint8)
    assert (aligned_crop(image, landmarks_with_eyes((2, 2), (60, 2))) == 90).all()


def test_outputs_do_not_depend_on_brightness_and_contrast() -> None:
    torch.manual_seed(0)
    network = ExpressionNet().eval()
    crops = torch.rand(3, CROP_SIDE, CROP_SIDE) * 200
    with torch.inference_mode():
        embedding, logits = network(crops)
        darker_embedding, darker_logits = network(0.4 * crops + 30)
    assert embedding.shape == (3, EMBEDDING_WIDTH)
    assert logits.shape == (3, len(EMOTIONS))
    torch.testing.assert_close(embedding, darker_embedding, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(logits, darker_logits, atol=1e-3, rtol=1e-3)


def test_weights_survive_saving(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = ExpressionNet().eval()
    network.save(tmp_path / "first.safetensors")
    loaded = ExpressionNet.load(tmp_path / "first.safetensors")
    crops = torch.rand(4, CROP_SIDE, CROP_SIDE)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(crops)[1], network(crops)[1], atol=5e-3, rtol=0)
    loaded.save(tmp_path / "second.safetensors")
    again = ExpressionNet.load(tmp_path / "second.safetensors")
    assert again.sha256() == loaded.sha256()
    assert again.sha256() != ExpressionNet().sha256()


@torch.inference_mode()
def test_a_face_and_its_mirror_image_are_perceived_alike() -> None:
    torch.manual_seed(0)
    network = ExpressionNet().eval()
    crops = torch.randint(0, 256, (3, CROP_SIDE, CROP_SIDE), dtype=torch.uint8)
    for seen, mirrored in zip(network.perceive(crops), network.perceive(crops.flip(2)), strict=True):
        torch.testing.assert_close(seen, mirrored, atol=1e-5, rtol=1e-4)
    embedding, logits = network(crops)
    other, _ = network(crops.flip(2))
    torch.testing.assert_close(network.perceive(crops)[0], (embedding + other) / 2, atol=1e-5, rtol=1e-4)
    assert network.perceive(crops)[1].shape == logits.shape


@pytest.mark.skipif(not available(), reason="torch has no oneDNN here")
@pytest.mark.parametrize("crops", [1, 2, 5])
@torch.inference_mode()
def test_fused_convolutions_see_the_same(crops: int) -> None:
    network = ExpressionNet.load(encoder_path(load("base").folder, Modality.VISION))
    faces = torch.randint(0, 256, (crops, CROP_SIDE, CROP_SIDE), dtype=torch.uint8)
    fused = network.fused()
    for plain, quick in zip(network.see(faces), network.see(faces, fused), strict=True):
        torch.testing.assert_close(quick, plain, atol=1e-5, rtol=1e-5)
    again = network.see(faces, fused)
    assert all(torch.equal(*both) for both in zip(again, network.see(faces, fused), strict=True))


@pytest.mark.skipif(not available(), reason="torch has no oneDNN here")
@torch.inference_mode()
def test_convolutions_are_fused_once_and_anew_when_the_network_has_learned() -> None:
    torch.manual_seed(0)
    network = ExpressionNet().eval()
    faces = torch.randint(0, 256, (1, CROP_SIDE, CROP_SIDE), dtype=torch.uint8)
    before = network.fused()
    assert network.eval().fused() is before
    network.train()
    for parameter in network.parameters():
        parameter.mul_(1.1)
    network.eval()
    fused = network.fused()
    torch.testing.assert_close(network.see(faces, fused).embedding, network.see(faces).embedding, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network.see(faces, before).embedding, network.see(faces).embedding, atol=1e-3)


def test_where_torch_has_no_such_convolutions_faces_are_seen_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert ExpressionNet().eval().fused() is None
