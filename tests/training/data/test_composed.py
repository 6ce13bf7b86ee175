"""Composed windows in a file: the same windows, read back as they were written, and rivals that train on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dhmd.contract import FeatureSpec
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import EMOTION
from training.config import PlateauOptimisation, SequenceConfig
from training.data import composed
from training.data.composed import read_composed, write_composed
from training.data.items import Example, Split
from training.errors import FeaturesInvalid, TooLittleData
from training.evaluation.predictions import PREDICTIONS, read_said
from training.learning.fit_sequences import fit_sequences, read_sequences


@pytest.fixture
def file(
    made: list[Example], specs: dict[Modality, FeatureSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(composed, "MEASURED_PER_CLASS", {Split.VALIDATION: 2, Split.TEST: 3})
    path = tmp_path / "data" / "composed.npz"
    write_composed(made, specs, 20, 1, path)
    return path


def test_windows_are_of_strangers_of_one_split_and_emotion(
    file: Path, made: list[Example], specs: dict[Modality, FeatureSpec]
) -> None:
    read = read_composed(file)
    assert {split: len(part) for split, part in read.splits.items()} == {
        Split.TRAIN: 20,
        Split.VALIDATION: 2 * len(EMOTIONS),
        Split.TEST: 3 * len(EMOTIONS),
    }
    assert read.widths == {m: spec.width for m, spec in specs.items()}
    for split, part in read.splits.items():
        own = {e.utterance.group: e for e in made if e.utterance.split is split and Modality.AUDIO in e.rows}
        assert part.head == EMOTION
        for speaker, emotion in zip(part.speakers, part.label, strict=True):
            assert own[speaker].utterance.emotion == EMOTIONS[emotion]
        assert all(part.masks[m].any(axis=1).all() and np.isfinite(part.inputs[m]).all() for m in Modality)
    test = read.splits[Split.TEST].label
    assert test is not None
    assert np.bincount(test).tolist() == [3] * len(EMOTIONS)


def test_the_same_seed_gives_the_same_file(
    file: Path, made: list[Example], specs: dict[Modality, FeatureSpec], tmp_path: Path
) -> None:
    again, other = tmp_path / "again.npz", tmp_path / "other.npz"
    write_composed(made, specs, 20, 1, again)
    write_composed(made, specs, 20, 2, other)
    assert read_composed(again).sha256 == read_composed(file).sha256 != read_composed(other).sha256


@pytest.mark.parametrize(
    ("model", "shown"), [("dhmd", list(Modality)), ("crossmodal", list(Modality)), ("linear", [Modality.AUDIO])]
)
def test_any_method_trains_on_them(file: Path, model: str, shown: list[Modality], tmp_path: Path) -> None:
    plan = PlateauOptimisation(batch=10, epochs=1, ema=0.5)
    config = SequenceConfig(name="composed", features="composed", model=model, modalities=shown, optimisation=plan)  # type: ignore[arg-type]
    results = fit_sequences(config, read_sequences(config, file), tmp_path / "run")
    assert results is not None
    assert 0 <= results["test"]["accuracy"] <= 1
    assert len(read_said(tmp_path / "run" / PREDICTIONS).of(Split.TEST).ids) == 3 * len(EMOTIONS)


def test_what_is_wrong_with_a_file_is_said(file: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(file))
    arrays["emotion"][0], arrays["split"][arrays["split"] == "test"] = "bored", "train"
    broken = tmp_path / "broken.npz"
    np.savez(broken, **arrays)
    with pytest.raises(FeaturesInvalid, match=r"emotion: expected one of .*, found 'bored'\n.*no window is of test"):
        read_composed(broken)


def test_a_modality_that_no_emotion_has_is_too_little(
    made: list[Example], specs: dict[Modality, FeatureSpec], tmp_path: Path
) -> None:
    silent = [e for e in made if e.utterance.split is not Split.TEST or Modality.AUDIO not in e.rows]
    with pytest.raises(TooLittleData, match="split test"):
        write_composed(silent, specs, 5, 1, tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()
