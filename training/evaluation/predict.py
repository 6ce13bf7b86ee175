"""Predictions of a model for many windows at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.checkpoint import Calibration, own_calibration, subset_name
from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT, Head, own_heads
from training.data.batch import Batch
from training.data.compose import Sample, collate
from training.rivals import Learnable

BATCH = 64


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for N windows. scores: (N, 7) of the emotions, before any temperature; sentiment: (N,)."""

    scores: NDArray[np.float64]
    sentiment: NDArray[np.float64]
    emotion_label: NDArray[np.int64]
    sentiment_label: NDArray[np.float64]

    def probabilities(self, temperature: float = 1.0) -> NDArray[np.float64]:
        """(N, 7), each row sums to 1."""
        return softmax(self.scores / temperature)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float64)


def product(alone: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(N, 7) of the probabilities (N, 7) that each modality gives alone: their product, normed. What errs independently
    says no more than this together. Classes count as equally frequent."""
    return softmax(np.sum([np.log(probabilities + 1e-12) for probabilities in alone], axis=0))


def batches(samples: Sequence[Sample], present: Iterable[Modality] = Modality) -> Iterator[Batch]:
    """Batches of windows, of which only the modalities in `present` are shown."""
    shown = set(present)
    for begin in range(0, len(samples), BATCH):
        batch = collate(samples[begin : begin + BATCH])
        masks = {m: mask if m in shown else torch.zeros_like(mask) for m, mask in batch.masks.items()}
        yield Batch(batch.inputs, masks, batch.labels)


def predict(model: DHMD, windows: Iterable[Batch]) -> Predictions:
    """Run the model over all windows, in evaluation mode; it is left in the mode it was in."""
    parts = [
        (said[EMOTION.name], said[SENTIMENT.name][:, 0], label[EMOTION.name], label[SENTIMENT.name])
        for said, label in _said(model, windows)
    ]
    scores, sentiment, emotion_label, sentiment_label = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Predictions(
        scores.astype(np.float64),
        sentiment.astype(np.float64),
        emotion_label.astype(np.int64),
        sentiment_label.astype(np.float64),
    )


def predict_head(model: Learnable, windows: Iterable[Batch], head: Head) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """One head alone: scores (N, classes) or numbers (N,), and the labels (N,). The model is left in its mode."""
    parts = [(said[head.name], label[head.name]) for said, label in _said(model, windows)]
    said, label = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return (said if head.kind == "classification" else said[:, 0]).astype(np.float64), label


@torch.inference_mode()
def _said(
    model: Learnable, windows: Iterable[Batch]
) -> list[tuple[dict[str, torch.Tensor], Mapping[str, torch.Tensor]]]:
    """{head: (B, size)} on the CPU, wherever the model is, and the labels of each batch."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    said = []
    for batch in windows:
        inputs, masks = ({m: x.to(device) for m, x in part.items()} for part in (batch.inputs, batch.masks))
        said.append((model.split(model(inputs, masks).output.cpu()), batch.labels.values))
    model.train(was_training)
    return said


FEW: Final = 20
"""With fewer utterances than this a choice of weights, a temperature or an interval would be chance."""

TEMPERATURES = np.exp(np.linspace(np.log(0.25), np.log(6.0), 161))


def temperature_of(scores: NDArray[np.float64], label: NDArray[Any]) -> float:
    """The temperature under which the labelled classes were most likely. scores: (N, C); label: (N,), -1 unknown."""
    known = label >= 0
    labels = label[known].astype(np.int64)
    likelihood = [
        np.log(softmax(scores[known] / t)[np.arange(len(labels)), labels] + 1e-12).mean() for t in TEMPERATURES
    ]
    return float(TEMPERATURES[int(np.argmax(likelihood))])


def half_width_of(said: Predictions, share: float = 0.8) -> float:
    """The distance from the estimated sentiment within which `share` of the labels lie."""
    known = ~np.isnan(said.sentiment_label)
    return float(np.quantile(np.abs(said.sentiment[known] - said.sentiment_label[known]), share))


def calibrate(model: DHMD, validation: Mapping[frozenset[Modality], Sequence[Sample]]) -> Calibration:
    """Temperatures and half-widths on validation windows of each set of modalities; none for a set with fewer than FEW.

    The sentiment that stands for a class's valence is the same for the whole class, so it is easier to hit than one
    that people labelled: a set without labelled sentiment gets no narrower interval than a labelled one.
    """
    temperature: dict[str, float] = {}
    half_width: dict[str, float] = {}
    own_width: dict[str, float] = {}
    labelled_widths = [0.0]
    for subset, samples in validation.items():
        name = subset_name(subset)
        if _many(sample for sample in samples if sample.emotion >= 0):
            said = predict(model, batches(samples))
            temperature[name] = temperature_of(said.scores, said.emotion_label)
        for head in own_heads(model.config.heads):
            own = [
                sample
                for sample in samples
                if not np.isnan(one := sample.extra[head.name]) and not (head.classes and one < 0)
            ]
            if not _many(own):
                continue
            said_of, label = predict_head(model, batches(own), head)
            if head.classes:
                temperature[own_calibration(head, name)] = temperature_of(said_of, label)
            else:
                _, highest = head.scale
                unit = highest - head.on_scale(0)
                own_width[own_calibration(head, name)] = unit * float(np.quantile(np.abs(said_of - label), 0.8))
        labelled = [sample for sample in samples if sample.sentiment_labelled]
        if not _many(labelled):
            labelled = []
        known = labelled or [sample for sample in samples if not np.isnan(sample.sentiment)]
        if _many(known):
            half_width[name] = half_width_of(predict(model, batches(known)))
        if labelled:
            labelled_widths.append(half_width[name])
    least = max(labelled_widths)
    return Calibration(temperature, {name: max(width, least) for name, width in half_width.items()} | own_width)


def _many(samples: Iterable[Sample]) -> bool:
    """Tells whether they are made of FEW utterances at least."""
    return len({utterance for sample in samples for utterance in sample.items.values()}) >= FEW
