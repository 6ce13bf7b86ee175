"""Measure a checkpoint on the fixed test splits: each corpus alone, and composed windows by modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.checkpoint import Calibration, Checkpoint, subset_name
from dhmd.modality import Modality
from training.data.compose import SUBSETS, Composer, Composition, Sample
from training.data.items import Example
from training.metrics import emotion_metrics, sentiment_metrics
from training.predict import Predictions, batches, predict

PER_CLASS: Final = 100
"""Composed windows of each class."""

SEED: Final = 0


def evaluate(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """examples: of the test split. Returns {"corpora": see `by_corpus`, "composed": see `by_modalities`}."""
    return {"corpora": by_corpus(checkpoint, examples), "composed": by_modalities(checkpoint, examples)}


def by_corpus(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """Each item alone: {corpus: {modality, n, coverage, emotion or sentiment}}.

    `coverage` is the share of items in which anything was perceived (a face, a voice); the measures leave out the rest.
    """
    composer = _composer(checkpoint, examples)
    result: dict[str, Any] = {}
    for corpus in dict.fromkeys(example.item.corpus for example in examples):
        own = [example for example in examples if example.item.corpus == corpus]
        seen = [example for example in own if len(example.rows)]
        modality = own[0].item.modality
        said = predict(checkpoint.model, batches(composer.alone(example) for example in seen))
        entry: dict[str, Any] = {"modality": modality, "n": len(own), "coverage": len(seen) / len(own)}
        if (said.emotion_label >= 0).any():
            entry["emotion"] = _emotion(said, checkpoint.calibration, [modality])
        else:
            entry["sentiment"] = sentiment_metrics(said.sentiment, said.sentiment_label)
            width = checkpoint.calibration.sentiment_half_width[subset_name([modality])]
            entry["sentiment"]["within_half_width"] = _within(said.sentiment - said.sentiment_label, width)
        result[corpus] = entry
    return result


def by_modalities(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """Composed windows that hold all three modalities, the same for every subset and only shown in part:
    {n, by_modalities: {subset: emotion}}."""
    samples = composed(checkpoint, examples)
    measured = {
        subset_name(subset): _emotion(
            predict(checkpoint.model, batches(samples, subset)), checkpoint.calibration, list(subset)
        )
        for subset in SUBSETS
    }
    return {"n": len(samples), "by_modalities": measured}


def composed(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Sample]:
    """Windows of all three modalities, as many of every emotion, always the same for the same examples."""
    return _composer(checkpoint, examples).fixed(frozenset(Modality), PER_CLASS)


def _composer(checkpoint: Checkpoint, examples: Sequence[Example]) -> Composer:
    scale = {m: checkpoint.model.normaliser[m].state_dict()["std"].numpy() for m in Modality}
    return Composer(examples, checkpoint.features, scale, Composition(), SEED)


def _emotion(said: Predictions, calibration: Calibration, present: list[Modality]) -> dict[str, Any]:
    return emotion_metrics(said.probabilities(calibration.temperature[subset_name(present)]), said.emotion_label)


def _within(error: NDArray[np.float64], width: float) -> float:
    return float((np.abs(error) <= width).mean())
