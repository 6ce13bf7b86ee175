"""What a network knows stays while it learns something else, and a cut run rehearses the same windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dhmd.checkpoint import Checkpoint, load
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMD
from training.config import FitConfig, Network
from training.data.batch import Batch, Labels
from training.data.compose import Composer, Composition, collate
from training.data.items import Example, Split
from training.evaluation.predict import batches, predict
from training.learning.fit import FitData, fit
from training.learning.rehearsal import POOL, Rehearsal, averaged

NETWORK = {"d": 8, "attention_heads": 2, "layers": 1, "atoms": 12, "text_dropout": 0.1, "output_dropout": 0.1}
PLAN = {"batch": 16, "steps": 20, "epochs": 3, "warm_up": 10, "learning_rate": 5e-3}


def configuration(**others: object) -> FitConfig:
    return FitConfig.model_validate(
        {"name": "made", "optimisation": PLAN, "validation": {"items": 40, "per_class": 3}, **others}
    )


@pytest.fixture(scope="module")
def begun(
    made: list[Example],
    specs: Mapping[Modality, FeatureSpec],
    untrained_encoders: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    run = tmp_path_factory.mktemp("runs") / "begun"
    return fit(configuration(network=NETWORK), FitData.of(made, specs), run, untrained_encoders)


def small(specs: Mapping[Modality, FeatureSpec]) -> DHMD:
    torch.manual_seed(0)
    return DHMD(Network.model_validate(NETWORK).dhmd({m: spec.width for m, spec in specs.items()}))


def of_text(begun: Checkpoint, made: list[Example]) -> np.ndarray:
    """Probabilities of the emotions for the words of the test split."""
    tested = [e for e in made if e.utterance.corpus == "made-text" and e.utterance.split is Split.TEST]
    scale = {m: begun.model.normaliser[m].state_dict()["std"].numpy() for m in Modality}
    composer = Composer(tested, begun.features, scale, Composition(), 0)
    return predict(begun.model, batches([composer.alone(e) for e in tested])).probabilities()


def test_what_is_said_of_words_hardly_changes_while_voices_are_learned(
    begun: Path, made: list[Example], specs: Mapping[Modality, FeatureSpec], tmp_path: Path
) -> None:
    # Every voice is called sad: this is far from what the network knows.
    voices = [e for e in made if e.utterance.corpus == "made-audio"]
    voices = [Example(replace(e.utterance, emotion="sad"), e.rows) for e in voices]
    before, changed = of_text(load(begun), made), {}
    for name, rehearsal in {"none": {}, "some": {"windows": 16, "kept": 0.5}}.items():
        config = configuration(start=str(begun), rehearsal=rehearsal, optimisation={**PLAN, "epochs": 1})
        after = load(fit(config, FitData.of(voices, specs), tmp_path / name, begun, load(begun)))
        changed[name] = float(np.abs(of_text(after, made) - before).sum(axis=1).mean()) / 2
    assert changed["some"] < 0.5 * changed["none"]


def test_rehearsed_windows_stand_after_the_batch_with_what_was_said(
    made: list[Example], specs: Mapping[Modality, FeatureSpec]
) -> None:
    model = small(specs).eval()
    rehearsal = Rehearsal(model, specs, seed=3)
    composer = Composer(made, specs, {m: np.ones(s.width, np.float32) for m, s in specs.items()}, Composition(), 0)
    own = collate([composer.sample(0, i) for i in range(5)])
    batch = rehearsal.beside(own, 7, epoch=1, step=2)
    assert batch.said is not None
    with torch.no_grad():
        said = model(batch.inputs, batch.masks).output
    torch.testing.assert_close(said[5:], batch.said, atol=1e-5, rtol=1e-5)
    for m in Modality:
        assert torch.equal(batch.inputs[m][:5], own.inputs[m])
        assert torch.equal(batch.masks[m][:5], own.masks[m])
    again = Rehearsal(model, specs, seed=3).beside(own, 7, epoch=1, step=2)
    other = rehearsal.beside(own, 7, epoch=1, step=3)
    assert again.said is not None
    assert other.said is not None
    assert torch.equal(again.said, batch.said)
    assert not torch.equal(other.said, batch.said)


def test_imagined_windows_have_every_set_of_modalities_and_the_statistics_of_the_rows(
    specs: Mapping[Modality, FeatureSpec],
) -> None:
    model = small(specs)
    model.normaliser[Modality.TEXT].load_state_dict({"mean": torch.full((12,), 4.0), "std": torch.full((12,), 0.5)})
    nothing = {m: torch.empty(0, spec.steps, spec.width) for m, spec in specs.items()}
    none = {m: torch.empty(0, spec.steps, dtype=torch.bool) for m, spec in specs.items()}
    batch = Rehearsal(model, specs, seed=1).beside(Batch(nothing, none, Labels({})), POOL, epoch=0, step=0)
    shown = {tuple(mask.any().item() for mask in masks) for masks in zip(*batch.masks.values(), strict=True)}
    assert len(shown) == 7
    rows = batch.inputs[Modality.TEXT][batch.masks[Modality.TEXT]]
    assert rows.mean() == pytest.approx(4.0, abs=0.05)
    assert rows.std() == pytest.approx(0.5, abs=0.05)


def test_the_mean_of_old_and_new_weights(specs: Mapping[Modality, FeatureSpec]) -> None:
    new, old = small(specs), {name: value + 4.0 for name, value in small(specs).state_dict().items()}
    mean = averaged(new, old, 0.25).state_dict()
    for name, value in new.state_dict().items():
        torch.testing.assert_close(mean[name], value + 1.0)
