"""Train a DHMD on composed windows: from examples to a checkpoint folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import nn

from dhmd.checkpoint import CARD, EXPRESSION, load, save, subset_name, write_atomically
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMD
from training import losses
from training.card import model_card
from training.config import FitConfig, Optimisation
from training.data.compose import SUBSETS, Batch, Composer, Sample, collate, statistics
from training.data.items import Example, Split
from training.errors import RunExists
from training.evaluate import evaluate
from training.metrics import emotion_metrics, sentiment_metrics
from training.predict import batches, calibrate, predict

CHECKPOINT: Final = "checkpoint"
_STATE, _BEST, _CONFIG, _LOG = "state.pt", "best.safetensors", "config.json", "log.json"


@dataclass(frozen=True, slots=True)
class Data:
    """Everything a run learns from and is measured on."""

    examples: Mapping[Split, Sequence[Example]]
    specs: Mapping[Modality, FeatureSpec]

    @classmethod
    def of(cls, examples: Sequence[Example], specs: Mapping[Modality, FeatureSpec]) -> Data:
        by_split = {split: [e for e in examples if e.item.split is split] for split in Split}
        return cls(by_split, specs)


def fit(config: FitConfig, data: Data, run: Path, expression: Path) -> Path:
    """Train, calibrate on validation, measure on test, and write `run`/checkpoint.

    run: a folder that `check_run` agreed to; what a cut run left there is gone on with.
    expression: weights of the expression network that made the rows of the faces; they go into the checkpoint.
    Returns the checkpoint's folder.
    """
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / _CONFIG, _described(config))
    torch.manual_seed(config.seed)
    network = config.network.dhmd(data.specs)
    model = DHMD(network)
    scales = {}
    for m, (mean, deviation) in statistics(data.examples[Split.TRAIN], data.specs).items():
        model.normaliser[m].load_state_dict({"mean": torch.from_numpy(mean), "std": torch.from_numpy(deviation)})
        scales[m] = deviation
    composers = {
        split: Composer(data.examples[split], data.specs, scales, config.composition, config.seed) for split in Split
    }
    validation = validation_windows(composers[Split.VALIDATION], data.examples[Split.VALIDATION], config)
    log = _train(config, model, composers[Split.TRAIN], validation, run)

    model.load_state_dict(load_file(run / _BEST))
    return _finish(config, model, data, validation, log, run, expression)


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


def _train(
    config: FitConfig,
    model: DHMD,
    composer: Composer,
    validation: Mapping[frozenset[Modality], Sequence[Sample]],
    run: Path,
) -> list[dict[str, Any]]:
    """Train until the epochs are over or the score stops rising; the best weights lie in `run`. Returns the log."""
    plan = config.optimisation
    optimiser = torch.optim.AdamW(_groups(model, plan), betas=(0.9, 0.98))
    log: list[dict[str, Any]] = []
    if (run / _STATE).exists():
        state = torch.load(run / _STATE, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        log = state["log"]
    for epoch in range(len(log), plan.epochs):
        best = max((entry["score"] for entry in log), default=-math.inf)
        best_epoch = next((entry["epoch"] for entry in log if entry["score"] == best), 0)
        if log and len(log) - best_epoch >= plan.patience:
            break
        torch.manual_seed(
            config.seed * 100_003 + epoch
        )  # dropout too is a function of the epoch: a cut changes nothing
        model.train()
        sums: dict[str, float] = {}
        for step in track(range(plan.steps), f"Epoch {epoch + 1} of {plan.epochs}"):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _rate(epoch * plan.steps + step, plan)
            first = step * plan.batch
            terms = _step(model, collate([composer.sample(epoch, first + i) for i in range(plan.batch)]), config)
            nn.utils.clip_grad_value_(model.parameters(), plan.gradient_clip)
            optimiser.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / plan.steps
        scores = score_of(model, validation)
        score = sum(scores.values()) / len(scores)
        log.append({"epoch": epoch + 1, "score": score, "losses": sums, "validation": scores})
        print(f"epoch {epoch + 1}: loss {sums['total']:.3f}, validation {score:.4f} ({_shown(scores)})", flush=True)
        if score > best:
            _replace(run / _BEST, lambda path: save_file(_plain(model), path))
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "log": log}
        _replace(run / _STATE, lambda path, state=state: torch.save(state, path))
        write_atomically(run / _LOG, json.dumps(log, indent=1) + "\n")
    return log


def _step(model: DHMD, batch: Batch, config: FitConfig) -> dict[str, float]:
    """Forward and backward; gradients are fresh. Returns the terms of the loss and their weighted total."""
    model.zero_grad(set_to_none=True)
    out = model(batch.inputs, batch.masks)
    loss, terms = losses.total(model, out, batch.labels, config.losses)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"total": loss.item()} | {name: value.item() for name, value in terms.items()}


def _groups(model: DHMD, plan: Optimisation) -> list[dict[str, Any]]:
    """Parameters by learning rate and decay: dictionaries have their own rate; norms, biases and atoms no decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = plan.dictionary_learning_rate if "_dictionary." in name else plan.learning_rate
        decay = plan.weight_decay if parameter.ndim > 1 and not name.endswith("atoms") else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _rate(step: int, plan: Optimisation) -> float:
    """Share of the peak learning rate: a linear rise, then a cosine down to 2 %."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    done = (step - plan.warm_up) / max(plan.epochs * plan.steps - plan.warm_up, 1)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def check_run(run: Path, config: FitConfig, *, resume: bool) -> None:
    """Raise RunExists unless `run` is free, or, to resume, holds a run of this very configuration."""
    known = run / _CONFIG
    if not resume and known.exists():
        raise RunExists(f"{run} holds a run already; go on with it by --resume, or give another folder with --run")
    if resume and not known.exists():
        raise RunExists(f"{run} holds no run to go on with; start one without --resume")
    if resume and known.read_text(encoding="utf-8") != _described(config):
        raise RunExists(f"{run} was started with another configuration; give that one, or another --run")


def _described(config: FitConfig) -> str:
    return json.dumps(config.model_dump(mode="json"), indent=1) + "\n"


def _counts(data: Data) -> dict[str, dict[str, int]]:
    """Items of each corpus and split."""
    counts: dict[str, dict[str, int]] = {}
    for split, examples in data.examples.items():
        for example in examples:
            corpus = counts.setdefault(example.item.corpus, dict.fromkeys(Split, 0))
            corpus[split] += 1
    return counts


def _plain(model: DHMD) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()}


def _replace(path: Path, write: Any) -> None:
    """Write beside and then move over, so that a cut leaves the old file whole."""
    unfinished = path.with_suffix(".part")
    write(unfinished)
    unfinished.replace(path)


def _shown(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
