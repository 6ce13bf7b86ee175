"""Training end to end on made data: it learns, a cut run goes on to the same curve, and its checkpoint loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from dhmd.checkpoint import Checkpoint, encoder_path, load, subset_name
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from training.config import FitConfig
from training.data.compose import SUBSETS, Composer
from training.data.items import Example, Split
from training.errors import RunExists
from training.evaluation.evaluate import evaluate
from training.evaluation.predictions import PREDICTIONS, read_said
from training.learning.fit import FitData, fit
from training.learning.loop import described, open_runs

NETWORK = {"d": 8, "attention_heads": 2, "layers": 1, "atoms": 12, "text_dropout": 0.1, "output_dropout": 0.1}


def configuration(**optimisation: float) -> FitConfig:
    return FitConfig.model_validate(
        {
            "name": "made",
            "network": NETWORK,
            "optimisation": {"batch": 16, "steps": 25, "warm_up": 10, "learning_rate": 5e-3, **optimisation},
            "validation": {"items": 40, "per_class": 3},
        }
    )


@pytest.fixture(scope="module")
def trained(
    made: list[Example],
    specs: Mapping[Modality, FeatureSpec],
    untrained_encoders: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkpoint:
    run = tmp_path_factory.mktemp("runs") / "made"
    config = configuration(epochs=4)
    return load(fit(config, FitData.of(made, specs), run, untrained_encoders))


def test_every_modality_alone_and_all_together_are_learned(trained: Checkpoint, made: list[Example]) -> None:
    measured = evaluate(trained, [example for example in made if example.utterance.split == "test"])
    for m in Modality:
        entry = measured["corpora"][f"made-{m}"]
        assert entry["coverage"] == 1.0
        assert entry["emotion"]["unweighted_recall"] > 3 / 7
    assert measured["corpora"]["made-sentiment"]["sentiment"]["corr"] > 0.3
    by_modalities = measured["composed"]["by_modalities"]
    assert set(by_modalities) == {subset_name(subset) for subset in SUBSETS}
    alone = [by_modalities[m]["accuracy"] for m in Modality]
    assert by_modalities[subset_name(Modality)]["accuracy"] > sum(alone) / 3


def test_the_checkpoint_declares_all_it_needs(
    trained: Checkpoint, specs: Mapping[Modality, FeatureSpec], untrained_encoders: Path
) -> None:
    assert dict(trained.features) == dict(specs)
    for m in Modality:
        assert encoder_path(trained.folder, m).read_bytes() == encoder_path(untrained_encoders, m).read_bytes()
    names = {subset_name(subset) for subset in SUBSETS}
    assert set(trained.calibration.temperature) == names
    assert set(trained.calibration.sentiment_half_width) == names
    assert all(width > 0 for width in trained.calibration.sentiment_half_width.values())
    assert trained.model.normaliser[Modality.AUDIO].mean.abs().sum() > 0
    assert trained.training["items"]["made-text"] == {"train": 72, "validation": 30, "test": 30}


def test_the_card_shows_what_was_measured(trained: Checkpoint) -> None:
    card = (trained.folder / "README.md").read_text(encoding="utf-8")
    measured = json.loads((trained.folder.parent / "results.json").read_text())["test"]
    shown = f"{100 * measured['composed']['by_modalities']['vision+audio']['accuracy']:.1f}"
    assert f"| vision+audio | {shown} |" in card
    assert "workplaces" in card


def test_what_was_said_of_each_utterance_of_test_is_kept(trained: Checkpoint) -> None:
    run = trained.folder.parent
    measured = json.loads((run / "results.json").read_text())["test"]["corpora"]
    said = read_said(run / PREDICTIONS)
    assert set(said.splits) == {Split.TEST}
    for m in Modality:
        own = np.array(said.corpus) == f"made-{m}"
        right = (said.said.argmax(axis=1) == said.label)[own]
        assert right.mean() == pytest.approx(measured[f"made-{m}"]["emotion"]["accuracy"])


def test_a_cut_run_goes_on_to_the_same_curve(
    made: list[Example],
    specs: Mapping[Modality, FeatureSpec],
    untrained_encoders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, data = configuration(epochs=2, steps=2), FitData.of(made, specs)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(config, data, whole, untrained_encoders)

    draw = Composer.sample

    def failing(self: Composer, epoch: int, index: int) -> object:
        if (epoch, index) == (1, 20):
            raise KeyboardInterrupt
        return draw(self, epoch, index)

    monkeypatch.setattr(Composer, "sample", failing)
    with pytest.raises(KeyboardInterrupt):
        fit(config, data, cut, untrained_encoders)
    monkeypatch.undo()
    assert len(json.loads((cut / "log.json").read_text())) == 1
    open_runs({cut: described(config, {})}, resume=True)
    fit(config, data, cut, untrained_encoders)
    assert json.loads((cut / "log.json").read_text()) == json.loads((whole / "log.json").read_text())
    assert (cut / "checkpoint/model.safetensors").read_bytes() == (whole / "checkpoint/model.safetensors").read_bytes()


def test_training_stops_when_validation_no_longer_rises(
    made: list[Example], specs: Mapping[Modality, FeatureSpec], untrained_encoders: Path, tmp_path: Path
) -> None:
    config = configuration(epochs=30, steps=1, patience=2, learning_rate=1e-9, dictionary_learning_rate=1e-9)
    fit(config, FitData.of(made, specs), tmp_path / "run", untrained_encoders)
    log = json.loads((tmp_path / "run" / "log.json").read_text())
    best = max(range(len(log)), key=lambda i: log[i]["score"])
    assert len(log) == best + 1 + 2 < 30


def test_a_run_is_neither_overwritten_nor_mixed_up(
    made: list[Example], specs: Mapping[Modality, FeatureSpec], untrained_encoders: Path, tmp_path: Path
) -> None:
    run, config = tmp_path / "run", configuration(epochs=1, steps=1)
    with pytest.raises(RunExists, match="no run to resume; start one without --resume"):
        open_runs({run: described(config, {})}, resume=True)
    open_runs({run: described(config, {})}, resume=False)
    open_runs({run: described(config, {"a": "b"})}, resume=False)  # nothing was learned, so nothing is lost
    fit(config, FitData.of(made, specs), run, untrained_encoders)
    with pytest.raises(RunExists, match="holds a run already; continue it with --resume"):
        open_runs({tmp_path / "other": described(config, {}), run: described(config, {})}, resume=False)
    assert not (tmp_path / "other").exists()
    open_runs({run: described(config, {})}, resume=True)
    with pytest.raises(RunExists, match="another configuration"):
        open_runs({run: described(configuration(epochs=2, steps=1), {})}, resume=True)
