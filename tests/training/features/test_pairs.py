"""Pairs of face and voice: who is in which fold, what a baseline takes away, and that a run on them learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.cli import main
from training.cli.commands import PAIRS
from training.data.items import Split
from training.data.pairs import FOLDS, read_pairs
from training.errors import CorpusMissing, FeaturesInvalid
from training.evaluation.predictions import PREDICTIONS, read_said
from training.features.ravdess_pairs import FILE, prepare_pairs

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def made(speakers: int = 20, clips: int = 14) -> dict[str, Any]:
    """The face tells the odd classes, the voice the even ones; everyone has a resting face and voice of his own."""
    draw = np.random.default_rng(0)
    who = np.repeat(np.arange(speakers), clips)
    label = np.tile(np.arange(clips) % 7, speakers)
    code = np.eye(7)[label]
    rest = {"vision": draw.standard_normal((speakers, 9)), "audio": draw.standard_normal((speakers, 16))}
    rows = {
        "vision": np.pad(code * (label % 2 == 1)[:, None], ((0, 0), (0, 2))) * 3,
        "audio": np.pad(code * (label % 2 == 0)[:, None], ((0, 0), (0, 9))) * 3,
    }
    rows = {m: x + rest[m][who] + draw.standard_normal(x.shape) * 0.3 for m, x in rows.items()}
    return {
        "id": np.array([f"{i:04}" for i in range(len(who))]),
        "speaker": np.array([f"{one + 1:02}" for one in who]),
        "emotion": np.array(EMOTIONS)[label],
        "vision": rows["vision"][:, None].astype(np.float32),
        "audio": np.repeat(rows["audio"][:, None], 3, axis=1).astype(np.float32),
    }


def written(folder: Path, arrays: dict[str, Any]) -> Path:
    path = folder / "pairs.npz"
    np.savez(path, **arrays)
    return path


def test_folds_test_every_speaker_once_and_the_fifth_is_the_fixed_split(tmp_path: Path) -> None:
    path = written(tmp_path, made())
    tested: list[str] = []
    for fold in range(1, FOLDS + 1):
        splits = read_pairs(path, fold, ()).splits
        speakers = {split: set(part.speakers) for split, part in splits.items()}
        assert [len(speakers[split]) for split in Split] == [14, 2, 4]
        assert len(set.union(*speakers.values())) == 20
        tested += sorted(speakers[Split.TEST])
    assert tested == [f"{one:02}" for one in range(1, 21)]
    assert speakers[Split.TEST] == {"17", "18", "19", "20"}
    assert speakers[Split.VALIDATION] == {"15", "16"}


def test_rows_are_standardised_on_training_and_a_baseline_is_ones_own_mean(tmp_path: Path) -> None:
    path = written(tmp_path, made())
    plain, rested = read_pairs(path, 5, ()), read_pairs(path, 5, [Modality.VISION])
    train = plain.splits[Split.TRAIN]
    for m in (Modality.VISION, Modality.AUDIO):
        assert train.masks[m].all()
        assert train.inputs[m].mean(axis=0) == pytest.approx(0, abs=0.05)  # but for what is clipped
        assert train.inputs[m].std(axis=0) == pytest.approx(1, abs=0.05)
    assert not train.masks[Modality.TEXT].any()
    test = rested.splits[Split.TEST]
    for name in set(test.speakers):
        own = np.array(test.speakers) == name
        assert abs(test.inputs[Modality.VISION][own].mean(axis=0)).max() < 0.1
    np.testing.assert_array_equal(test.inputs[Modality.AUDIO], plain.splits[Split.TEST].inputs[Modality.AUDIO])


@pytest.mark.parametrize(("model", "epochs"), [("dhmd", 5), ("concatenation", 25), ("crossmodal", 8), ("linear", 25)])
def test_a_run_learns_from_both_and_keeps_what_it_says(model: str, epochs: int, tmp_path: Path) -> None:
    config = yaml.safe_load((CONFIGS / "ravdess-pairs.yaml").read_text()) | {
        "model": model,
        "baseline": ["vision", "audio"],
    }
    config["network"] |= {"d": 16, "atoms": 8}
    config["optimisation"] |= {"epochs": epochs, "batch": 28}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    data = written(tmp_path, made())
    assert main(["fit", str(tmp_path / "x.yaml"), "--features", str(data), "--run", str(run)]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["accuracy"] > 0.75  # a face alone tells three of seven classes, a voice four
    said = read_said(run / PREDICTIONS).of(Split.TEST)
    assert set(said.speakers) == {"17", "18", "19", "20"}
    assert (said.said.argmax(axis=1) == said.label).mean() == pytest.approx(results["test"]["accuracy"])


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda arrays: arrays.pop(key)


def put(key: str, value: Callable[[Any], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda arrays: arrays.__setitem__(key, value(arrays[key]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("audio"), "audio: expected an array, found nothing"),
        (put("vision", lambda x: x[:, 0]), r"vision: expected numbers \(280, steps, width\), found float32"),
        (put("audio", lambda x: x * np.nan), "audio: expected finite numbers, found NaN or infinity in 0000"),
        (put("emotion", lambda e: np.full_like(e, "sadness")), "emotion: expected one of neutral, happy"),
        (put("speaker", lambda s: np.full_like(s, "01")), "speaker: expected at least 10 speakers, found 1"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path) -> None:
    arrays = made()
    change(arrays)
    with pytest.raises(FeaturesInvalid, match=told):
        read_pairs(written(tmp_path, arrays), 5, ())


def test_face_and_voice_of_a_take_stand_side_by_side(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an encoder says of a voice takes minutes for all; here it says where the clip lies.
    told: list[str] = []

    def voices(_: Path, sounds: list[Path], encoder: object) -> NDArray[Any]:
        told.extend(sound.stem for sound in sounds)
        return np.array([np.full((3, 768), int(sound.stem.replace("-", "")) % 9973) for sound in sounds], np.float32)

    monkeypatch.setattr("training.features.ravdess_pairs._voices", voices)
    path = prepare_pairs(shared / "corpora", tmp_path)
    assert path == tmp_path / FILE
    with np.load(path) as file:
        arrays = {key: file[key] for key in file}
    assert len(set(told)) == len(arrays["id"]) == 1200
    assert arrays["vision"].shape == (1200, 1, 35)
    assert json.loads(str(arrays["specs"]))["vision"]["width"] == 35
    for i in range(0, 1200, 101):
        name = str(arrays["id"][i])
        assert arrays["audio"][i, 0, 0] == int(name.replace("-", "")) % 9973
        assert arrays["speaker"][i] == name.rsplit("-", maxsplit=1)[-1]
    first = path.stat().st_mtime_ns
    assert prepare_pairs(shared / "corpora", tmp_path) == path
    assert path.stat().st_mtime_ns == first
    assert sorted(map(len, (part.ids for part in read_pairs(path, 5, ()).splits.values()))) == [120, 240, 840]


def test_a_corpus_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusMissing, match="ravdess_openface_aus"):
        prepare_pairs(tmp_path, tmp_path / "data")
    assert main(["prepare", PAIRS, "--corpora", str(tmp_path), "--out", str(tmp_path / "data")]) == 1
