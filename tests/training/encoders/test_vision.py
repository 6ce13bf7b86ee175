"""Training of the expression network on a small corpus made of the portrait that comes with scikit-image."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dhmd.features.expression import CROP_SIDE, EYE_HEIGHT, ExpressionNet
from dhmd.features.face import WIDTH, FaceExtractor
from dhmd.features.landmarks import BLENDSHAPES
from dhmd.features.weights import digest
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.cli import main
from training.data.corpora import prepare
from training.data.items import Utterance
from training.data.manifest import SYNONYMS, read_manifests
from training.encoders import vision
from training.encoders.pictures import (
    BLURRED,
    OCCLUDED,
    POOR,
    SHARPENED,
    compressed,
    exposed,
    focused,
    occluded,
    photographed,
)
from training.encoders.vision import Pupil, Settings, augmented, train
from training.errors import RunDamaged
from training.features.extract import Extraction, extract, face_images
from training.features.face_images import (
    DETECTION_CONFIDENCE,
    MARGIN,
    MEASURES,
    SIDE,
    SPLITS,
    VARIANTS,
    FaceImages,
    enlarged,
    feature_rows,
    inner,
    jittered,
)
from training.features.store import FeatureStore

HERE = Extraction(jobs=1)
SMALL = Settings(epochs=3, batch=16, lr=1e-3, measured_every=2)


def grey_faces(count: int, *, mirrored: bool = False) -> list[NDArray[np.uint8]]:
    """Tight (48, 48) faces, each shifted and lit a little differently."""
    import cv2
    from skimage import data

    portrait = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    rng = np.random.default_rng(0)
    faces = []
    for _ in range(count):
        left, top, side = rng.integers(145, 165), rng.integers(45, 60), rng.integers(140, 160)
        face = cv2.resize(portrait[top : top + side, left : left + side], (48, 48), interpolation=cv2.INTER_AREA)
        face = np.clip(face * rng.uniform(0.6, 1.1), 0, 255)
        faces.append(np.ascontiguousarray(face[:, ::-1] if mirrored else face).astype(np.uint8))
    return faces


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Both archives in small: 20 training images, 4 test images, 4 of CK+; one picture without a face.

    The faces of the test images look the other way than those of training, whose twins they would be.
    """
    import cv2

    def png(grey: NDArray[np.uint8]) -> bytes:
        return bytes(cv2.imencode(".png", grey)[1])

    learned, tested = grey_faces(24), grey_faces(4, mirrored=True)
    columns = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,not_a_face,twin_in_blind_set"
    votes = [f"image,{columns}"]
    with zipfile.ZipFile(tmp_path / "fer2013.zip", "w") as archive:
        for i, face in enumerate(learned[:20]):
            name = f"train/{EMOTIONS[i % 7]}/Training_{i}.jpg"
            archive.writestr(name, png(face))
            votes.append(f"{name},6,4,0,0,0,0,0,0,0,0,0")
        archive.writestr("train/sad/Training_copy_of_a_test_image.jpg", png(tested[0]))
        archive.writestr("train/neutral/Training_nobody.jpg", png(np.full((48, 48), 77, np.uint8)))
        votes.append("train/neutral/Training_nobody.jpg,10,0,0,0,0,0,0,0,0,0,0")
        for i, face in enumerate(tested):
            archive.writestr(f"test/{EMOTIONS[i]}/PrivateTest_{i}.jpg", png(face))
    (tmp_path / "ferplus_votes.csv").write_text("\n".join(votes))
    with zipfile.ZipFile(tmp_path / "ck48.zip", "w") as archive:
        for name, face in zip(("anger", "sadness", "happy", "contempt"), learned[20:], strict=True):
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
    measures = np.zeros((count, MEASURES), np.float32)
    votes = np.zeros((count, len(EMOTIONS)), np.float32)
    return FaceImages(split, label, votes, np.full(count, "made"), crops, np.ones(count, np.bool_), measures)


@pytest.fixture
def utterances(corpora: Path, store: FeatureStore, tmp_path: Path) -> list[Utterance]:
    manifests = read_manifests(prepare(["fer2013", "ck48"], corpora, tmp_path / "data"), store.files)
    return [one for manifest in manifests for one in manifest.utterances]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(tmp_path / "cache" / "features.sqlite") as opened:
        yield opened


def test_faces_are_seen_once_and_kept(
    utterances: list[Utterance], store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = face_images(utterances, store, HERE)
    assert len(first) == 28
    assert first.crops.shape == (28, SIDE, SIDE)
    assert first.found.sum() == 27
    assert set(first.corpus) == {"fer2013", "ck48"}
    nobody = np.flatnonzero(~first.found)
    assert (first.crops[nobody] == 77).all()
    assert not first.measures[nobody].any()
    monkeypatch.setattr("training.features.pieces.see", lambda *_: pytest.fail("looked for faces again"))
    again = face_images(utterances, store, HERE)
    np.testing.assert_array_equal(first.crops, again.crops)
    np.testing.assert_array_equal(first.measures, again.measures)
    # Another network makes other rows of the same crops.
    examples, _ = extract(utterances, store, HERE)
    assert all(len(example.rows[Modality.VISION]) == len(VARIANTS) for example in examples)


def test_rows_are_those_of_the_extractor(
    utterances: list[Utterance], store: FeatureStore, network: ExpressionNet
) -> None:
    import cv2

    images = face_images(utterances, store, HERE)
    with FaceExtractor(network, "image", DETECTION_CONFIDENCE) as extractor:
        for i in (0, 7, 27):
            rows = feature_rows(images.crops[i], images.measures[i], network)
            assert rows.shape == (len(VARIANTS), WIDTH)
            grey = np.asarray(cv2.imread(str(utterances[i].image), cv2.IMREAD_GRAYSCALE), np.uint8)
            (seen,) = extractor.push(enlarged(grey), 0.0).rows.values
            np.testing.assert_allclose(rows[0, :55], seen[:55], atol=1e-6)
            np.testing.assert_allclose(rows[0, 55:], seen[55:], atol=0.05)
            (mirrored,) = extractor.push(enlarged(np.ascontiguousarray(grey[:, ::-1])), 0.0).rows.values
            given = rows[VARIANTS.index("mirrored")]
            np.testing.assert_allclose(given[52:55], mirrored[52:55], atol=0.12)
            assert np.abs(given[:52] - mirrored[:52]).mean() < 0.06
            smile = BLENDSHAPES.index("mouthSmileLeft")
            assert given[smile] == rows[0, smile + 1]


def test_jittered_rows_move_the_embedding_alone(
    utterances: list[Utterance], store: FeatureStore, network: ExpressionNet
) -> None:
    images = face_images(utterances[:3], store, HERE)
    for i in range(3):
        rows = feature_rows(images.crops[i], images.measures[i], network)
        np.testing.assert_array_equal(rows, feature_rows(images.crops[i], images.measures[i], network))
        for variant in (2, 3):
            np.testing.assert_array_equal(rows[variant, :55], rows[0, :55])
            assert np.abs(rows[variant, 55:] - rows[0, 55:]).max() > 0
        assert not np.array_equal(rows[2], rows[3])


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


def test_a_poor_picture_is_a_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = (torch.rand(400, 1, 1, generator=generator) * 200).expand(-1, SIDE, SIDE) + torch.linspace(0, 50, SIDE)
    poor = photographed(crops, generator)
    assert 0 <= poor.min() < poor.max() <= 255
    changed = (poor != crops).flatten(1).any(dim=1).float().mean()
    assert changed == pytest.approx(POOR, abs=0.08)
    torch.testing.assert_close(photographed(crops[:0], generator), crops[:0])


def test_what_covers_a_face_leaves_the_eyes() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = torch.full((600, SIDE, SIDE), 256.0)  # no patch has this level
    covered = occluded(crops, generator) < 256
    assert covered.flatten(1).any(dim=1).float().mean() == pytest.approx(OCCLUDED, abs=0.05)
    eyes = slice(MARGIN + round(CROP_SIDE * EYE_HEIGHT) - 3, MARGIN + round(CROP_SIDE * EYE_HEIGHT) + 3)
    assert covered[:, eyes].float().mean() < 0.05 * covered[:, -16:-8].float().mean()


def test_too_much_light_cuts_levels_off() -> None:
    crops = torch.full((400, SIDE, SIDE), 200.0)
    lit = exposed(crops, torch.Generator().manual_seed(0))
    assert lit.max() == 255
    assert lit.min() < 80
    assert (lit == 200).flatten(1).all(dim=1).float().mean() > 0.1


def test_a_lens_changes_edges_and_leaves_surfaces() -> None:
    crops = torch.zeros(200, SIDE, SIDE)
    crops[:, :, SIDE // 2 :] = 100
    seen = focused(crops, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[:, :, : SIDE // 2 - 3], crops[:, :, : SIDE // 2 - 3])
    edge = seen[:, SIDE // 2, SIDE // 2]
    assert (edge < 99).float().mean() == pytest.approx(BLURRED, abs=0.1)
    assert (edge > 100.5).float().mean() == pytest.approx(SHARPENED, abs=0.1)


def test_compression_keeps_the_mean_of_a_block() -> None:
    generator = torch.Generator().manual_seed(0)
    crops = torch.rand(50, SIDE, SIDE, generator=generator) * 100 + 70
    packed = compressed(crops, generator)
    changed = (packed != crops).flatten(1).any(dim=1)
    assert 0 < changed.sum() < 50
    means = [F.avg_pool2d(some[changed][:, None], 8) for some in (packed, crops)]
    torch.testing.assert_close(*means, atol=2.1, rtol=0)  # half of the coarsest step, 16, over the 8 of a block's side
    assert (packed - crops).abs().mean() > 1


def test_it_learns_what_the_crops_show(tmp_path: Path) -> None:
    images = separable(168)
    settings = Settings(epochs=4, batch=16, lr=3e-3, ema_decay=0.8, small_share=0.25)
    pupil, _ = train(images, settings, tmp_path / "state.pt")
    measured = vision.accuracies(pupil, images[images.split == SPLITS.index("validation")])
    assert measured["accuracy"] == measured["label"] > 0.8
    assert measured["class_mean"] > 0.8


def test_votes_outweigh_the_label(tmp_path: Path) -> None:
    """People say of every face what stands next in the list; the second head still learns the label."""
    images = separable(168)
    images = replace(images, votes=np.eye(len(EMOTIONS), dtype=np.float32)[(images.label + 1) % len(EMOTIONS)])
    settings = Settings(epochs=4, batch=16, lr=3e-3, ema_decay=0.8, small_share=0.0)
    pupil, _ = train(images, settings, tmp_path / "state.pt")
    measured = vision.accuracies(pupil, images[images.split == SPLITS.index("validation")])
    assert measured["accuracy"] > 0.8
    assert measured["label"] < 0.2
    assert measured["label_head"] > 0.6


def test_only_faces_with_votes_are_judged_where_there_are_any(network: ExpressionNet) -> None:
    images, pupil = separable(14), vision.Pupil()
    said = vision.logits_of(pupil, inner(images.crops))[0].argmax(dim=1).numpy()
    votes = np.zeros((14, len(EMOTIONS)), np.float32)
    votes[np.arange(3), said[:3]] = 0.6
    votes[np.arange(3), (said[:3] + 1) % len(EMOTIONS)] = 0.4
    assert vision.accuracies(pupil, replace(images, votes=votes))["accuracy"] == 1
    np.testing.assert_array_equal(vision.targets(replace(images, votes=votes), 0.1)[:3], votes[:3])
    np.testing.assert_allclose(vision.targets(images, 0.7).max(axis=1), 0.4, rtol=1e-6)


def test_the_adjustment_costs_little(tmp_path: Path) -> None:
    images, pupil = separable(140), vision.Pupil()
    logits = vision.logits_of(pupil, inner(images.crops))[0]
    images = replace(images, label=logits.argmax(dim=1).numpy())  # all right, unless something is taken off
    even, uneven = np.full(7, 1 / 7, np.float32), np.array([0.94, *[0.01] * 6], np.float32)
    assert vision.adjusted(pupil, images, even, 0.0) == max(vision.SHARES)
    common = np.roll(uneven, int(images.label[0]))
    assert vision.adjusted(pupil, images, common, 0.0) < max(vision.SHARES)
    assert vision.adjusted(pupil, images, common, 1.0) == max(vision.SHARES)


def test_rare_classes_are_made_up_for(network: ExpressionNet) -> None:
    crops = torch.rand(2, CROP_SIDE, CROP_SIDE) * 255
    with torch.inference_mode():
        before = network(crops)[1]
    vision.adjust(network, np.array([0.8, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02], np.float32), 0.5)
    with torch.inference_mode():
        shift = (network(crops)[1] - before)[0]
    assert shift[2] - shift[0] == pytest.approx(0.5 * np.log(40), abs=1e-4)
    assert shift.sum() == pytest.approx(0, abs=1e-4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pupil, list[dict[str, Any]]]:
    """A run that nothing cut."""
    return train(separable(56), SMALL, tmp_path_factory.mktemp("whole") / "state.pt")


def test_the_last_epoch_is_always_measured(whole: tuple[Pupil, list[dict[str, Any]]]) -> None:
    _, log = whole
    assert [entry["epoch"] for entry in log] == [1, 2, 3]
    assert [entry["epoch"] for entry in log if "validation" in entry] == [1, 3]


def test_a_cut_run_goes_on_to_the_same_weights(
    whole: tuple[Pupil, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, measure, calls = separable(56), vision.accuracies, []

    def cut_in_the_third_epoch(pupil: Pupil, part: FaceImages) -> dict[str, float]:
        calls.append(len(part))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(pupil, part)

    with monkeypatch.context() as patch:
        patch.setattr(vision, "accuracies", cut_in_the_third_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(images, SMALL, tmp_path / "cut.pt")
    resumed, log = train(images, SMALL, tmp_path / "cut.pt")
    assert log == whole[1]
    assert digest(resumed.state_dict()) == digest(whole[0].state_dict())


def test_the_weights_that_did_best_when_measured_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the cut comes after they were measured."""
    found: list[dict[str, Tensor]] = []

    def worse_each_time(pupil: Pupil, part: FaceImages) -> dict[str, float]:
        found.append(deepcopy(pupil.state_dict()))
        if len(found) == 2:
            raise KeyboardInterrupt
        return {"accuracy": 1 / len(found)}

    monkeypatch.setattr(vision, "accuracies", worse_each_time)
    monkeypatch.setattr(vision, "adjust", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        train(separable(56), SMALL, tmp_path / "state.pt")
    pupil, log = train(separable(56), SMALL, tmp_path / "state.pt")
    assert [entry.get("validation") for entry in log] == [{"accuracy": 1.0}, None, {"accuracy": 1 / 3}]
    torch.testing.assert_close(pupil.state_dict(), found[0], rtol=0, atol=0)


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"network": {}, "log": []}, tmp_path / "state.pt")
    with pytest.raises(RunDamaged, match=r"state\.pt is damaged, or another version wrote it"):
        train(separable(56), SMALL, tmp_path / "state.pt")


def test_the_command_writes_weights_and_their_report(
    utterances: list[Utterance], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    words = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--jobs", "1", "--epochs", "1"]
    assert main(["encoder", "vision", "--out", str(out), *words]) == 0
    report = json.loads((out / "vision.json").read_text())
    assert ExpressionNet.load(out / "vision.safetensors").sha256()
    assert report["data"]["utterances"]["fer2013"]["test"] == 4
    assert [entry["epoch"] for entry in report["log"]] == [1]
    assert 0 <= report["test"]["fer2013"]["accuracy"] <= 1

    (state,) = (tmp_path / "cache" / "encoders").iterdir()
    state.write_bytes(state.read_bytes()[:100])
    assert main(["encoder", "vision", "--out", str(out), *words]) == 1
    said = capsys.readouterr().err
    assert f"{state} is damaged, or another version wrote it: delete it, and the same command starts over" in said
    assert "--resume" not in said

    assert main(["encoder", "vision", "--out", str(out), *words, "--seed", "2"]) == 0
    other = json.loads((out / "vision.json").read_text())
    assert other["settings"]["seed"] == 2
    assert other["log"][0]["loss"] != report["log"][0]["loss"]  # and was not what lay there of the first run


def test_the_command_names_what_it_cannot_learn_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.csv").write_text("id,emotion,text\n1,sad,no image\n")
    words = ["--manifest", str(tmp_path / "my.csv"), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "x")]
    assert main(["encoder", "vision", *words]) == 1
    assert "no labelled image with a face is in the split train" in capsys.readouterr().err


def test_the_shipped_network_reads_unseen_faces(shared: Path) -> None:
    """On 30 test images of each emotion that most of FER+'s taggers named, through the extractor: chance is 14 %."""
    import cv2

    weights = Path(__file__).resolve().parents[3] / "dhmd" / "pretrained" / "base" / "vision.safetensors"
    network = ExpressionNet.load(weights)
    right = seen = 0
    tested: dict[str, list[str]] = {emotion: [] for emotion in EMOTIONS}
    with (shared / "corpora" / "ferplus_votes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for named, emotion in SYNONYMS.items():
                if row["image"].startswith("test/") and int(row.get(named, 0)) > 5:
                    tested[emotion].append(row["image"])
    archive = zipfile.ZipFile(shared / "corpora" / "fer2013.zip")
    with archive, FaceExtractor(network, "image", DETECTION_CONFIDENCE) as extractor:
        for label, emotion in enumerate(EMOTIONS):
            for name in tested[emotion][:30]:
                grey = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_GRAYSCALE)
                emotions = extractor.push(enlarged(np.asarray(grey, np.uint8)), 0.0).emotions
                if emotions is not None:
                    seen += 1
                    right += int(emotions.argmax() == label)
    assert seen > 150
    assert right / seen > 0.6
