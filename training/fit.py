"""Train a DHMD on composed windows: from examples to a checkpoint folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from dhmd.checkpoint import CARD, EXPRESSION, load, save, subset_name, write_atomically
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMD
from training.card import model_card
from training.config import FitConfig, Optimisation
from training.data.compose import SUBSETS, Batch, Composer, Sample, collate, statistics
from training.data.items import Example, Split
from training.device import first
from training.evaluate import evaluate
from training.loop import open_run, train
from training.metrics import emotion_metrics, sentiment_metrics
from training.predict import batches, calibrate, predict

CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class Data:
    """Everything a run learns from and is measured on."""

    examples: Mapping[Split, Sequence[Example]]
    specs: Mapping[Modality, FeatureSpec]

    @classmethod
    def of(cls, examples: Sequence[Example], specs: Mapping[Modality, FeatureSpec]) -> Data:
        by_split = {split: [e for e in examples if e.item.split is split] for split in Split}
        return cls(by_split, specs)


@dataclass(frozen=True, slots=True)
class ComposedBatches:
    """Windows that are composed anew each epoch."""

    composer: Composer
    plan: Optimisation

    def __len__(self) -> int:
        return self.plan.steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for step in range(self.plan.steps):
            first = step * self.plan.batch
            yield collate([self.composer.sample(epoch, first + i) for i in range(self.plan.batch)])


def fit(config: FitConfig, data: Data, run: Path, expression: Path) -> Path:
    """Train, calibrate on validation, measure on test, and write `run`/checkpoint.

    run: a folder that `check_run` agreed to; what a cut run left there is gone on with.
    expression: weights of the expression network that made the rows of the faces; they go into the checkpoint.
    Returns the checkpoint's folder. Of several processes the first alone measures and writes it.
    """
    open_run(run, config.model_dump(mode="json"))
    torch.manual_seed(config.seed)
    model = DHMD(config.network.dhmd({m: spec.width for m, spec in data.specs.items()}))
    scales = {}
    for m, (mean, deviation) in statistics(data.examples[Split.TRAIN], data.specs).items():
        model.normaliser[m].load_state_dict({"mean": torch.from_numpy(mean), "std": torch.from_numpy(deviation)})
        scales[m] = deviation
    composers = {
        split: Composer(data.examples[split], data.specs, scales, config.composition, config.seed) for split in Split
    }
    validation = validation_windows(composers[Split.VALIDATION], data.examples[Split.VALIDATION], config)
    source = ComposedBatches(composers[Split.TRAIN], config.optimisation)

    def validate(model: DHMD) -> tuple[float, dict[str, float]]:
        scores = score_of(model, validation)
        return sum(scores.values()) / len(scores), scores

    trained = train(model, source, validate, config.optimisation, config.losses, config.seed, run)
    if not first():
        return run / CHECKPOINT
    return _finish(config, model, data, validation, trained.log, run, expression)


def _finish(
    config: FitConfig,
    model: DHMD,
    data: Data,
    validation: Mapping[frozenset[Modality], Sequence[Sample]],
    log: Sequence[Mapping[str, Any]],
    run: Path,
    expression: Path,
) -> Path:
    """Calibrate on validation, write the checkpoint, measure it as it was written, and write its card."""
    folder, counts = run / CHECKPOINT, _counts(data)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(expression, folder / EXPRESSION)
    save(
        folder,
        name=config.name,
        model=model,
        features=data.specs,
        calibration=calibrate(model, validation),
        training={
            "config": config.model_dump(mode="json"),
            "items": counts,
            "best_epoch": max(log, key=lambda entry: float(entry["score"]))["epoch"],
            "torch": torch.__version__,
        },
        card=f"# {config.name}\n",
    )
    checkpoint = load(folder)
    measured = evaluate(checkpoint, data.examples[Split.TEST])
    write_atomically(run / "test.json", json.dumps(measured, indent=1) + "\n")
    write_atomically(folder / CARD, model_card(config, counts, log, measured, checkpoint.calibration))
    return folder


def validation_windows(
    composer: Composer, examples: Sequence[Example], config: FitConfig
) -> dict[frozenset[Modality], list[Sample]]:
    """For each set of modalities: the items themselves where there is one, else composed windows."""
    windows: dict[frozenset[Modality], list[Sample]] = {}
    for subset in SUBSETS:
        if len(subset) == 1:
            (m,) = subset
            own = [e for e in examples if e.item.modality is m and len(e.rows)]
            order = np.random.default_rng(config.seed).permutation(len(own))[: config.validation.items]
            windows[subset] = [composer.alone(own[i]) for i in sorted(order)]
        else:
            windows[subset] = composer.fixed(subset, config.validation.per_class)
    return windows


def score_of(model: DHMD, validation: Mapping[frozenset[Modality], Sequence[Sample]]) -> dict[str, float]:
    """Unweighted recall of the emotions for each set of modalities, and the correlation of labelled sentiment."""
    scores: dict[str, float] = {}
    for subset, samples in validation.items():
        said = predict(model, batches(samples))
        known = said.emotion_label >= 0
        if known.any():
            probabilities = said.probabilities()[known]
            scores[subset_name(subset)] = emotion_metrics(probabilities, said.emotion_label[known])["unweighted_recall"]
        labelled = np.array([sample.sentiment_weight == 1.0 for sample in samples]) & ~np.isnan(said.sentiment_label)
        if labelled.any():
            name = f"{subset_name(subset)} sentiment"
            scores[name] = sentiment_metrics(said.sentiment[labelled], said.sentiment_label[labelled])["corr"]
    return scores


def _counts(data: Data) -> dict[str, dict[str, int]]:
    """Items of each corpus and split."""
    counts: dict[str, dict[str, int]] = {}
    for split, examples in data.examples.items():
        for example in examples:
            corpus = counts.setdefault(example.item.corpus, dict.fromkeys(Split, 0))
            corpus[split] += 1
    return counts
