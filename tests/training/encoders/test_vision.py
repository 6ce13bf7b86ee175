"""Training of the expression network on a small corpus made of the portrait that comes with scikit-image."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.features.expression import CROP_SIDE, ExpressionNet
from dhmd.features.face import WIDTH, FaceExtractor
from dhmd.features.landmarks import BLENDSHAPES
from dhmd.labels import EMOTIONS
from training import expression
from training.expression import VARIANTS, Settings, augmented, feature_rows_of_images, jittered, train
from training.face_images import (
    DETECTION_CONFIDENCE,
    MARGIN,
    SPLITS,
    FaceImages,
    enlarged,
    face_images,
    labelled_images,
)

SIDE = CROP_SIDE + 2 * MARGIN
SMALL = Settings(epochs=2, batch=16, lr=1e-3)


def grey_faces(count: int) -> list[NDArray[np.uint8]]:
    """Tight (48, 48) faces, each shifted and lit a little differently, every second one mirrored."""
    import cv2
    from skimage import data

    portrait = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    rng = np.random.default_rng(0)
    faces = []
    for i in range(count):
        left, top, side = rng.integers(145, 165), rng.integers(45, 60), rng.integers(140, 160)
        face = cv2.resize(portrait[top : top + side, left : left + side], (48, 48), interpolation=cv2.INTER_AREA)
        face = np.clip(face * rng.uniform(0.6, 1.1), 0, 255)
        faces.append(np.ascontiguousarray(face[:, ::-1] if i % 2 else face).astype(np.uint8))
    return faces


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Both archives in small: 20 training images, 4 test images, 4 of CK+; one picture without a face."""
    import cv2

    def png(grey: NDArray[np.uint8]) -> bytes:
        return bytes(cv2.imencode(".png", grey)[1])

    faces = grey_faces(28)
    with zipfile.ZipFile(tmp_path / "fer2013.zip", "w") as archive:
        for i, face in enumerate(faces[:20]):
            archive.writestr(f"train/{EMOTIONS[i % 7]}/Training_{i}.jpg", png(face))
        archive.writestr("train/sad/Training_copy_of_a_test_image.jpg", png(faces[20]))
        archive.writestr("train/neutral/Training_nobody.jpg", png(np.full((48, 48), 77, np.uint8)))
        for i, face in enumerate(faces[20:24]):
            archive.writestr(f"test/{EMOTIONS[i]}/PrivateTest_{i}.jpg", png(face))
    with zipfile.ZipFile(tmp_path / "ck48.zip", "w") as archive:
        for name, face in zip(("anger", "sadness", "happy", "contempt"), faces[24:], strict=True):
            archive.writestr(f"{name}/{'S010' if name == 'anger' else 'S011'}_004_00000014.png", png(face))
    return tmp_path


@pytest.fixture
def network() -> ExpressionNet:
    torch.manual_seed(0)
    return ExpressionNet().eval()


def separable(count: int) -> FaceImages:
    """Crops whose class is written into them as a bright bar at a height of its own."""
    rng = np.random.default_rng(0)
    label = np.arange(count) % len(EMOTIONS)
    crops = rng.integers(60, 100, (count, SIDE, SIDE)).astype(np.uint8)
    for crop, emotion in zip(crops, label, strict=True):
        crop[10 + 6 * emotion : 15 + 6 * emotion, 12:-12] = 220
    split = np.where(np.arange(count) < count * 3 // 4, 0, 1)
    measures = np.zeros((count, WIDTH - 64), np.float32)
    return FaceImages(split, label, np.zeros(count, np.bool_), crops, np.ones(count, np.bool_), measures)


def test_splits_and_labels(corpora: Path) -> None:
    images = labelled_images(corpora)
    assert {EMOTIONS[image.label] for image in images if image.archive == "ck48.zip"} == {"angry", "sad", "happy"}
    sides = {(image.member.split("/")[1][:4], image.split) for image in images if image.archive == "ck48.zip"}
    assert sides == {("S010", "train"), ("S011", "validation")}
    assert [image.member.split("/")[0] for image in images if image.split == "test"] == ["test"] * 4
    assert not any("copy_of_a_test_image" in image.member for image in images)
    assert len(images) == 20 + 1 + 4 + 3


def test_no_image_of_the_real_corpora_stands_on_two_sides(shared: Path) -> None:
    images = labelled_images(shared / "corpora")
    sides = [{image.pixels_sha256 for image in images if image.split == split} for split in SPLITS]
    assert [len(side) > 2000 for side in sides] == [True, True, True]
    assert not sides[0] & sides[1]
    assert not sides[2] & (sides[0] | sides[1])
    ck = [(image.member.split("/")[1].split("_")[0], image.split) for image in images if image.archive == "ck48.zip"]
    held_out = {subject for subject, split in ck if split == "validation"}
    assert 10 <= len(held_out) <= 40
    assert not held_out & {subject for subject, split in ck if split == "train"}


def test_faces_are_seen_once_and_kept(corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = face_images(corpora, cache)
    assert len(first) == 28
    assert first.crops.shape == (28, SIDE, SIDE)
    assert first.found.sum() == 27
    nobody = np.flatnonzero(~first.found)
    assert (first.crops[nobody] == 77).all()
    assert not first.measures[nobody].any()
    monkeypatch.setattr("training.face_images.fetch", lambda name: pytest.fail("looked for faces again"))
    again = face_images(corpora, cache)
    np.testing.assert_array_equal(first.crops, again.crops)
    np.testing.assert_array_equal(first.measures, again.measures)


def test_rows_are_those_of_the_extractor(corpora: Path, tmp_path: Path, network: ExpressionNet) -> None:
    import cv2

    rows = feature_rows_of_images(corpora, network, tmp_path / "cache")
    assert rows.rows.shape == (27, len(VARIANTS), WIDTH)
    images = [image for image in labelled_images(corpora) if "nobody" not in image.member]
    assert rows.label.tolist() == [image.label for image in images]
    assert [SPLITS[split] for split in rows.split] == [image.split for image in images]
    with FaceExtractor(network, "image", DETECTION_CONFIDENCE) as extractor:
        for i in (0, 7, 26):
            with zipfile.ZipFile(corpora / images[i].archive) as archive:
                encoded = np.frombuffer(archive.read(images[i].member), np.uint8)
            grey = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
            (seen,) = extractor.push(enlarged(grey), 0.0).rows.values
            np.testing.assert_allclose(rows.rows[i, 0, :55], seen[:55], atol=1e-6)
            np.testing.assert_allclose(rows.rows[i, 0, 55:], seen[55:], atol=0.05)
            (mirrored,) = extractor.push(enlarged(np.ascontiguousarray(grey[:, ::-1])), 0.0).rows.values
            given = rows.rows[i, VARIANTS.index("mirrored")]
            np.testing.assert_allclose(given[52:55], mirrored[52:55], atol=0.12)
            assert np.abs(given[:52] - mirrored[:52]).mean() < 0.06
            smile = BLENDSHAPES.index("mouthSmileLeft")
            assert given[smile] == rows.rows[i, 0, smile + 1]


def test_jittered_rows_move_the_embedding_alone(corpora: Path, tmp_path: Path, network: ExpressionNet) -> None:
    rows = feature_rows_of_images(corpora, network, tmp_path / "cache").rows
    for variant in (2, 3):
        np.testing.assert_array_equal(rows[:, variant, :55], rows[:, 0, :55])
        assert (np.abs(rows[:, variant, 55:] - rows[:, 0, 55:]).max(axis=1) > 0).all()
    assert not np.array_equal(rows[:, 2], rows[:, 3])


def test_no_jitter_is_the_inner_crop() -> None:
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (5, SIDE, SIDE)).astype(np.float32))
    inner = crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    torch.testing.assert_close(jittered(crops, torch.Generator(), strength=0), inner, atol=0.05, rtol=0)


def test_augmentation_is_the_generators(corpora: Path) -> None:
    crops = torch.rand(32, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 255
    first, second, other = (augmented(crops, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (32, CROP_SIDE, CROP_SIDE)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_it_learns_what_the_crops_show(tmp_path: Path) -> None:
    images = separable(280)
    settings = Settings(epochs=4, batch=16, lr=3e-3, ema_decay=0.8)
    network = train(images, settings, tmp_path / "state.pt")
    measured = expression.accuracies(network, images[images.split == SPLITS.index("validation")])
    assert measured["accuracy"] > 0.8
    assert measured["class_mean"] > 0.8


def test_a_cut_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = separable(112)
    whole = train(images, SMALL, tmp_path / "whole.pt")
    measure, calls = expression.accuracies, []

    def cut_in_the_second_epoch(network: ExpressionNet, part: FaceImages) -> dict[str, float]:
        calls.append(len(part))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(network, part)

    with monkeypatch.context() as patch:
        patch.setattr(expression, "accuracies", cut_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(images, SMALL, tmp_path / "cut.pt")
    resumed = train(images, SMALL, tmp_path / "cut.pt")
    assert resumed.sha256() == whole.sha256()


def test_the_command_writes_weights_and_their_report(corpora: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    expression.add_arguments(parser)
    out = tmp_path / "made" / "expression.safetensors"
    words = ["--corpora", str(corpora), "--out", str(out), "--cache", str(tmp_path / "cache"), "--epochs", "1"]
    expression.run(parser.parse_args(words))
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["weights_sha256"] == ExpressionNet.load(out).sha256()
    assert report["images"]["test"]["images"] == 4
    assert sum(part["faces_found"] for part in report["images"].values()) == 27


def test_the_shipped_network_reads_unseen_faces(shared: Path) -> None:
    """On 30 images a class of FER2013's test folder, through the extractor: chance is 14 %."""
    import cv2

    weights = Path(__file__).resolve().parents[2] / "dhmd" / "pretrained" / "base" / "expression.safetensors"
    network = ExpressionNet.load(weights)
    images = [image for image in labelled_images(shared / "corpora") if image.split == "test"]
    chosen = [image for label in range(7) for image in [one for one in images if one.label == label][:30]]
    right = seen = 0
    archive = zipfile.ZipFile(shared / "corpora" / "fer2013.zip")
    with archive, FaceExtractor(network, "image", DETECTION_CONFIDENCE) as extractor:
        for image in chosen:
            encoded = np.frombuffer(archive.read(image.member), np.uint8)
            grey = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
            emotions = extractor.push(enlarged(grey), 0.0).emotions
            if emotions is not None:
                seen += 1
                right += int(emotions.argmax() == image.label)
    assert seen > 180
    assert right / seen > 0.5
