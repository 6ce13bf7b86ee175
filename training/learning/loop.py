"""The training loop, whatever the data: epochs, validation, early stop, and a run that goes on after a cut.

One process or many: each computes its share of every batch, and but for what dropout drops the curve is the same.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.config import FitConfig, Plan, SequenceConfig, Weights
from training.data.batch import Batch, Labels
from training.errors import Diverged, RunExists
from training.learning import losses
from training.learning.curves import Curves
from training.learning.device import fabric, first
from training.learning.gather import Leaves, share, size, whole
from training.learning.progress import EpochProgress
from training.learning.run_files import (
    CONFIG,
    LOG,
    RESULTS,
    STATE,
    keep,
    read_best,
    read_state,
    restoring,
    write_best,
    write_state,
)
from training.rivals import Learnable

if TYPE_CHECKING:
    from lightning_fabric.wrappers import _FabricModule

Network = TypeVar("Network", bound=Learnable)

Validate = Callable[[Network], tuple[float, dict[str, float]]]
"""The score that chooses the weights, higher is better, and the measures it comes from."""


class Batches(Protocol):
    """Source of the batches of an epoch; the same for the same epoch, however often it is asked."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class Trained:
    """Outcome of the epochs. log: one entry each; seconds: wall time of all epochs, those before a cut included."""

    log: list[dict[str, Any]]
    seconds: float

    @property
    def best_epoch(self) -> int:
        best = max(self.log, key=lambda entry: float(entry["score"]))
        return int(best["epoch"])


def train(
    model: Network, source: Batches, validate: Validate[Network], plan: Plan, weights: Weights, seed: int, run: Path
) -> Trained:
    """Train until the epochs are over or the score stops rising. In the first process, `model` then has the best
    weights; it is on the CPU.

    source: whole batches, the same in every process, which computes its share of them. validate: asked in the first
    process alone.
    run: folder of the run; what a cut run left there is gone on with. Raises Diverged, RunDamaged, RunUnwritable.
    """
    here = fabric()
    learner = _Learner(model, plan)
    state = here.broadcast(read_state(run / STATE) if first() else None)
    if state is not None:
        with restoring(run / STATE):
            learner.load(state)
    curves = Curves(run, len(learner.log)) if first() else None
    for epoch in range(len(learner.log), plan.epochs):
        log = learner.log
        best = max((entry["score"] for entry in log), default=-math.inf)
        best_epoch = next((entry["epoch"] for entry in log if entry["score"] == best), 0)
        if log and len(log) - best_epoch >= plan.patience:
            break
        # Dropout too is a function of the epoch: a cut changes nothing. Each process drops other samples' features.
        torch.manual_seed(seed * 100_003 + epoch + 1_000_000_007 * here.global_rank)
        began_s = time.perf_counter()
        sums = learner.epoch(source, weights, epoch, [entry["score"] for entry in log])
        step_s = (time.perf_counter() - began_s) / len(source)
        score, scores = here.broadcast(validate(learner.measured) if first() else (math.nan, {}))
        if not (math.isfinite(sums["total"]) and math.isfinite(score)):
            raise Diverged(
                f"epoch {epoch + 1}: loss {sums['total']}, validation {score}: training diverged; start anew with a "
                "lower learning_rate, in another folder"
            )
        log.append({"epoch": epoch + 1, "score": score, "losses": sums, "validation": scores})
        learner.seconds += time.perf_counter() - began_s
        if curves is not None:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            print(f"epoch {epoch + 1}: loss {sums['total']:.3f}, validation {score:.4f} ({shown})", flush=True)
            if score > best:
                write_best(run, learner.measured)
            curves.add(log[-1], learner.rates(), step_s)
            write_state(run / STATE, learner.state())
            keep(run / LOG, json.dumps(log, indent=1) + "\n")
    if curves is not None:
        curves.close()
        model.load_state_dict(read_best(run))
    model.cpu()
    return Trained(learner.log, learner.seconds)


class _Learner(Generic[Network]):
    """The network with what moves its weights, and all that a run needs to go on where it was cut."""

    def __init__(self, model: Network, plan: Plan) -> None:
        self.model, self._plan = model, plan
        self._leaves = Leaves(model)
        self._module: _FabricModule = fabric().setup_module(self._leaves)
        self._optimiser = torch.optim.AdamW(_groups(model, plan), betas=plan.betas, fused=True)
        self._average = AveragedModel(model, multi_avg_fn=_followed(plan.ema)) if plan.ema else None
        self.log: list[dict[str, Any]] = []
        self.seconds = 0.0

    @property
    def measured(self) -> Network:
        """The network that is validated and kept."""
        return self.model if self._average is None else cast("Network", self._average.module)

    def rates(self) -> dict[str, float]:
        """The learning rates of the last step."""
        group, plan = self._optimiser.param_groups[0], self._plan
        rate = group["lr"] / group["peak"]
        return {
            "learning_rate": rate * plan.learning_rate,
            "dictionary_learning_rate": rate * plan.dictionary_learning_rate,
        }

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "log": self.log,
            "seconds": self.seconds,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.log, self.seconds = state["log"], state["seconds"]

    def epoch(self, source: Batches, weights: Weights, epoch: int, scores: Sequence[float]) -> dict[str, float]:
        """One pass. Returns the mean of each term of the loss and of their weighted total."""
        plan, count = self._plan, len(source)
        self.model.train()
        sums: dict[str, Tensor] = {}
        with EpochProgress(epoch + 1, plan.epochs, count, shown=first()) as progress:
            for index, batch in enumerate(source.epoch(epoch)):
                complete = (index + 1) % plan.accumulation == 0 or index + 1 == count
                terms = self._backward(batch, weights, synchronise=complete)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.double()
                if complete:
                    self._step(plan.rate(epoch * count + index, scores))
                progress.step(terms["total"])
        means = (torch.stack(list(sums.values())) / count).tolist()  # the one wait for the device
        return dict(zip(sums, means, strict=True))

    def _backward(self, batch: Batch, weights: Weights, *, synchronise: bool) -> dict[str, Tensor]:
        """Forward and backward; gradients add to those that are there. Returns the terms and their weighted total."""
        here = fabric()
        inputs, masks = share(batch, here.global_rank, here.world_size)
        with here.no_backward_sync(self._module, enabled=not synchronise):
            leaves = self._module(here.to_device(inputs), here.to_device(masks))
            if here.world_size > 1:
                leaves = whole(here, leaves, size(batch))
            labels = Labels(here.to_device(batch.labels.values), here.to_device(batch.labels.weights))
            own = size(batch) - (0 if batch.said is None else len(batch.said))
            out = self._leaves.output([leaf[:own] for leaf in leaves])
            loss, terms = losses.objective(self.model, out, labels, weights)
            if batch.said is not None:
                again = self._leaves.output([leaf[own:] for leaf in leaves])
                forgotten = losses.rehearsal(self.model, again, here.to_device(batch.said))
                loss = loss + weights.rehearsal * forgotten
                terms["rehearsal"] = forgotten.detach()
            here.backward(loss * here.world_size)  # DDP divides by it: see `gather`
        if self._plan.clip == "batch":
            nn.utils.clip_grad_value_(self.model.parameters(), self._plan.gradient_clip)
        return {"total": loss.detach()} | terms

    def _step(self, rate: float) -> None:
        """Let the gradients move the weights. rate: share of the learning rates."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        nn.utils.clip_grad_value_(self.model.parameters(), self._plan.gradient_clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self.model)


def _followed(decay: float) -> Callable[[Any, Any, Any], None]:
    """Lets averaged weights follow: at first closely, so that the untrained ones are soon forgotten."""

    def follow(averaged: Any, current: Any, count: Any) -> None:
        old = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(old)(averaged, current, count)  # type: ignore[no-untyped-call]

    return follow


def _groups(model: Learnable, plan: Plan) -> list[dict[str, Any]]:
    """Parameters by learning rate and decay: dictionaries have their own rate; norms, biases and atoms no decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = plan.dictionary_learning_rate if "_dictionary." in name else plan.learning_rate
        rate = plan.encoder_learning_rate if name.startswith("language_encoder.") else rate
        decay = plan.weight_decay if parameter.ndim > 1 and not name.endswith("atoms") else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def described(config: FitConfig | SequenceConfig, data_sha256: str | Mapping[str, str]) -> str:
    """Describes in JSON what shapes a run. data_sha256: of its file, or of each manifest by its name."""
    return json.dumps(config.model_dump(mode="json") | {"data_sha256": data_sha256}, indent=1) + "\n"


def open_runs(runs: Mapping[Path, str], *, resume: bool) -> None:
    """Make the folder of each run, and note in it what shapes the run, as `described`.

    Raises RunExists, before anything is written, unless each folder is free, or, to resume, holds a run that is
    described in the same way. A folder without a finished epoch is free. The first process looks for all.
    """
    faults = (_fault(run, described, resume=resume) for run, described in runs.items())
    fault = fabric().broadcast(next(filter(None, faults), None) if first() else None)
    if fault:
        raise RunExists(fault)
    for run, described in runs.items():
        open_run(run, described)


def _fault(run: Path, described: str, *, resume: bool) -> str | None:
    known = run / CONFIG
    if not resume and known.exists() and any(next(run.rglob(file), None) for file in (STATE, LOG, RESULTS)):
        return f"{run} holds a run already; continue it with --resume, or give another folder with --run"
    if resume and not known.exists():
        return f"{run} holds no run to resume; start one without --resume"
    if resume and known.read_text(encoding="utf-8") != described:
        return f"{run} was started with another configuration or other data; give those, or another --run"
    return None


def open_run(run: Path, described: str) -> None:
    """Make the folder, and note in it what shapes the run."""
    if first():
        run.mkdir(parents=True, exist_ok=True)
        keep(run / CONFIG, described)
