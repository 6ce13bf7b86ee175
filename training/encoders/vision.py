"""Train the expression network of the face extractor on labelled stills."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.features.expression import CROP_SIDE, ExpressionNet
from dhmd.labels import EMOTIONS
from training.features.face_images import SPLITS, FaceImages, inner, jittered
from training.learning.run_files import read_state, restoring, write_state

_EVALUATION_BATCH: Final = 256


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    measured_every: epochs between measurements on validation, which take a fifth of an epoch's time.
    mixup: parameter of the beta distribution by which the images of every second batch are mixed in pairs (Zhang et al.
    2018). ema_decay: of the averaged weights, per step.
    adjustment: share of the log frequency of each class in the training images that is taken off its logit at the end
    (Menon et al. 2021), 1 as if all were equally frequent: FER2013 has 14 happy faces for one disgusted.
    """

    epochs: int = 36
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.2
    ema_decay: float = 0.998
    adjustment: float = 0.5
    measured_every: int = 3
    seed: int = 1


def augmented(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Jittered crops, half of them mirrored, noisy, half with a patch erased.

    crops: (B, S, S) float with MARGIN. Returns (B, CROP_SIDE, CROP_SIDE).
    """
    batch = len(crops)
    mirror = torch.rand(batch, 1, 1, generator=generator) < 0.5
    crops = jittered(torch.where(mirror, crops.flip(2), crops), generator)
    crops += 4 * torch.rand(batch, 1, 1, generator=generator) * torch.randn(crops.shape, generator=generator)
    middle = CROP_SIDE * torch.rand(batch, 2, generator=generator)
    half = 4 + 7 * torch.rand(batch, 2, generator=generator)
    half[torch.rand(batch, generator=generator) < 0.5] = 0
    axis = torch.arange(CROP_SIDE) + 0.5
    inside = (axis - middle[..., None]).abs() < half[..., None]  # (B, 2, CROP_SIDE)
    patch = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(patch, crops.mean(dim=(1, 2), keepdim=True), crops)


@torch.inference_mode()
def logits_of(network: ExpressionNet, crops: Tensor) -> Tensor:
    """(N, 7) of crops (N, CROP_SIDE, CROP_SIDE), as the extractor gives them."""
    return torch.cat([network.eval().perceive(part)[1] for part in torch.split(crops, _EVALUATION_BATCH)])


def accuracies(network: ExpressionNet, images: FaceImages) -> dict[str, float]:
    """Share of images named rightly, the mean of that over the classes, and the first where a face was found."""
    right = (logits_of(network, inner(images.crops)).argmax(dim=1).numpy() == images.label).astype(np.float64)
    per_class = [right[images.label == label].mean() for label in np.unique(images.label)]
    return {
        "accuracy": round(float(right.mean()), 4),
        "class_mean": round(float(np.mean(per_class)), 4),
        "accuracy_where_found": round(float(right[images.found].mean()), 4),
    }


def train(images: FaceImages, settings: Settings, resume: Path) -> tuple[ExpressionNet, list[dict[str, Any]]]:
    """Train on the training split; the averaged weights that do best on validation are returned, with the log.

    resume: file of the state after every epoch; training goes on from it when it is there. Raises RunDamaged,
        RunUnwritable.
    """
    torch.manual_seed(settings.seed)
    network = ExpressionNet()
    average = deepcopy(network)
    training = images[images.split == SPLITS.index("train")]
    validation = images[images.split == SPLITS.index("validation")]
    steps = max(1, len(training) // settings.batch)
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        settings.lr,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.lr, total_steps=settings.epochs * steps, pct_start=0.15
    )
    best: dict[str, Any] = {"accuracy": -1.0, "weights": {}}
    log: list[dict[str, Any]] = []
    if (state := read_state(resume)) is not None:
        with restoring(resume):
            network.load_state_dict(state["network"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            best, log = state["best"], state["log"]
    for epoch in range(len(log), settings.epochs):
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout too is a function of the epoch
        network.train()
        loss_sum = 0.0
        batches = _batches(training, settings, epoch, steps)
        for crops, target in track(batches, f"Epoch {epoch + 1} of {settings.epochs}", total=steps):
            # Half precision where the processor is made for it; weights and loss stay in single.
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(crops)[1]
            loss = F.cross_entropy(logits.float(), target, label_smoothing=settings.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            _follow(average, network, settings.ema_decay)
            loss_sum += loss.item()
        log.append({"epoch": epoch + 1, "loss": loss_sum / steps})
        line = f"epoch {epoch + 1}: training loss {loss_sum / steps:.3f}"
        if (settings.epochs - epoch - 1) % settings.measured_every == 0:
            measured = accuracies(average, validation)
            log[-1]["validation"] = measured
            line += f", validation {measured}"
            if measured["accuracy"] > best["accuracy"]:
                best = {"accuracy": measured["accuracy"], "weights": deepcopy(average.state_dict())}
        print(line, flush=True)
        state = {"network": network.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        write_state(resume, state | {"schedule": schedule.state_dict(), "best": best, "log": log})
    network.load_state_dict(best["weights"])
    adjust(network, np.bincount(training.label, minlength=len(EMOTIONS)), settings.adjustment)
    return network.eval(), log


@torch.no_grad()
def adjust(network: ExpressionNet, counts: NDArray[np.int64], share: float) -> None:
    """Take `share` of the log frequencies of the classes off the logits. counts: (7,) images of each class."""
    frequency = torch.from_numpy(np.maximum(counts, 1) / counts.sum()).float()
    shift = -share * frequency.log()
    last = network.classify[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the last layer of the classifier is {type(last).__name__}, not a linear map")
    last.bias.add_(shift - shift.mean())


def _batches(images: FaceImages, settings: Settings, epoch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented crops (B, CROP_SIDE, CROP_SIDE) and the share of each class in them (B, 7), every second batch mixed;
    the epoch's number seeds everything."""
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    draw = np.random.default_rng([settings.seed, epoch])
    order = torch.randperm(len(images), generator=generator).numpy()
    for step in range(steps):
        part = images[np.resize(order[step * settings.batch :], min(settings.batch, len(images)))]
        crops = augmented(torch.from_numpy(part.crops).float(), generator)
        target = F.one_hot(torch.from_numpy(part.label), len(EMOTIONS)).float()
        if settings.mixup and step % 2:
            share = float(draw.beta(settings.mixup, settings.mixup))
            other = torch.randperm(len(part), generator=generator)
            deviation = crops.std(dim=(1, 2), keepdim=True) + 1
            crops = (crops - crops.mean(dim=(1, 2), keepdim=True)) / deviation
            crops = share * crops + (1 - share) * crops[other]
            target = share * target + (1 - share) * target[other]
        yield crops, target


@torch.no_grad()
def _follow(average: ExpressionNet, network: ExpressionNet, decay: float) -> None:
    """Move the averaged weights a step towards the trained ones; counters are copied."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
