"""The engine: the model, resident on its device, turns a window into numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dhmd.checkpoint import Checkpoint, subset_name
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from realtime.errors import DeviceUnavailable
from realtime.window import WindowCut

SENTIMENT_LIMIT = 3.0


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one. Raises DeviceUnavailable."""
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    if name.split(":", maxsplit=1)[0] == "cuda":
        index = int(name.partition(":")[2] or 0)
        if not has_gpu or index >= torch.cuda.device_count():
            raise DeviceUnavailable(
                f"--device {name}: this machine shows torch {torch.cuda.device_count()} CUDA device(s); "
                "use --device auto or cpu, or install a CUDA build of torch and the driver"
            )
    return torch.device(name)


@dataclass(frozen=True, slots=True)
class Sentiment:
    """In [-3, 3]; 80 % of true sentiments lay within [low, high] on validation data."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Inference:
    """One forward pass over a window in which at least one modality is present."""

    sentiment: Sentiment
    emotions: tuple[float, ...]
    """Probabilities in the order of `EMOTIONS`; they sum to 1."""
    modality_sentiment: Mapping[Modality, float]
    """What each present modality says alone, from its homogeneous head, in [-3, 3]."""
    homo_edges: tuple[float, ...]
    hetero_edges: tuple[float, ...]
    """Six weights each, in the order of `EDGES`."""
    weights: Mapping[Modality, float]
    """How much each modality teaches the others: its outgoing edges, mean of the two graphs; sums to 1."""
    inference_ms: float


class Engine:
    """Runs one checkpoint on one device. Not safe between threads; give each its own, or one thread to it."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.model = checkpoint.model.to(device).eval()

    @torch.inference_mode()
    def infer(self, cut: WindowCut) -> Inference | None:
        """None when no modality is present: nothing was perceived, so nothing is estimated."""
        if not cut.present:
            return None
        started = time.perf_counter()
        out = self.model(cut.inputs, cut.masks)
        subset = subset_name(cut.present)
        heads = self.model.split(out.output)
        temperature = self.checkpoint.calibration.temperature.get(subset, 1.0)
        probabilities = torch.softmax(heads["emotion"][0].double() / temperature, dim=-1)
        alone = torch.cat([self.model.split(out.homogeneous.logit[m])["sentiment"][0] for m in Modality])
        # One copy from the device for all numbers.
        numbers = torch.cat(
            [
                heads["sentiment"][0].double(),
                probabilities,
                alone.double(),
                out.homogeneous.edges[0].double(),
                out.heterogeneous.edges[0].double(),
            ]
        ).tolist()
        inference_ms = (time.perf_counter() - started) * 1000
        value, rest = _clip(numbers[0]), numbers[1:]
        emotions, rest = rest[: len(EMOTIONS)], rest[len(EMOTIONS) :]
        alone_values, rest = rest[: len(Modality)], rest[len(Modality) :]
        homo, hetero = rest[: len(EDGES)], rest[len(EDGES) :]
        # Where nothing was measured, the interval is the whole scale.
        half_width = self.checkpoint.calibration.sentiment_half_width.get(subset, 2 * SENTIMENT_LIMIT)
        return Inference(
            sentiment=Sentiment(value, _clip(value - half_width), _clip(value + half_width)),
            emotions=tuple(emotions),
            modality_sentiment={m: _clip(v) for m, v in zip(Modality, alone_values, strict=True) if m in cut.present},
            homo_edges=tuple(homo),
            hetero_edges=tuple(hetero),
            weights=_weights(cut.present, homo, hetero),
            inference_ms=inference_ms,
        )


def _clip(sentiment: float) -> float:
    return max(-SENTIMENT_LIMIT, min(SENTIMENT_LIMIT, sentiment))


def _weights(present: frozenset[Modality], homo: list[float], hetero: list[float]) -> dict[Modality, float]:
    if len(present) == 1:
        return dict.fromkeys(present, 1.0)
    weights = dict.fromkeys(present, 0.0)
    for edge, one, other in zip(EDGES, homo, hetero, strict=True):
        if edge.source in weights:
            weights[edge.source] += (one + other) / 2
    return weights
