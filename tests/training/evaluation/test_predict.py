"""Calibration: the temperature that the labels ask for, and intervals that are honest about what was labelled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMD, DHMDConfig, ModalityConfig
from training.data.compose import SUBSETS, Composer, Composition
from training.data.items import Example, Split
from training.evaluation.predict import Predictions, batches, calibrate, half_width_of, predict, softmax, temperature_of


def said(scores: np.ndarray, emotion: np.ndarray, sentiment: np.ndarray, label: np.ndarray) -> Predictions:
    return Predictions(scores, sentiment, emotion, label)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(overconfidence: float) -> None:
    draw = np.random.default_rng(0)
    scores = 2 * draw.standard_normal((20_000, 7))
    chance = softmax(scores).cumsum(axis=1)
    emotion = (draw.random((20_000, 1)) > chance).sum(axis=1).clip(max=6)
    found = temperature_of(overconfidence * scores, emotion)
    assert found == pytest.approx(overconfidence, rel=0.05)


def test_the_half_width_holds_four_of_five_labels() -> None:
    label = np.array([0.0, 0.0, 0.0, 0.0, np.nan])
    predicted = np.array([0.1, -0.2, 0.3, -2.0, 9.0])
    width = half_width_of(said(np.zeros((5, 7)), np.full(5, -1), predicted, label), share=0.75)
    assert (np.abs(predicted[:4]) <= width).mean() == 0.75


def test_no_interval_is_narrower_than_the_labelled_one(
    made: list[Example], specs: Mapping[Modality, FeatureSpec]
) -> None:
    modalities = {m: ModalityConfig(spec.width) for m, spec in specs.items()}
    model = DHMD(DHMDConfig(modalities=modalities, d=8, attention_heads=2, layers=1, atoms=12))
    examples = [example for example in made if example.utterance.split is Split.VALIDATION]
    scale = {m: np.ones(spec.width, np.float32) for m, spec in specs.items()}
    composer = Composer(examples, specs, scale, Composition(), 1)
    labelled = [composer.alone(example) for example in examples if example.utterance.sentiment is not None]
    windows = {subset: composer.fixed(subset, 7) for subset in SUBSETS}
    windows[frozenset({Modality.TEXT})] += labelled
    measured = half_width_of(predict(model, batches(labelled)))
    widths = calibrate(model, windows).sentiment_half_width
    assert widths[subset_name([Modality.TEXT])] == measured
    assert set(widths) == {subset_name(subset) for subset in SUBSETS}
    assert min(widths.values()) == measured


def test_hidden_modalities_are_hidden(made: list[Example], specs: Mapping[Modality, FeatureSpec]) -> None:
    scale = {m: np.ones(spec.width, np.float32) for m, spec in specs.items()}
    samples = Composer(made, specs, scale, Composition(), 1).fixed(frozenset(Modality), 1)
    (batch,) = batches(samples, [Modality.AUDIO])
    assert batch.masks[Modality.AUDIO].any()
    assert not batch.masks[Modality.TEXT].any()
    assert not batch.masks[Modality.VISION].any()
