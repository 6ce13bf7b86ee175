"""Tuning, shared by all encoders: a plan, rates that rise and fall, and a run that goes on after a cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.learning.run_files import damaged, read_state, restoring, write_state


@dataclass(frozen=True)
class Plan:
    """Plan of a training. warm_up: steps in which the rate rises; then it falls as a cosine to 2 % of its peak."""

    epochs: int
    batch: int
    warm_up: int = 60
    gradient_norm: float = 1.0
    seed: int = 1

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak rates at a step of so many."""
        falling = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * falling)


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one peak rate."""

    parameters: Sequence[nn.Parameter]
    rate: float
    weight_decay: float


def tune(
    model: nn.Module,
    groups: Sequence[Group],
    plan: Plan,
    epoch_losses: Callable[[int], Iterator[Tensor]],
    steps_of_epoch: int,
    measure: Callable[[], dict[str, float]],
    state: Path,
) -> list[dict[str, Any]]:
    """Train, measuring validation after each epoch; the weights of the last epoch stay. Returns the log.

    The rate has fallen to almost nothing by then, so that the last weights are chosen by the plan and by no measure.

    epoch_losses: the losses of the steps of an epoch, a function of its number; each is asked for after the step
        before it was taken.
    state: file with what a cut run goes on from, written after each epoch. Raises RunDamaged, RunUnwritable.
    """
    optimiser = torch.optim.AdamW(
        [{"params": list(g.parameters), "lr": g.rate, "peak": g.rate, "weight_decay": g.weight_decay} for g in groups]
    )
    learning = [parameter for group in groups for parameter in group.parameters]
    log: list[dict[str, Any]] = []
    if (saved := read_state(state)) is not None:
        with restoring(state):
            if saved["model"].keys() != _changing(model).keys():
                raise damaged(state)
            model.load_state_dict(saved["model"], strict=False)
            optimiser.load_state_dict(saved["optimiser"])
            log = saved["log"]
    total = plan.epochs * steps_of_epoch
    for epoch in range(len(log), plan.epochs):
        torch.manual_seed(plan.seed * 100_003 + epoch)
        model.train()
        summed = 0.0
        for step, loss in enumerate(epoch_losses(epoch), start=epoch * steps_of_epoch):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * plan.rate(step, total)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(learning, plan.gradient_norm)
            optimiser.step()
            summed += loss.item()
        model.eval()
        log.append({"epoch": epoch + 1, "loss": summed / steps_of_epoch, "validation": measure()})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in log[-1]["validation"].items())
        print(f"epoch {epoch + 1} of {plan.epochs}: loss {log[-1]['loss']:.3f}, validation {shown}", flush=True)
        write_state(state, {"model": _changing(model), "optimiser": optimiser.state_dict(), "log": log})
    return log


def _changing(model: nn.Module) -> dict[str, Tensor]:
    """The part of a model that a state need keep: all but frozen parameters."""
    return {k: v.detach() for k, v in model.state_dict(keep_vars=True).items() if not is_frozen(v)}


def is_frozen(value: Tensor) -> bool:
    """Tells whether an entry of a state is a parameter that does not learn."""
    return isinstance(value, nn.Parameter) and not value.requires_grad
