"""Train the expression network of the face extractor on labelled stills, and give stills as feature rows."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from dhmd.features.expression import CROP_SIDE, ExpressionNet
from dhmd.features.landmarks import BLENDSHAPES
from dhmd.labels import EMOTIONS
from training.errors import TooLittleData
from training.face_images import MARGIN, SPLITS, FaceImages

VARIANTS: Final = ("as seen", "mirrored", "jittered", "jittered")
"""The rows that `feature_rows` gives of every still."""

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    balance: 0 draws images as they come, 1 all classes equally often. ema_decay: of the averaged weights, per step.
    """

    epochs: int = 18
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    balance: float = 0.5
    ema_decay: float = 0.998
    seed: int = 1


def jittered(crops: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Turned (to 12 degrees), scaled (to 12 %) and shifted (to 3 pixels) crops under other light.

    crops: (B, S, S) float with MARGIN. Returns (B, CROP_SIDE, CROP_SIDE). strength 0 cuts off the margin only.
    """
    batch, side = len(crops), crops.shape[1]

    def spread(*shape: int) -> Tensor:
        return strength * (2 * torch.rand(*shape, generator=generator) - 1)

    angle = math.radians(12) * spread(batch)
    scale = CROP_SIDE / side * torch.exp(0.12 * spread(batch))
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale * angle.cos()
    theta[:, 0, 1] = -scale * angle.sin()
    theta[:, 1, 0] = scale * angle.sin()
    theta[:, :, 2] = 3 * 2 / side * spread(batch, 2)
    grid = F.affine_grid(theta, [batch, 1, CROP_SIDE, CROP_SIDE], align_corners=False)
    moved = F.grid_sample(crops[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    gamma = torch.exp(0.4 * spread(batch, 1, 1))
    lit: Tensor = 255 * (moved.clamp(0, 255) / 255) ** gamma
    return lit


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
def outputs(network: ExpressionNet, crops: Tensor) -> tuple[Tensor, Tensor]:
    """Embedding (N, 64) and logits (N, 7) of crops (N, CROP_SIDE, CROP_SIDE)."""
    parts = [network.eval()(part) for part in torch.split(crops, _EVALUATION_BATCH)]
    return torch.cat([embedding for embedding, _ in parts]), torch.cat([logits for _, logits in parts])


def accuracies(network: ExpressionNet, images: FaceImages) -> dict[str, float]:
    """Share of images named rightly, the mean of that over the classes, and the first where a face was found."""
    right = (outputs(network, _inner(images.crops))[1].argmax(dim=1).numpy() == images.label).astype(np.float64)
    per_class = [right[images.label == label].mean() for label in np.unique(images.label)]
    return {
        "accuracy": round(float(right.mean()), 4),
        "class_mean": round(float(np.mean(per_class)), 4),
        "accuracy_where_found": round(float(right[images.found].mean()), 4),
    }


def train(images: FaceImages, settings: Settings, resume: Path) -> ExpressionNet:
    """Train on the training split; the averaged weights that do best on validation are returned.

    resume: file of the state after every epoch; training goes on from it when it is there.
    """
    torch.manual_seed(settings.seed)
    network = ExpressionNet()
    average = deepcopy(network)
    training = images[images.split == SPLITS.index("train")]
    validation = images[images.split == SPLITS.index("validation")]
    steps = max(1, len(training) // settings.batch)
    optimiser = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.lr, total_steps=settings.epochs * steps, pct_start=0.15
    )
    best: dict[str, Any] = {"accuracy": -1.0, "weights": {}}
    begin = 0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        best, begin = state["best"], state["epoch"]
    for epoch in range(begin, settings.epochs):
        network.train()
        loss_sum = 0.0
        batches = _batches(training, settings, epoch, steps)
        for crops, labels in track(batches, f"Epoch {epoch + 1} of {settings.epochs}", total=steps):
            # Half precision where the processor is made for it; weights and loss stay in single.
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(crops)[1]
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            _follow(average, network, settings.ema_decay)
            loss_sum += loss.item()
        measured = accuracies(average, validation)
        print(f"epoch {epoch + 1}: training loss {loss_sum / steps:.3f}, validation {measured}", flush=True)
        if measured["accuracy"] > best["accuracy"]:
            best = {"accuracy": measured["accuracy"], "epoch": epoch + 1, "weights": deepcopy(average.state_dict())}
        state = {"network": network.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
        state |= {"schedule": schedule.state_dict(), "best": best, "epoch": epoch + 1}
        unfinished = resume.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.rename(resume)
    network.load_state_dict(best["weights"])
    return network.eval()


def feature_rows(crop: NDArray[np.uint8], measures: NDArray[np.float32], network: ExpressionNet) -> NDArray[np.float32]:
    """Rows as FaceExtractor would give them of a still, (4, WIDTH), one a variant of VARIANTS.

    crop: (S, S) with MARGIN; measures: (55,) blendshapes and pose, see `training.face_images.Seen`.
    Mirrored: left and right blendshapes change places, yaw and roll their sign. Jittered: the crop is turned, scaled,
    shifted and lit a little differently, which moves the embedding; blendshapes and pose stay.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(crop.tobytes()))
    plain, mirrored = _inner(np.stack([crop, crop[:, ::-1]])).float()
    moved = jittered(torch.from_numpy(crop.copy()).float().expand(VARIANTS.count("jittered"), -1, -1), generator, 0.5)
    embedding = outputs(network, torch.stack([plain, mirrored, *moved]))[0].numpy()
    of_variant = {"as seen": measures, "mirrored": _mirrored(measures[None])[0], "jittered": measures}
    return np.concatenate([np.stack([of_variant[variant] for variant in VARIANTS]), embedding], axis=1)


def _inner(crops: NDArray[np.uint8]) -> Tensor:
    """The crops as the extractor makes them: without the margin."""
    return torch.from_numpy(np.ascontiguousarray(crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]))


def _mirrored(measures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blendshapes and pose (N, 55) of the same faces in a mirror."""
    swapped = [name.replace("Left", "*").replace("Right", "Left").replace("*", "Right") for name in BLENDSHAPES]
    places = [BLENDSHAPES.index(name) for name in swapped]
    pose = measures[:, len(BLENDSHAPES) :] * np.array([-1, 1, -1], np.float32)
    return np.concatenate([measures[:, places], pose], axis=1)


def _batches(images: FaceImages, settings: Settings, epoch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented crops (B, CROP_SIDE, CROP_SIDE) and labels (B,) of one epoch; the epoch's number seeds everything."""
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    counts = np.bincount(images.label, minlength=len(EMOTIONS))
    chance = torch.from_numpy(counts[images.label].astype(np.float64) ** -settings.balance)
    drawn = torch.multinomial(chance, steps * settings.batch, replacement=True, generator=generator)
    for index in drawn.numpy().reshape(steps, settings.batch):
        part = images[index]
        yield augmented(torch.from_numpy(part.crops).float(), generator), torch.from_numpy(part.label)


@torch.no_grad()
def _follow(average: ExpressionNet, network: ExpressionNet, decay: float) -> None:
    """Move the averaged weights a step towards the trained ones; counters are copied."""
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def run(images: FaceImages, settings: Settings, out: Path, state: Path) -> None:
    """Train, measure on every split and corpus, and write the weights to `out`, a report beside them.

    state: folder of the state to resume from.
    """
    for split in ("train", "validation"):
        if not (images.split == SPLITS.index(split)).any():
            raise TooLittleData(f"no labelled image with a face is in the split {split}; name manifests that have some")
    state.mkdir(parents=True, exist_ok=True)
    trained = train(images, settings, state / f"state-{settings.epochs}-{settings.seed}.pt")
    out.parent.mkdir(parents=True, exist_ok=True)
    trained.save(out)
    network = ExpressionNet.load(out)
    parts = {split: images[images.split == i] for i, split in enumerate(SPLITS)}
    corpora = {split: np.unique(part.corpus).tolist() for split, part in parts.items()}
    report = {
        "trained_on": corpora["train"],
        "settings": asdict(settings),
        "images": {split: _counts(part) for split, part in parts.items()},
        "validation": accuracies(network, parts["validation"]),
        **{
            f"{split}_{corpus}": accuracies(network, parts[split][parts[split].corpus == corpus])
            for split in ("validation", "test")
            for corpus in corpora[split]
        },
        "weights_sha256": network.sha256(),
        "torch": torch.__version__,
    }
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def _counts(images: FaceImages) -> dict[str, int]:
    """How many images, faces found, and images of each class."""
    classes = {name: int((images.label == i).sum()) for i, name in enumerate(EMOTIONS)}
    return {"images": len(images), "faces_found": int(images.found.sum()), **classes}
