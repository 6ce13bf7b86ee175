"""Train a DHMD on windows of labelled utterances: from examples to a checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from dhmd.checkpoint import CARD, Calibration, Checkpoint, load, save, subset_name, write_atomically
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT, own_heads
from dhmd.yaml_config import ConfigInvalid
from training.config import FitConfig, Optimisation
from training.data.batch import Batch
from training.data.compose import SUBSETS, Composer, Sample, collate, statistics
from training.data.items import Example, Split, counted
from training.errors import TooLittleData
from training.evaluation.card import Retained, model_card
from training.evaluation.evaluate import by_corpus, evaluate, predictions
from training.evaluation.metrics import correlation, emotion_metrics, sentiment_metrics
from training.evaluation.predict import FEW, batches, calibrate, predict, predict_head, softmax
from training.evaluation.predictions import PREDICTIONS
from training.features.extractors import copy_learned
from training.learning.device import first
from training.learning.loop import Trained, described, open_run, train
from training.learning.rehearsal import Rehearsal, averaged, grown
from training.learning.results import run_record
from training.learning.run_files import RESULTS

CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class FitData:
    """Everything a run learns from and is measured on. manifests: sha256 of each by its name. known: utterances of the
    test splits that the checkpoint was measured on from which the run begins; None: what is kept of that checkpoint is
    not measured."""

    examples: Mapping[Split, Sequence[Example]]
    specs: Mapping[Modality, FeatureSpec]
    manifests: Mapping[str, str] = field(default_factory=dict)
    known: Sequence[Example] | None = None

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        specs: Mapping[Modality, FeatureSpec],
        manifests: Mapping[str, str] | None = None,
        known: Sequence[Example] | None = None,
    ) -> FitData:
        by_split = {split: [e for e in examples if e.utterance.split is split] for split in Split}
        return cls(by_split, specs, manifests or {}, known)


@dataclass(frozen=True, slots=True)
class ComposedBatches:
    """Windows that are composed anew each epoch, and so many rehearsed ones beside each batch."""

    composer: Composer
    plan: Optimisation
    rehearsal: Rehearsal | None = None
    rehearsed: int = 0

    def __len__(self) -> int:
        return self.plan.steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for step in range(self.plan.steps):
            first = step * self.plan.batch
            batch = collate([self.composer.sample(epoch, first + i) for i in range(self.plan.batch)])
            if self.rehearsal is not None:
                batch = self.rehearsal.beside(batch, self.rehearsed, epoch, step)
            yield batch


def fit(
    config: FitConfig,
    data: FitData,
    run: Path,
    encoders: Path,
    start: Checkpoint | None = None,
    folds: Mapping[str, Any] | None = None,
) -> Path:
    """Train, calibrate on validation, measure on test, and write `run`/checkpoint.

    run: a folder that `open_runs` agreed to; what a cut run left there is gone on with.
    encoders: folder of the learned parts that made the features; they go into the checkpoint.
    start: the checkpoint to begin from, as `config.start` asks. folds: what `cross_validated` measured, for the card.
    Returns the checkpoint's folder. Of several processes the first alone measures and writes it. Raises TooLittleData.
    """
    open_run(run, described(config, data.manifests))
    torch.manual_seed(config.seed)
    model = _begun(config, data, start)
    own = own_heads(model.config.heads)
    scales = {m: model.normaliser[m].state_dict()["std"].numpy() for m in Modality}
    composers = {
        split: Composer(data.examples[split], data.specs, scales, config.composition, config.seed, own)
        for split in Split
    }
    if not composers[Split.TRAIN]:
        raise TooLittleData("nothing to learn from: no utterance of the split train has features for these subsets")
    validation = validation_windows(composers[Split.VALIDATION], data.examples[Split.VALIDATION], config)
    chosen_by = validation
    if sum(bool(example.rows) for example in data.examples[Split.VALIDATION]) < FEW:
        # Too few to choose the weights by: those learned from are measured with them.
        both = [*data.examples[Split.TRAIN], *data.examples[Split.VALIDATION]]
        chosen_by = validation_windows(
            Composer(both, data.specs, scales, config.composition, config.seed, own), both, config
        )
    windows, old = config.rehearsal.windows, deepcopy((model if start is None else start.model).state_dict())
    rehearsal = Rehearsal(model, data.specs, config.seed) if windows else None
    source = ComposedBatches(composers[Split.TRAIN], config.optimisation, rehearsal, windows)

    def validate(model: DHMD) -> tuple[float, dict[str, float]]:
        scores = score_of(averaged(model, old, config.rehearsal.kept), chosen_by)
        return sum(scores.values()) / len(scores), scores

    trained = train(model, source, validate, config.optimisation, config.losses, config.seed, run)
    if not first():
        return run / CHECKPOINT
    model = averaged(model, old, config.rehearsal.kept)
    calibration = calibrate(model, validation)
    if start is not None:
        calibration = Calibration(
            {**start.calibration.temperature, **calibration.temperature},
            {**start.calibration.sentiment_half_width, **calibration.sentiment_half_width},
        )
    return _finish(config, model, data, calibration, trained, run, encoders, folds)


def _begun(config: FitConfig, data: FitData, start: Checkpoint | None) -> DHMD:
    """A network by chance with the statistics of the training data, or that of `start` with its own."""
    if start is not None:
        for m, spec in start.features.items():
            spec.require(data.specs[m])
        known = {head.name: head for head in start.model.config.heads}
        for head in config.own:
            if known.get(head.name, head) != head:
                raise ConfigInvalid(f"{start.name} has another head {head.name}; give yours another name")
        new = [head for head in config.own if head.name not in known]
        return (grown(start.model, new) if new else start.model).train()
    model = DHMD(
        config.network.dhmd({m: spec.width for m, spec in data.specs.items()}, (SENTIMENT, EMOTION, *config.own))
    )
    for m, (mean, deviation) in statistics(data.examples[Split.TRAIN], data.specs).items():
        model.normaliser[m].load_state_dict({"mean": torch.from_numpy(mean), "std": torch.from_numpy(deviation)})
    return model


def _finish(
    config: FitConfig,
    model: DHMD,
    data: FitData,
    calibration: Calibration,
    trained: Trained,
    run: Path,
    encoders: Path,
    folds: Mapping[str, Any] | None,
) -> Path:
    """Write the checkpoint, measure it as it was written, and write its card."""
    folder = run / CHECKPOINT
    counts = counted(example.utterance for examples in data.examples.values() for example in examples)
    folder.mkdir(exist_ok=True)
    copy_learned(encoders, folder)
    save(
        folder,
        name=config.name,
        model=model,
        features=data.specs,
        calibration=calibration,
        training={
            "config": config.model_dump(mode="json"),
            "items": counts,
            "best_epoch": trained.best_epoch,
            "torch": torch.__version__,
        },
        card=f"# {config.name}\n",
    )
    checkpoint = load(folder)
    measured = evaluate(checkpoint, data.examples[Split.TEST])
    record = run_record(config, {"sha256": dict(data.manifests)}, trained)
    told: dict[str, Any] = {"utterances": counts, "test": measured}
    before, retained = None, None
    if config.start is not None:
        begun = load(config.start)
        told["before"] = before = by_corpus(begun, data.examples[Split.TEST])
        if data.known is not None:
            retained = Retained(
                by_corpus(begun, data.known),
                by_corpus(checkpoint, data.known),
                # Other windows than those that it rehearsed.
                Rehearsal(begun.model, data.specs, config.seed + 1).agreement(checkpoint.model),
            )
            told["retained"] = asdict(retained)
    if folds is not None:
        told["folds"] = folds
    write_atomically(run / RESULTS, json.dumps(record | told, indent=1) + "\n")
    for said in predictions(checkpoint, data.examples[Split.TEST]):
        name = PREDICTIONS if said.head == EMOTION.name else f"predictions-{said.head}.csv"
        write_atomically(run / name, said.text())
    write_atomically(
        folder / CARD,
        model_card(config, counts, trained.log, measured, checkpoint.calibration, before, folds, retained),
    )
    return folder


def validation_windows(
    composer: Composer, examples: Sequence[Example], config: FitConfig
) -> dict[frozenset[Modality], list[Sample]]:
    """Windows of each set of modalities: utterances that have it, and composed windows where it is more than one."""
    windows: dict[frozenset[Modality], list[Sample]] = {}
    for subset in SUBSETS:
        own = [e for e in examples if subset <= set(e.rows)]
        order = np.random.default_rng(config.seed).permutation(len(own))[: config.validation.items]
        windows[subset] = [composer.alone(own[i], subset) for i in sorted(order)]
        if len(subset) > 1:
            windows[subset] += composer.fixed(subset, config.validation.per_class)
    return windows


def score_of(model: DHMD, validation: Mapping[frozenset[Modality], Sequence[Sample]]) -> dict[str, float]:
    """Unweighted recall of the emotions for each set of modalities, and the correlation of labelled sentiment."""
    scores: dict[str, float] = {}
    for subset, samples in validation.items():
        if not samples:
            continue
        said = predict(model, batches(samples))
        known = said.emotion_label >= 0
        if known.any():
            probabilities = said.probabilities()[known]
            scores[subset_name(subset)] = emotion_metrics(probabilities, said.emotion_label[known])["unweighted_recall"]
        labelled = np.array([sample.sentiment_labelled for sample in samples])
        if labelled.any():
            name = f"{subset_name(subset)} sentiment"
            scores[name] = sentiment_metrics(said.sentiment[labelled], said.sentiment_label[labelled])["corr"]
        for head in own_heads(model.config.heads):
            said_of, label = predict_head(model, batches(samples), head)
            known = ~np.isnan(label) if head.kind == "regression" else label >= 0
            if known.any() and head.classes:
                measured = emotion_metrics(softmax(said_of[known]), label[known])["unweighted_recall"]
            elif known.any():
                measured = correlation(said_of[known], label[known])
            if known.any():
                scores[f"{subset_name(subset)} {head.name}"] = measured
    return scores
