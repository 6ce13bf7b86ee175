"""Train a network on utterances with features of all modalities, as the field's papers do, and measure it.

The features of the words are taken as they are in the file; the language encoder that made them is not tuned. No live
extractor makes these features, so the result is a table and the weights, not a checkpoint for live use.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT
from training.config import SequenceConfig
from training.data.compose import mean_and_deviation
from training.data.composed import read_composed
from training.data.items import Split
from training.data.mosi_context import read_mosi_context
from training.data.pairs import read_pairs
from training.data.published import read_published
from training.data.sequences import Sequences, ShuffledBatches, Utterances
from training.evaluation.metrics import emotion_metrics, negative_log_likelihood, sentiment_metrics, sims_metrics
from training.evaluation.predict import BATCH, predict_emotion, predict_sentiment, temperature_of
from training.evaluation.predictions import PREDICTIONS, Said, joined
from training.learning.device import first
from training.learning.loop import described, open_run, train
from training.learning.results import run_record
from training.learning.run_files import RESULTS, keep
from training.rivals import RIVALS, Learnable


def read_sequences(config: SequenceConfig, path: Path) -> Sequences:
    """Read a file of features, with those modalities that are to be shown. Raises FeaturesInvalid, PickleRefused."""
    if config.features == "mosi-context":
        data = read_mosi_context(path)
    elif config.features == "pairs":
        data = read_pairs(path, config.fold, config.baseline)
    elif config.features == "composed":
        data = read_composed(path)
    else:
        data = read_published(path, config.limit)
    return replace(data, splits={split: _showing(part, config.modalities) for split, part in data.splits.items()})


def _showing(utterances: Utterances, modalities: list[Modality]) -> Utterances:
    masks = {m: mask if m in modalities else np.zeros_like(mask) for m, mask in utterances.masks.items()}
    return replace(utterances, masks=masks)


def fit_sequences(config: SequenceConfig, data: Sequences, run: Path) -> dict[str, Any] | None:
    """Train, choose the epoch by validation, measure it on test: for sentiment the epoch with the least mean absolute
    error, for emotions that under whose probabilities, after calibration, the labels are likeliest.

    run: a folder that `check_run` agreed to; what a cut run left there is gone on with. The weights lie there in
    best.safetensors, the curves in log.json, what is said of each utterance of validation and test in predictions.csv,
    and what is returned in results.json. Of several processes the first alone measures and writes; the others return
    None.
    """
    open_run(run, described(config, data.sha256))
    torch.manual_seed(config.seed)
    training, validation = data.splits[Split.TRAIN], data.splits[Split.VALIDATION]
    head = SENTIMENT if training.emotion is None else EMOTION
    network = config.network.dhmd(data.widths, (head,))
    model: Learnable = DHMD(network) if config.model == "dhmd" else RIVALS[config.model](network)
    if not data.standardised:
        for m in config.modalities:
            mean, deviation = mean_and_deviation(training.inputs[m][training.masks[m]])
            model.normaliser[m].load_state_dict({"mean": torch.from_numpy(mean), "std": torch.from_numpy(deviation)})

    def validate(model: Learnable) -> tuple[float, dict[str, float]]:
        said = _said(config, model, validation, Split.VALIDATION, _temperature(model, validation))
        measured = {name: value for name, value in measure(said, config.limit).items() if name != "confusion"}
        return -measured["nll" if said.classes else "mae"], measured

    plan = config.optimisation
    source = ShuffledBatches(training, plan.batch, config.seed)
    trained = train(model, source, validate, plan, config.losses, config.seed, run)
    if not first():
        return None
    read = {"sha256": data.sha256, "utterances": {split: len(part) for split, part in data.splits.items()}}
    temperature = _temperature(model, validation)
    said = {
        split: _said(config, model, data.splits[split], split, temperature) for split in (Split.VALIDATION, Split.TEST)
    }
    results = run_record(config, read, trained) | {
        split.value: measure(one, config.limit) for split, one in said.items()
    }
    keep(run / PREDICTIONS, joined(list(said.values())).text())
    keep(run / RESULTS, json.dumps(results, indent=1) + "\n")
    return results


def measure(said: Said, limit: int) -> dict[str, Any]:
    """The field's measures: of emotions, or of sentiment for labels in [-limit, limit]."""
    if said.classes:
        label = said.label.astype(np.int64)
        return {"nll": negative_log_likelihood(said.said, label), **emotion_metrics(said.said, label)}
    return dict((sims_metrics if limit == 1 else sentiment_metrics)(said.said, said.label))


def _temperature(model: Learnable, validation: Utterances) -> float:
    return 1.0 if validation.emotion is None else temperature_of(predict_emotion(model, validation.in_order(BATCH)))


def _said(config: SequenceConfig, model: Learnable, utterances: Utterances, split: Split, temperature: float) -> Said:
    """What the model says of the utterances, under that temperature."""
    count, windows = len(utterances), utterances.in_order(BATCH)
    speakers = utterances.speakers or tuple(map(_video, utterances.ids))
    keys = utterances.ids, (config.features,) * count, speakers, (split,) * count
    if utterances.emotion is None:
        return Said(*keys, utterances.sentiment, predict_sentiment(model, windows))
    return Said(*keys, utterances.emotion, predict_emotion(model, windows).probabilities(temperature))


def _video(utterance: str) -> str:
    """The video in the name of an utterance, VIDEO_NUMBER or as the field's files have it VIDEO$_$NUMBER."""
    return utterance.rpartition("_")[0].removesuffix("$") or utterance
