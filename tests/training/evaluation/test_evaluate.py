"""Measures of a checkpoint on utterances with any modalities and labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dhmd.checkpoint import Calibration, Checkpoint, load, save
from dhmd.contract import FeatureSpec
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import DHMD, DHMDConfig, ModalityConfig
from training.cli import main
from training.data.items import Example, Split, Utterance
from training.evaluation.evaluate import evaluate, measure, reasons
from training.evaluation.predict import product, softmax
from training.features.extractors import copy_learned
from training.inputs import Inputs


@pytest.fixture(scope="module")
def checkpoint(
    specs: Mapping[Modality, FeatureSpec], untrained_encoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """An untrained one, of which some sets of modalities are calibrated."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    copy_learned(untrained_encoders, folder)
    modalities = {m: ModalityConfig(spec.width) for m, spec in specs.items()}
    model = DHMD(DHMDConfig(modalities=modalities, d=8, attention_heads=2, layers=1, atoms=12))
    save(
        folder,
        name="made",
        model=model,
        features=specs,
        calibration=Calibration({"text": 2.0}, {"text": 1.0}),
        training={},
        card="",
    )
    return load(folder)


def of(made: Sequence[Example], modality: Modality, emotion: str) -> Example:
    return next(
        e for e in made if modality in e.rows and (e.utterance.emotion, e.utterance.split) == (emotion, Split.TEST)
    )


@pytest.fixture
def mixed(made: list[Example]) -> list[Example]:
    """As a manifest may mix them: 7 of all three modalities, 7 with words and voice, 7 with words and sentiment, 2 in
    which nothing was perceived."""
    result = []
    for i, emotion in enumerate(EMOTIONS):
        parts = {m: of(made, m, emotion).rows[m] for m in Modality}
        still = Utterance(f"row/{i}", "row", Split.TEST, "g", emotion, image=Path("a.png"), audio=Path("a.wav"))
        result.append(Example(still, parts))
        heard = replace(still, id=f"row/heard{i}", image=None)
        result.append(Example(heard, {m: parts[m] for m in (Modality.TEXT, Modality.AUDIO)}))
        felt = Utterance(f"row/felt{i}", "row", Split.TEST, "g", sentiment=i - 3.0, text="x")
        result.append(Example(felt, {Modality.TEXT: parts[Modality.TEXT]}))
    return [*result, *(Example(Utterance(f"row/no{i}", "row", Split.TEST, "g", "sad"), {}) for i in range(2))]


def test_each_measure_is_over_the_utterances_that_have_its_label(checkpoint: Checkpoint, mixed: list[Example]) -> None:
    measured = measure(checkpoint, mixed)
    assert measured["n"] == 23
    assert measured["coverage"] == pytest.approx(21 / 23)
    assert measured["modalities"] == "text+vision+audio"
    assert np.sum(measured["emotion"]["confusion"]) == 14
    assert {"accuracy", "unweighted_recall", "weighted_f1", "ece", "confusion"} <= set(measured["emotion"])
    assert {"mae", "corr", "acc7", "acc5", "acc2_non0", "f1_non0", "acc2_has0", "f1_has0"} <= set(measured["sentiment"])
    counts = {name: entry["n"] for name, entry in measured["by_modalities"].items()}
    assert counts == {
        "text": 21,
        "vision": 7,
        "audio": 14,
        "text+vision": 7,
        "text+audio": 14,
        "vision+audio": 7,
        "text+vision+audio": 7,
    }
    assert "sentiment" in measured["by_modalities"]["text"]
    assert "sentiment" not in measured["by_modalities"]["audio"]
    json.dumps(measured)


def test_the_product_of_what_modalities_say_alone_stands_beside_the_fusion(
    checkpoint: Checkpoint, mixed: list[Example]
) -> None:
    measured = evaluate(checkpoint, [example for example in mixed if example.rows])
    native = measured["corpora"]["row"]["by_modalities"]
    assert {name for name, entry in native.items() if "product" in entry} == {n for n in native if "+" in n}
    composed = measured["composed"]
    assert set(composed["product"]) == {name for name in composed["by_modalities"] if "+" in name}
    assert 0 <= composed["influence"]["changed"] <= 1
    shown = native["text+audio"]["product"]
    assert np.sum(shown["confusion"]) == 14
    even = np.full((3, 7), 1 / 7)
    sure = softmax(np.random.default_rng(0).normal(size=(3, 7)))
    np.testing.assert_allclose(product([sure, even]), sure)
    np.testing.assert_allclose(product([sure, sure]), sure**2 / (sure**2).sum(axis=1, keepdims=True))


def test_what_is_not_labelled_is_not_measured(checkpoint: Checkpoint, mixed: list[Example]) -> None:
    felt = [example for example in mixed if example.utterance.emotion is None]
    measured = measure(checkpoint, felt)
    assert "emotion" not in measured
    assert measured["sentiment"]["within_half_width"] <= 1.0
    nothing = measure(checkpoint, mixed[-2:])
    assert nothing == {"n": 2, "coverage": 0.0, "modalities": "", "by_modalities": {}}


def test_a_part_is_measured_as_if_the_rest_were_not_there(checkpoint: Checkpoint, mixed: list[Example]) -> None:
    audio = [
        Example(replace(e.utterance, image=None), {Modality.AUDIO: e.rows[Modality.AUDIO]})
        for e in mixed
        if Modality.AUDIO in e.rows
    ]
    part = measure(checkpoint, mixed)["by_modalities"]["audio"]["emotion"]
    assert measure(checkpoint, audio)["emotion"]["confusion"] == part["confusion"]


def test_without_all_modalities_nothing_is_composed(checkpoint: Checkpoint, made: list[Example]) -> None:
    voices = [e for e in made if Modality.AUDIO in e.rows and e.utterance.split is Split.TEST]
    measured = evaluate(checkpoint, voices)
    assert measured["composed"] == {"n": 0, "by_modalities": {}, "product": {}, "influence": {}}
    assert measured["corpora"]["made-audio"]["n"] == len(voices)


@pytest.mark.parametrize(
    ("names", "split", "counts"), [(["a"], "test", [1]), (["a"], "all", [2]), (["b"], "test", [2])]
)
def test_the_command_measures_the_rows_it_is_told_to(
    names: list[str],
    split: str,
    counts: list[int],
    tmp_path: Path,
    checkpoint: Checkpoint,
    made: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.csv").write_text("id,split,emotion,text\n1,test,sad,x\n2,train,sad,x\n")
    (tmp_path / "b.csv").write_text("id,emotion,text\n1,sad,x\n2,sad,x\n")
    rows = {Modality.TEXT: of(made, Modality.TEXT, "sad").rows[Modality.TEXT]}
    monkeypatch.setattr(Inputs, "examples", lambda self, _: [Example(one, rows) for one in self.utterances])
    argv = ["evaluate", "--checkpoint", str(checkpoint.folder), "--cache", str(tmp_path / "cache"), "--split", split]
    out = tmp_path / "made" / "measured.json"
    assert main([*argv, "--out", str(out), "--manifest", *(str(tmp_path / f"{name}.csv") for name in names)]) == 0
    assert json.loads(out.read_text())["n"] == counts[0]
    assert main([*argv, "--out", str(out), "--data", str(tmp_path), "--manifest", "a", "b"]) == 0
    both = json.loads(out.read_text())
    assert {name: entry["n"] for name, entry in both.items()} == {"a": 2 if split == "all" else 1, "b": 2}
    assert main([*argv[:-1], "validation", "--manifest", str(tmp_path / "a.csv")]) == 1
    assert "no row is of the split validation" in capsys.readouterr().err


def test_influence_is_set_beside_what_changes_without_each_modality() -> None:
    """Three windows: none changes the answer; two do; one does, by a smaller move of the probabilities
    than that of another, which confirms the answer."""
    every = frozenset(Modality)
    said = {
        every: [[0.90, 0.10], [0.90, 0.10], [0.52, 0.48]],
        every - {Modality.TEXT}: [[0.80, 0.20], [0.20, 0.80], [0.90, 0.10]],
        every - {Modality.VISION}: [[0.85, 0.15], [0.80, 0.20], [0.45, 0.55]],
        every - {Modality.AUDIO}: [[0.90, 0.10], [0.85, 0.15], [0.52, 0.48]],
    }
    told = reasons({shown: np.array(probabilities) for shown, probabilities in said.items()})
    assert told == {"changed": pytest.approx(2 / 3), "named": 1.0}
