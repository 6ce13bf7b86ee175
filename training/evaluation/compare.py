"""The difference of two methods on the same utterances, with its paired bootstrap over clips and over speakers.

Each method may be several runs, such as seeds: a measure is the mean over its runs. What is drawn anew are the
utterances, or the speakers with all of theirs; the runs are taken as they are.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.model import SENTIMENT
from training.data.items import Split
from training.errors import PredictionsInvalid
from training.evaluation.predictions import FOLDS, PREDICTIONS, Said, read_said

Floats = NDArray[np.float64]
Measure = Callable[[Floats], Floats]
"""(R, N) weights of the utterances in R draws -> (R,) the measure in each."""

_DRAWN: Final = ("clips", "speakers")
LEVEL: Final = 0.95
FEW_SPEAKERS: Final = 10
_LEAST: Final = 1e-6
"""Probability below which a label does not count as less likely still: as small as a table tells it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """a, b: the measure on all utterances. By what was drawn: low, high: 95 % interval of a - b; p: two-sided."""

    a: float
    b: float
    low: dict[str, float]
    high: dict[str, float]
    p: dict[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """measures: by name. utterances, speakers: that both sides tell of. runs: of a and of b."""

    measures: dict[str, Difference]
    utterances: int
    speakers: int
    runs: tuple[int, int]

    def __str__(self) -> str:
        lines = [
            f"{self.utterances} utterances of {self.speakers} speakers; runs: {self.runs[0]} of A, {self.runs[1]} of B",
            f"{'measure':<20}{'A':>9}{'B':>9}{'A - B':>9}"
            + "".join(f"  {f'95 % over {by}':<20}{'p':>7}" for by in _DRAWN),
        ]
        for name, one in self.measures.items():
            parts = [f"{name:<20}{one.a:>9.4f}{one.b:>9.4f}{one.a - one.b:>+9.4f}"]
            parts += [f"{f'{one.low[by]:+.4f} to {one.high[by]:+.4f}':<20}{one.p[by]:>7.4f}" for by in _DRAWN]
            lines.append("  ".join(parts))
        if self.speakers < FEW_SPEAKERS:
            lines.append(f"With {self.speakers} speakers the interval over speakers is rough, and mostly too narrow.")
        return "\n".join(lines)


def find_runs(where: str) -> list[Said]:
    """The tables of predictions at a path or a glob: a file, or all below a folder, without those of the runs by which
    a run cross-validated. Raises PredictionsInvalid."""
    paths = sorted(Path(one) for one in glob.glob(where, recursive=True))  # noqa: PTH207, `where` may be absolute
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob(PREDICTIONS)))
        if path.is_file() or FOLDS not in file.relative_to(path).parts
    ]
    if not files:
        others = [own for path in paths for own in sorted(path.glob(f"{Path(PREDICTIONS).stem}-*.csv"))]
        raise PredictionsInvalid(
            f"no {PREDICTIONS} at {where}: give the folder of a run, or a glob of several in quotes"
            + (f"; tables of other labels by their name, such as {others[0]}" if others else "")
        )
    return [read_said(file) for file in files]


def compare(a: Sequence[Said], b: Sequence[Said], split: Split, draws: int = 10_000, seed: int = 0) -> Comparison:
    """Compare on the utterances of the split. Raises PredictionsInvalid where the sides tell of different ones."""
    sides = [[run.of(split) for run in side] for side in (a, b)]
    known: list[dict[str, tuple[str, float]]] = []
    for side in sides:
        of = {
            one: (speaker, float(label))
            for run in side
            for one, speaker, label in zip(run.ids, run.speakers, run.label, strict=True)
        }
        known.append(of)
    if not known[0]:
        raise PredictionsInvalid(f"A has no utterance of the split {split}")
    if known[0] != known[1]:
        same = sum(known[1].get(one) == what for one, what in known[0].items())
        raise PredictionsInvalid(
            f"A and B do not tell of the same utterances: {len(known[0])} and {len(known[1])}, "
            f"{same} the same; compare runs on the same data"
        )
    if len({(run.head, run.classes) for side in sides for run in side}) > 1:
        told = " and ".join(sorted({run.head for side in sides for run in side}))
        raise PredictionsInvalid(f"the runs do not tell the same ({told}): they have no measure in common")
    place = {one: i for i, one in enumerate(known[0])}
    speaker = np.unique([who for who, _ in known[0].values()], return_inverse=True)[1]
    label = np.array([value for _, value in known[0].values()])
    measures = [_measures(side, place, label) for side in sides]
    random = np.random.default_rng(seed)
    weights = {
        "clips": random.multinomial(len(place), np.full(len(place), 1 / len(place)), draws).astype(np.float64),
        "speakers": random.multinomial(n := int(speaker.max()) + 1, np.full(n, 1 / n), draws)[:, speaker].astype(float),
    }
    return Comparison(
        {name: _difference(measures[0][name], measures[1][name], weights, len(place)) for name in measures[0]},
        len(place),
        int(speaker.max()) + 1,
        (len(a), len(b)),
    )


def _difference(a: Measure, b: Measure, weights: dict[str, Floats], count: int) -> Difference:
    low, high, p = {}, {}, {}
    for by, drawn in weights.items():
        found = a(drawn) - b(drawn)
        found = found[np.isfinite(found)]
        edges = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low[by], high[by] = float(edges[0]), float(edges[1])
        # Half of those without a difference on either side; one more, as no number of draws shows that p is 0.
        beyond = min((found < 0).sum(), (found > 0).sum()) + (found == 0).sum() / 2
        p[by] = float(min(1.0, 2 * (beyond + 1) / (len(found) + 1)))
    whole = np.ones((1, count))
    return Difference(float(a(whole)[0]), float(b(whole)[0]), low, high, p)


def _measures(runs: Sequence[Said], place: dict[str, int], label: Floats) -> dict[str, Measure]:
    """Measures of what several runs say: of each utterance the mean over the runs that tell of it."""
    if runs[0].classes:
        right = _mean(runs, place, [(run.said.argmax(axis=1) == run.label).astype(np.float64) for run in runs])
        likely = [run.said[np.arange(len(run.label)), run.label.astype(np.int64)] for run in runs]
        loss = _mean(runs, place, [-np.log(one.clip(min=_LEAST)) for one in likely])
        masks = [label == c for c in np.unique(label)]
        return {
            "accuracy": lambda w: w @ right / w.sum(axis=1),
            "unweighted recall": lambda w: _recall(w, right, masks),
            "NLL": lambda w: w @ loss / w.sum(axis=1),
        }
    error = _mean(runs, place, [np.abs(run.said - run.label) for run in runs])
    at = [np.array([place[one] for one in run.ids]) for run in runs]
    measures: dict[str, Measure] = {"MAE": lambda w: w @ error / w.sum(axis=1)}
    if runs[0].head == SENTIMENT.name:  # whose sign means something
        signed = label != 0
        agreed = _mean(runs, place, [((run.said > 0) == (run.label > 0)).astype(np.float64) for run in runs])[signed]
        measures["Acc2 without zeros"] = lambda w: _share(w[:, signed], agreed)
    measures["Corr"] = lambda w: np.mean(
        [_correlation(w[:, i], run.said, run.label) for i, run in zip(at, runs, strict=True)], axis=0
    )
    return measures


def _mean(runs: Sequence[Said], place: dict[str, int], values: Sequence[Floats]) -> Floats:
    total, count = np.zeros(len(place)), np.zeros(len(place))
    for run, value in zip(runs, values, strict=True):
        at = [place[one] for one in run.ids]
        total[at] += value
        count[at] += 1
    return total / count


def _share(weights: Floats, right: Floats) -> Floats:
    """Mean of what was drawn; NaN in a draw of nothing."""
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ right / weights.sum(axis=1), np.float64)


def _recall(weights: Floats, right: Floats, masks: Sequence[NDArray[np.bool_]]) -> Floats:
    """Mean of the classes' recalls, over those that were drawn."""
    support = np.stack([weights[:, mask].sum(axis=1) for mask in masks])
    hits = np.stack([weights[:, mask] @ right[mask] for mask in masks])
    there = support > 0
    return np.asarray((hits / np.where(there, support, 1)).sum(axis=0) / there.sum(axis=0), np.float64)


def _correlation(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Pearson's, in each draw; NaN where one does not vary."""
    share = weights / weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = share @ x, share @ y
    covariance = share @ (x * y) - mean_x * mean_y
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(covariance / np.sqrt((share @ x**2 - mean_x**2) * (share @ y**2 - mean_y**2)), np.float64)
