"""Published feature files: what they hold is read with its masks, what is wrong is named by key and sample."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhmd.modality import Modality
from dhmd.model import SENTIMENT, Head
from training.data.items import Split
from training.data.published import read_published
from training.errors import FeaturesInvalid, PickleRefused

Content = dict[str, dict[str, Any]]
Made = Callable[..., Content]
BINARY = Head("label", "classification", 2, ("serious", "humorous"))
PADDED = (Modality.VISION, Modality.AUDIO)


def written(folder: Path, content: object) -> Path:
    path = folder / "features.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def sentiment(limit: float) -> Head:
    return replace(SENTIMENT, low=-limit, high=limit)


def complaints(folder: Path, content: object, limit: float = 3) -> list[str]:
    path = written(folder, content)
    with pytest.raises(FeaturesInvalid) as raised:
        read_published(path, sentiment(limit))
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


@pytest.mark.parametrize("kind", ["aligned", "unaligned", "sims"])
def test_features_labels_and_masks_are_those_of_the_file(kind: str, published: Made, tmp_path: Path) -> None:
    content = published(kind, 12)
    path = written(tmp_path, content)
    read = read_published(path, sentiment(1 if kind == "sims" else 3))
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.widths == {Modality.TEXT: 768, Modality.VISION: 20, Modality.AUDIO: 5}
    for split, name in ((Split.TRAIN, "train"), (Split.VALIDATION, "valid"), (Split.TEST, "test")):
        utterances, part = read.splits[split], content[name]
        assert list(utterances.ids) == part["id"]
        np.testing.assert_array_equal(utterances.label, part["regression_labels"])
        for m in Modality:
            np.testing.assert_array_equal(utterances.inputs[m], part[m])
            np.testing.assert_array_equal(utterances.masks[m], (part[m] != 0).any(axis=2))


@pytest.mark.parametrize("kind", ["aligned", "unaligned"])
def test_files_padded_on_the_left_keep_their_rows(kind: str, published: Made, tmp_path: Path) -> None:
    content = published(kind, 12)
    for part in content.values():
        for m in PADDED:
            part[m] = np.ascontiguousarray(part[m][:, ::-1])
    utterances = read_published(written(tmp_path, content), sentiment(3)).splits[Split.TRAIN]
    for m in PADDED:
        np.testing.assert_array_equal(utterances.masks[m], (content["train"][m] != 0).any(axis=2))


def test_zero_rows_within_the_length_are_rows(published: Made, tmp_path: Path) -> None:
    content = published("unaligned", 12)
    content["train"]["audio"][3] = 0
    content["train"]["audio_lengths"][3] = 9
    mask = read_published(written(tmp_path, content), sentiment(3)).splits[Split.TRAIN].masks[Modality.AUDIO]
    assert mask[3].nonzero()[0].tolist() == list(range(9))


def test_labels_and_lengths_may_be_lists_of_numpy_numbers(published: Made, tmp_path: Path) -> None:
    content = published("unaligned", 12)
    for part in content.values():
        part["regression_labels"] = list(part["regression_labels"])
        part["audio_lengths"] = np.array(part["audio_lengths"])
        part["id"] = np.array(part["id"], object)
    read = read_published(written(tmp_path, content), sentiment(3))
    assert read.splits[Split.TEST].ids == tuple(f"test{i}$_${i}" for i in range(6))


def broken(key: str, value: Callable[[Any], Any]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["valid"][key] = value(content["valid"][key])

    return change


def put(key: str, at: tuple[int, ...], value: float) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["valid"][key][at] = value

    return change


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("aligned", lambda c: c.pop("valid"), "valid: expected a dict, found nothing"),
        ("aligned", lambda c: c["valid"].pop("audio"), "valid: audio: expected numbers (6, any, any), found nothing"),
        ("aligned", lambda c: c["valid"].pop("id"), "valid: id: expected names of the samples, found nothing"),
        (
            "aligned",
            broken("id", lambda ids: [None] * len(ids)),
            "valid: id: expected names of the samples, found list of 6",
        ),
        (
            "aligned",
            broken("vision", lambda x: x[:5]),
            "valid: vision: expected numbers (6, any, any), found float32 (5, 50, 20)",
        ),
        (
            "aligned",
            broken("text", lambda x: x[:, 0]),
            "valid: text: expected numbers (6, any, any), found float32 (6, 768)",
        ),
        (
            "aligned",
            broken("text_bert", lambda x: x[:, :2]),
            "valid: text_bert: expected numbers (6, 3, 50), found float32 (6, 2, 50)",
        ),
        (
            "aligned",
            broken("audio", lambda x: np.repeat(x, 2, axis=2)),
            "audio: expected one width, found 5 in train, 10 in valid, 5 in test",
        ),
        (
            "aligned",
            broken("regression_labels", lambda y: ["good"] * len(y)),
            "valid: regression_labels: expected numbers (6), found list of 6",
        ),
        (
            "aligned",
            put("text", (2, 0, 5), np.nan),
            "valid: text: expected finite numbers, found NaN or infinity in valid2$_$2",
        ),
        (
            "aligned",
            put("regression_labels", (1,), np.nan),
            "valid: regression_labels: expected finite numbers, found NaN or infinity in valid1$_$1",
        ),
        (
            "aligned",
            put("regression_labels", (1,), 3.5),
            "valid: regression_labels: expected numbers from -3 to 3, found 3.5 in sample valid1$_$1",
        ),
        (
            "aligned",
            put("text_bert", (0, 1, 0), 4),
            "valid: text_bert: expected an attention mask of 0 and 1 in its second row, found other numbers",
        ),
        (
            "unaligned",
            lambda c: c["valid"].pop("vision_lengths"),
            "valid: vision_lengths: expected numbers (6), found nothing",
        ),
        (
            "unaligned",
            lambda c: c["valid"]["vision_lengths"].__setitem__(2, 61),
            "valid: vision_lengths: expected numbers from 0 to 60, found 61 in sample valid2$_$2",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    kind: str, change: Callable[[Content], Any], told: str, published: Made, tmp_path: Path
) -> None:
    content = published(kind, 12)
    change(content)
    assert complaints(tmp_path, content) == [told]


def test_rows_beyond_the_length_are_named_by_their_sample(published: Made, tmp_path: Path) -> None:
    content = published("unaligned", 12)
    content["test"]["audio"][2] = 1
    content["test"]["audio_lengths"][2] = 8
    told = "expected zeros beyond the length, found 70 steps that are not zero for a length of 8 in sample test2$_$2"
    assert complaints(tmp_path, content) == [
        f"test: audio_lengths: {told}",
    ]


def test_everything_wrong_is_told_at_once(published: Made, tmp_path: Path) -> None:
    content = published("unaligned", 20)
    del content["train"]["text"]
    content["train"]["regression_labels"][:] = np.inf
    told = "expected finite numbers, found NaN or infinity in train0$_$0, train1$_$1, train2$_$2 and 17 more"
    content["test"]["vision"] = [*content["test"]["vision"].tolist(), [1]]
    assert complaints(tmp_path, content) == [
        "train: text: expected numbers (20, any, any), found nothing",
        f"train: regression_labels: {told}",
        "test: vision: expected numbers (10, any, any), found list of 11",
    ]
    assert complaints(tmp_path, [1, 2]) == [
        f"{name}: expected a dict, found nothing" for name in ("train", "valid", "test")
    ]


def test_labels_in_3_are_no_labels_in_1(published: Made, tmp_path: Path) -> None:
    assert "expected numbers from -1 to 1" in complaints(tmp_path, published("aligned", 12), limit=1)[0]


def test_a_pickle_that_would_run_a_command_is_refused(published: Made, tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    content = published("aligned", 12)
    content["test"]["annotations"][0] = Command()
    with pytest.raises(PickleRefused, match=r"it holds posix\.system"):
        read_published(written(tmp_path, content), sentiment(3))
    assert not (tmp_path / "executed").exists()


def test_what_is_infinite_in_sound_and_pictures_counts_as_zero_and_is_counted(published: Made, tmp_path: Path) -> None:
    content = published("aligned", 12)
    content["train"]["audio"][2, :3, 1] = -np.inf
    content["test"]["audio"][4, 0] = np.nan
    path = written(tmp_path, content)
    read = read_published(path, sentiment(3))
    assert read.notes == (f"{path}: numbers of audio that are NaN or infinite count as 0: 8, utterances: 2",)
    audio = read.splits[Split.TRAIN].inputs[Modality.AUDIO]
    assert np.isfinite(audio).all()
    assert (audio[2, :3, 1] == 0).all()
    assert not read_published(written(tmp_path, published("aligned", 12)), sentiment(3)).notes


def test_numbers_may_be_of_any_type_and_arrays_of_objects(published: Made, tmp_path: Path) -> None:
    """As float64, as object arrays of one array a sample, as lists; without what is not read, in any order."""
    content = published("unaligned", 12)
    expected = read_published(written(tmp_path, content), sentiment(3))
    for part in content.values():
        part["text"] = part["text"].astype(np.float64)
        ragged = np.empty(len(part["id"]), object)
        for i, (rows, length) in enumerate(zip(part["audio"], part["audio_lengths"], strict=True)):
            ragged[i] = rows[:length]
        part["audio"] = ragged
        part["vision"] = part["vision"].astype(object)
        part["regression_labels"] = part["regression_labels"].astype(object)
        del part["annotations"], part["raw_text"]
        part["classification_labels"] = np.zeros(len(part["id"]))
    content = {name: dict(reversed(part.items())) for name, part in reversed(content.items())}
    read = read_published(written(tmp_path, content), sentiment(3))
    for split in Split:
        one, other = read.splits[split], expected.splits[split]
        assert one.ids == other.ids
        for m in Modality:
            length = one.inputs[m].shape[1]
            np.testing.assert_allclose(one.inputs[m], other.inputs[m][:, :length], rtol=1e-6)
            np.testing.assert_array_equal(one.masks[m], other.masks[m][:, :length])


def multibench(content: Content) -> Content:
    """The layout of UR-FUNNY and MUStARD in public loaders: padded on the left, `labels` of -1 and 1 as (N, 1), ids of
    several parts, nothing on where the words stand."""
    return {
        name: {
            "vision": part["vision"][:, ::-1],
            "audio": part["audio"][:, ::-1],
            "text": part["text"][:, ::-1].astype(np.float64),
            "labels": np.where(part["regression_labels"] > 0, 1, -1)[:, None],
            "id": np.array([[f"{i}", "0.0", "4.5"] for i in range(len(part["id"]))], object),
        }
        for name, part in content.items()
    }


def test_two_classes_are_read_in_the_layout_of_public_loaders(published: Made, tmp_path: Path) -> None:
    content = published("aligned", 12)
    test = read_published(written(tmp_path, multibench(content)), BINARY).splits[Split.TEST]
    assert test.ids[1] == "1$_$0.0_4.5"
    assert test.label.tolist() == [int(y > 0) for y in content["test"]["regression_labels"]]
    for m in Modality:
        np.testing.assert_array_equal(test.masks[m], (content["test"][m][:, ::-1] != 0).any(axis=2))


def test_turns_before_an_utterance_come_before_it(published: Made, tmp_path: Path) -> None:
    content = published("aligned", 12)
    for part in content.values():
        for m in Modality:
            before = np.zeros((len(part["id"]), 2, *part[m].shape[1:]), np.float32)
            before[:, 1, :4] = 1
            part[f"context_{m}"] = before
    read = read_published(written(tmp_path, content), sentiment(3)).splits[Split.TRAIN]
    for m in Modality:
        assert read.inputs[m].shape[1] == 150
        assert read.masks[m][:, 50:54].all()
        assert read.masks[m][:, :100].sum() == 4 * len(read)
        np.testing.assert_array_equal(read.inputs[m][:, 100:], content["train"][m])


def test_other_classes_than_were_declared_are_named(published: Made, tmp_path: Path) -> None:
    content = published("aligned", 12)
    for part in content.values():
        part["classification_labels"] = np.zeros(len(part["id"]))
    content["valid"]["classification_labels"][3] = 2
    with pytest.raises(
        FeaturesInvalid, match=r"valid: classification_labels: expected one of 0, 1, found 2 in sample "
    ):
        read_published(written(tmp_path, content), BINARY)
