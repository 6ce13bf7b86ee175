"""The training loop, whatever the data: epochs, validation, early stop, and a run that goes on after a cut."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import nn

from dhmd.checkpoint import write_atomically
from dhmd.model import DHMD
from training import losses
from training.data.compose import Batch
from training.errors import RunExists

_STATE, _BEST, _CONFIG, _LOG = "state.pt", "best.safetensors", "config.json", "log.json"

Validate = Callable[[DHMD], tuple[float, dict[str, float]]]
"""The score that chooses the weights, higher is better, and the measures it comes from."""


class Source(Protocol):
    """Where the batches of an epoch come from; the same for the same epoch, however often it is asked."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


class Plan(Protocol):
    """How long and how fast to learn. patience: epochs without a better score before stopping; gradient_clip: by
    value; accumulation: batches whose gradients are summed for one step of the optimiser."""

    @property
    def epochs(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def gradient_clip(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def dictionary_learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...

    def rate(self, batches: int, scores: Sequence[float]) -> float:
        """Share of the learning rates, after so many batches and with those scores of the epochs so far."""


def train(
    model: DHMD, source: Source, validate: Validate, plan: Plan, weights: losses.Weights, seed: int, run: Path
) -> list[dict[str, Any]]:
    """Train until the epochs are over or the score stops rising. Returns the log; `model` has the best weights.

    run: folder of the run; what a cut run left there is gone on with.
    """
    optimiser = torch.optim.AdamW(_groups(model, plan), betas=plan.betas)
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
        torch.manual_seed(seed * 100_003 + epoch)  # dropout too is a function of the epoch: a cut changes nothing
        sums = _epoch(model, source, optimiser, plan, weights, epoch, [entry["score"] for entry in log])
        score, scores = validate(model)
        log.append({"epoch": epoch + 1, "score": score, "losses": sums, "validation": scores})
        print(f"epoch {epoch + 1}: loss {sums['total']:.3f}, validation {score:.4f} ({_shown(scores)})", flush=True)
        if score > best:
            _replace(run / _BEST, lambda path: save_file(_plain(model), path))
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "log": log}
        _replace(run / _STATE, lambda path, state=state: torch.save(state, path))
        write_atomically(run / _LOG, json.dumps(log, indent=1) + "\n")
    model.load_state_dict(load_file(run / _BEST))
    return log


def _epoch(
    model: DHMD,
    source: Source,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    weights: losses.Weights,
    epoch: int,
    scores: Sequence[float],
) -> dict[str, float]:
    """One pass. Returns the mean of each term of the loss and of their weighted total."""
    model.train()
    sums: dict[str, float] = {}
    count = len(source)
    for index, batch in enumerate(track(source.epoch(epoch), f"Epoch {epoch + 1} of {plan.epochs}", count)):
        if index % plan.accumulation == 0:
            model.zero_grad(set_to_none=True)
        for name, value in _backward(model, batch, weights).items():
            sums[name] = sums.get(name, 0.0) + value / count
        if (index + 1) % plan.accumulation == 0 or index + 1 == count:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * plan.rate(epoch * count + index, scores)
            nn.utils.clip_grad_value_(model.parameters(), plan.gradient_clip)
            optimiser.step()
    return sums


def _backward(model: DHMD, batch: Batch, weights: losses.Weights) -> dict[str, float]:
    """Forward and backward; gradients add to those that are there. Returns the terms and their weighted total."""
    out = model(batch.inputs, batch.masks)
    loss, terms = losses.total(model, out, batch.labels, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"total": loss.item()} | {name: value.item() for name, value in terms.items()}


def _groups(model: DHMD, plan: Plan) -> list[dict[str, Any]]:
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


def check_run(run: Path, described: Mapping[str, Any], *, resume: bool) -> None:
    """Raise RunExists unless `run` is free, or, to resume, holds a run that is described in the same way."""
    known = run / _CONFIG
    if not resume and known.exists():
        raise RunExists(f"{run} holds a run already; go on with it by --resume, or give another folder with --run")
    if resume and not known.exists():
        raise RunExists(f"{run} holds no run to go on with; start one without --resume")
    if resume and known.read_text(encoding="utf-8") != _text(described):
        raise RunExists(f"{run} was started with another configuration; give that one, or another --run")


def open_run(run: Path, described: Mapping[str, Any]) -> None:
    """Make the folder, and note in it what shapes the run."""
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / _CONFIG, _text(described))


def _text(described: Mapping[str, Any]) -> str:
    return json.dumps(described, indent=1) + "\n"


def _plain(model: DHMD) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()}


def _replace(path: Path, write: Any) -> None:
    """Write beside and then move over, so that a cut leaves the old file whole."""
    unfinished = path.with_suffix(".part")
    write(unfinished)
    unfinished.replace(path)


def _shown(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
