"""Train a DHMD on utterances with features of all modalities, as the field's papers do, and measure it.

The features of the words are taken as they are in the file; the language encoder that made them is not tuned. No live
extractor makes these features, so the result is a table and the weights, not a checkpoint for live use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dhmd.modality import Modality
from dhmd.model import DHMD, SENTIMENT
from training.config import SequenceConfig
from training.data.compose import mean_and_deviation
from training.data.items import Split
from training.data.mosi_context import read_mosi_context
from training.data.published import read_published
from training.data.sequences import Sequences, ShuffledBatches, Utterances
from training.evaluation.metrics import sentiment_metrics, sims_metrics
from training.evaluation.predict import BATCH, predict_sentiment
from training.learning.device import first
from training.learning.loop import described, open_run, train
from training.learning.results import run_record
from training.learning.run_files import RESULTS, keep


def read_sequences(config: SequenceConfig, path: Path) -> Sequences:
    """Read a file of features. Raises FeaturesInvalid, PickleRefused."""
    if config.features == "mosi-context":
        return read_mosi_context(path)
    return read_published(path, config.limit)


def fit_sequences(config: SequenceConfig, data: Sequences, run: Path) -> dict[str, Any] | None:
    """Train, choose the epoch with the least mean absolute error on validation, measure it on test.

    run: a folder that `check_run` agreed to; what a cut run left there is gone on with. The weights lie there in
    best.safetensors, the curves in log.json, and what is returned in results.json. Of several processes the first
    alone measures and writes; the others return None.
    """
    open_run(run, described(config, data.sha256))
    torch.manual_seed(config.seed)
    model = DHMD(config.network.dhmd(data.widths, (SENTIMENT,)))
    training, validation = data.splits[Split.TRAIN], data.splits[Split.VALIDATION]
    if not data.standardised:
        for m in Modality:
            mean, deviation = mean_and_deviation(training.inputs[m][training.masks[m]])
            model.normaliser[m].load_state_dict({"mean": torch.from_numpy(mean), "std": torch.from_numpy(deviation)})

    def validate(model: DHMD) -> tuple[float, dict[str, float]]:
        measured = measure(model, validation, config.limit)
        return -measured["mae"], measured

    plan = config.optimisation
    source = ShuffledBatches(training, plan.batch, config.seed)
    trained = train(model, source, validate, plan, config.losses, config.seed, run)
    if not first():
        return None
    read = {"sha256": data.sha256, "utterances": {split: len(part) for split, part in data.splits.items()}}
    results = run_record(config, read, trained) | {
        "validation": measure(model, validation, config.limit),
        "test": measure(model, data.splits[Split.TEST], config.limit),
    }
    keep(run / RESULTS, json.dumps(results, indent=1) + "\n")
    return results


def measure(model: DHMD, utterances: Utterances, limit: int) -> dict[str, float]:
    """The field's measures for labels in [-limit, limit]."""
    said = predict_sentiment(model, utterances.in_order(BATCH))
    return (sims_metrics if limit == 1 else sentiment_metrics)(said, utterances.sentiment)
