"""The field's measures of sentiment and of emotion."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


def sentiment_metrics(predicted: Floats, label: Floats) -> dict[str, float]:
    """The measures of CMU-MOSI. predicted, label: (N,) in [-3, 3]. Has0 counts zero as positive, Non0 drops labels of
    zero; acc7 and acc5 clip to [-3, 3] and [-2, 2] and round half to even; F1 is weighted by support."""
    predicted, label = predicted.astype(np.float64), label.astype(np.float64)
    nonzero = label != 0
    has0 = (label >= 0).astype(np.int64), (predicted >= 0).astype(np.int64)
    non0 = (label[nonzero] > 0).astype(np.int64), (predicted[nonzero] > 0).astype(np.int64)
    return {
        "mae": float(np.abs(predicted - label).mean()),
        "corr": correlation(predicted, label),
        "acc7": _rounded_accuracy(predicted, label, 3),
        "acc5": _rounded_accuracy(predicted, label, 2),
        "acc2_has0": _accuracy(*has0),
        "f1_has0": weighted_f1(*has0, 2),
        "acc2_non0": _accuracy(*non0),
        "f1_non0": weighted_f1(*non0, 2),
    }


def sims_metrics(predicted: Floats, label: Floats) -> dict[str, float]:
    """The measures of CH-SIMS. predicted, label: (N,), clipped to [-1, 1]. Two classes part at 0, three at -0.1 and
    0.1, five at -0.7 and 0.7 too, each border belonging to the class below it; F1 of the two is weighted by support."""
    predicted, label = predicted.astype(np.float64).clip(-1, 1), label.astype(np.float64).clip(-1, 1)
    classes = {2: (0.0,), 3: (-0.1, 0.1), 5: (-0.7, -0.1, 0.1, 0.7)}
    digitised = {
        n: (np.digitize(label, at, right=True), np.digitize(predicted, at, right=True)) for n, at in classes.items()
    }
    return {
        "mae": float(np.abs(predicted - label).mean()),
        "corr": correlation(predicted, label),
        **{f"acc{n}": _accuracy(*both) for n, both in digitised.items()},
        "f1": weighted_f1(*digitised[2], 2),
    }


def correlation(predicted: Floats, label: Floats) -> float:
    """Pearson's; 0 where one of them does not vary."""
    deviates = len(label) > 1 and predicted.std() > 0 and label.std() > 0
    return float(np.corrcoef(predicted, label)[0, 1]) if deviates else 0.0


def emotion_metrics(probabilities: Floats, label: Ints) -> dict[str, Any]:
    """Measures probabilities (N, C) by label (N,). The recall is the mean over the classes that occur."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), np.int64)  # label, predicted
    np.add.at(confusion, (label, predicted), 1)
    support = confusion.sum(axis=1)
    recall = confusion.diagonal()[support > 0] / support[support > 0]
    return {
        "accuracy": _accuracy(label, predicted),
        "unweighted_recall": float(recall.mean()),
        "weighted_f1": weighted_f1(label, predicted, classes),
        "ece": reliability(probabilities, label).calibration_error,
        "confusion": confusion.tolist(),
    }


def negative_log_likelihood(probabilities: Floats, label: Ints) -> float:
    """probabilities: (N, C), label: (N,). The mean over the samples; a probability counts as 1e-6 at least."""
    return float(-np.log(probabilities[np.arange(len(label)), label].clip(min=1e-6)).mean())


def weighted_f1(label: Ints, predicted: Ints, classes: int) -> float:
    """F1 of each class, averaged with the number of its labels as weight."""
    total = 0.0
    for c in range(classes):
        hits = int(((label == c) & (predicted == c)).sum())
        support, given = int((label == c).sum()), int((predicted == c).sum())
        if support + given:
            total += support * 2 * hits / (support + given)
    return total / max(len(label), 1)


class Reliability(NamedTuple):
    """Bins of confidence, (bins,): share of the windows, mean confidence, accuracy (NaN in empty bins)."""

    share: Floats
    confidence: Floats
    accuracy: Floats

    @property
    def calibration_error(self) -> float:
        return float(np.nansum(self.share * np.abs(self.confidence - self.accuracy)))


def reliability(probabilities: Floats, label: Ints, bins: int = 15) -> Reliability:
    """Sorts probabilities (N, C), with label (N,), into equal bins over [0, 1] (Guo et al. 2017)."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == label
    index = np.minimum((sure * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(index, weights=sure, minlength=bins) / count
        accuracy = np.bincount(index, weights=right, minlength=bins) / count
    return Reliability(count / max(len(label), 1), confidence, accuracy)


def _accuracy(label: Ints, predicted: Ints) -> float:
    return float((label == predicted).mean()) if len(label) else 0.0


def _rounded_accuracy(predicted: Floats, label: Floats, limit: int) -> float:
    return float((np.round(predicted.clip(-limit, limit)) == np.round(label.clip(-limit, limit))).mean())
