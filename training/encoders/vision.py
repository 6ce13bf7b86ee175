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
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.features.expression import CROP_SIDE, EMBEDDING_WIDTH, ExpressionNet
from dhmd.labels import EMOTIONS
from training.encoders.pictures import photographed
from training.features.face_images import SPLITS, FaceImages, inner, jittered
from training.learning.run_files import read_state, restoring, write_state
from training.progress import followed

SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Of the adjustment to rare classes, from which validation chooses."""

_EVALUATION_BATCH: Final = 256


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    measured_every: epochs between measurements on validation, which take a fifth of an epoch's time.
    mixup: parameter of the beta distribution by which the images of every second batch are mixed in pairs (Zhang et al.
    2018). ema_decay: of the averaged weights, per step.
    small_side, small_share: side in pixels to which crops are shrunk in this share of the epochs, the first ones, which
    then take less than half the time.
    label_weight: of the second head's loss. label_smoothing: of labels, not of votes.
    adjustment_cost: accuracy on validation that the adjustment to rare classes may cost, see `adjusted`.
    """

    epochs: int = 30
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.2
    ema_decay: float = 0.998
    small_side: int = 32
    small_share: float = 0.5
    label_weight: float = 0.3
    adjustment_cost: float = 0.002
    measured_every: int = 3
    seed: int = 1


class Pupil(nn.Module):
    """The network, which learns what people said of a face, and a second head on its embedding, which learns the label
    that the corpus itself gives: another opinion of the same face, biased in another way. Only the network is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ExpressionNet()
        self.label = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(EMBEDDING_WIDTH, len(EMOTIONS)))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 7) of the network and of the second head."""
        embedding, logits = self.network(crops)
        return logits, self.label(embedding)


def augmented(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Crops as in poor pictures, jittered, half of them mirrored, a quarter with a patch erased.

    crops: (B, S, S) float with MARGIN. Returns (B, CROP_SIDE, CROP_SIDE).
    """
    batch = len(crops)
    mirror = torch.rand(batch, 1, 1, generator=generator) < 0.5
    crops = jittered(photographed(torch.where(mirror, crops.flip(2), crops), generator), generator)
    middle = CROP_SIDE * torch.rand(batch, 2, generator=generator)
    half = 4 + 7 * torch.rand(batch, 2, generator=generator)
    half[torch.rand(batch, generator=generator) < 0.75] = 0
    axis = torch.arange(CROP_SIDE) + 0.5
    inside = (axis - middle[..., None]).abs() < half[..., None]  # (B, 2, CROP_SIDE)
    patch = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(patch, crops.mean(dim=(1, 2), keepdim=True), crops)


@torch.inference_mode()
def logits_of(pupil: Pupil, crops: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 7) of both heads, of crops (N, CROP_SIDE, CROP_SIDE), as the extractor gives them."""
    pupil.eval()
    perceived = [pupil.network.perceive(part) for part in torch.split(crops, _EVALUATION_BATCH)]
    return torch.cat([logits for _, logits in perceived]), torch.cat([pupil.label(seen) for seen, _ in perceived])


def accuracies(pupil: Pupil, images: FaceImages) -> dict[str, float]:
    """Shares of images named rightly: by the emotion that most people named, over the images with votes alone where
    there are any; the mean of that over the classes; the first where a face was found.

    label: share of all images that the network names as they are labelled; label_head: that the second head does.
    """
    logits, labels = logits_of(pupil, inner(images.crops))
    said, counted = logits.argmax(dim=1).numpy(), images.votes.any(axis=1)
    asked = counted if counted.any() else np.ones(len(images), np.bool_)
    truth = targets(images, 0.0).argmax(axis=1)[asked]
    right, found = (said[asked] == truth).astype(np.float64), images.found[asked]
    measured = {
        "accuracy": right.mean(),
        "class_mean": np.mean([right[truth == emotion].mean() for emotion in np.unique(truth)]),
        "accuracy_where_found": right[found].mean(),
        "label": (said == images.label).mean(),
        "label_head": (labels.argmax(dim=1).numpy() == images.label).mean(),
    }
    return {name: round(float(share), 4) for name, share in measured.items()}


def targets(images: FaceImages, smoothing: float) -> NDArray[np.float32]:
    """(N, 7) what the network should say: the votes; where nobody counted, the label, smoothed."""
    label = (1 - smoothing) * np.eye(len(EMOTIONS), dtype=np.float32)[images.label] + smoothing / len(EMOTIONS)
    return np.where(images.votes.any(axis=1, keepdims=True), images.votes, label).astype(np.float32)


def train(images: FaceImages, settings: Settings, resume: Path) -> tuple[Pupil, list[dict[str, Any]]]:
    """Train on the training split; the averaged weights that do best on validation are returned, with the log.

    resume: file of the state after every epoch; training goes on from it when it is there. Raises RunDamaged,
        RunUnwritable.
    """
    torch.manual_seed(settings.seed)
    pupil = Pupil()
    average = deepcopy(pupil)
    training = images[images.split == SPLITS.index("train")]
    validation = images[images.split == SPLITS.index("validation")]
    steps = max(1, len(training) // settings.batch)
    matrices = [parameter for parameter in pupil.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in pupil.parameters() if parameter.ndim <= 1]
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
            pupil.load_state_dict(state["pupil"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            best, log = state["best"], state["log"]
    for epoch in range(len(log), settings.epochs):
        torch.manual_seed(settings.seed * 100_003 + epoch)  # dropout too is a function of the epoch
        pupil.train()
        loss_sum = 0.0
        batches = _batches(training, settings, epoch, steps)
        for crops, votes, labels in followed(batches, f"Epoch {epoch + 1} of {settings.epochs}", "steps", steps):
            # Half precision where the processor is made for it; weights and loss stay in single.
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, named = pupil(crops)
            loss = F.cross_entropy(logits.float(), votes)
            loss += settings.label_weight * F.cross_entropy(named.float(), labels)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            _follow(average, pupil, settings.ema_decay)
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
        state = {"pupil": pupil.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        write_state(resume, state | {"schedule": schedule.state_dict(), "best": best, "log": log})
    pupil.load_state_dict(best["weights"])
    frequency = targets(training, 0.0).mean(axis=0)
    adjust(pupil.network, frequency, adjusted(pupil, validation, frequency, settings.adjustment_cost))
    return pupil.eval(), log


def adjusted(pupil: Pupil, images: FaceImages, frequency: NDArray[np.float32], cost: float) -> float:
    """The largest share of the adjustment, of SHARES, that names at most `cost` of the images worse than the best does.

    Rare classes gain from it what frequent ones lose, so accuracy alone would leave them out.
    """
    logits, truth = logits_of(pupil, inner(images.crops))[0], torch.from_numpy(targets(images, 0.0).argmax(axis=1))
    right = [(logits + _shift(frequency, share)).argmax(dim=1).eq(truth).float().mean().item() for share in SHARES]
    return max(share for share, accuracy in zip(SHARES, right, strict=True) if accuracy >= max(right) - cost)


@torch.no_grad()
def adjust(network: ExpressionNet, frequency: NDArray[np.float32], share: float) -> None:
    """Take `share` of the log frequencies of the classes (7,) off the logits (Menon et al. 2021); 1 as if all were
    equally frequent: of FER2013's faces, a third is neutral and a sixtieth disgusted."""
    last = network.classify[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the last layer of the classifier is {type(last).__name__}, not a linear map")
    last.bias.add_(_shift(frequency, share))


def _shift(frequency: NDArray[np.float32], share: float) -> Tensor:
    """(7,) what is added to the logits."""
    shift = -share * torch.from_numpy(frequency).clamp_min(1e-4).log()
    return shift - shift.mean()


def _batches(images: FaceImages, settings: Settings, epoch: int, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Augmented crops (B, S, S), the votes on them (B, 7) and their smoothed labels (B, 7), every second batch mixed;
    the epoch's number seeds everything."""
    small = epoch < settings.small_share * settings.epochs
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    draw = np.random.default_rng([settings.seed, epoch])
    order = torch.randperm(len(images), generator=generator).numpy()
    for step in range(steps):
        part = images[np.resize(order[step * settings.batch :], min(settings.batch, len(images)))]
        crops = augmented(torch.from_numpy(part.crops).float(), generator)
        votes = torch.from_numpy(targets(part, settings.label_smoothing))
        labels = F.one_hot(torch.from_numpy(part.label), len(EMOTIONS)).float()
        labels = (1 - settings.label_smoothing) * labels + settings.label_smoothing / len(EMOTIONS)
        if settings.mixup and step % 2:
            share = float(draw.beta(settings.mixup, settings.mixup))
            other = torch.randperm(len(part), generator=generator)
            deviation = crops.std(dim=(1, 2), keepdim=True) + 1
            crops = (crops - crops.mean(dim=(1, 2), keepdim=True)) / deviation
            crops = share * crops + (1 - share) * crops[other]
            votes = share * votes + (1 - share) * votes[other]
            labels = share * labels + (1 - share) * labels[other]
        if small:
            crops = F.interpolate(crops[:, None], (settings.small_side,) * 2, mode="bilinear", antialias=True)[:, 0]
        yield crops, votes, labels


@torch.no_grad()
def _follow(average: Pupil, pupil: Pupil, decay: float) -> None:
    """Move the averaged weights a step towards the trained ones; counters are copied."""
    for kept, new in zip(average.state_dict().values(), pupil.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
