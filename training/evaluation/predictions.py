"""What a run says of each utterance, as a table beside it: so that two runs can be compared utterance by utterance."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.model import SENTIMENT
from training.data.items import Split
from training.errors import PredictionsInvalid
from training.evaluation.metrics import (
    correlation,
    emotion_metrics,
    negative_log_likelihood,
    sentiment_metrics,
    sims_metrics,
)

PREDICTIONS: Final = "predictions.csv"
FOLDS: Final = "folds"
"""Folder in that of a run, with the runs by which it cross-validated."""
_KEYS: Final = ("id", "corpus", "speaker", "split")
_NUMBER: Final = "said"
"""Column of what is said, where it is a number."""


@dataclass(frozen=True, slots=True)
class Said:
    """N utterances. Either label (N,) is a class and said (N, classes) probabilities, or both are numbers (N,).

    head: what is told of them, `emotion` or `sentiment` for instance. classes: their names; empty for numbers.
    """

    ids: tuple[str, ...]
    corpus: tuple[str, ...]
    speakers: tuple[str, ...]
    splits: tuple[Split, ...]
    label: NDArray[Any]
    said: NDArray[np.float64]
    head: str = SENTIMENT.name
    classes: tuple[str, ...] = ()

    def of(self, split: Split) -> Self:
        """Leaves only the utterances of that split."""
        chosen = [i for i, own in enumerate(self.splits) if own is split]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            corpus=tuple(self.corpus[i] for i in chosen),
            speakers=tuple(self.speakers[i] for i in chosen),
            splits=tuple(self.splits[i] for i in chosen),
            label=self.label[chosen],
            said=self.said[chosen],
        )

    def text(self) -> str:
        """The table as CSV."""
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow((*_KEYS, self.head, *(self.classes or (_NUMBER,))))
        for *keys, label, said in zip(
            self.ids, self.corpus, self.speakers, self.splits, self.label, self.said, strict=True
        ):
            name = self.classes[int(label)] if self.classes else f"{float(label):.6g}"
            writer.writerow((*keys, name, *(f"{value:.6g}" for value in np.atleast_1d(said))))
        return table.getvalue()


def measures(said: Said, limit: int = 3) -> dict[str, Any]:
    """The field's measures: of classes, of sentiment for labels in [-limit, limit], or of numbers of one's own."""
    if said.classes:
        label = said.label.astype(np.int64)
        return {"nll": negative_log_likelihood(said.said, label), **emotion_metrics(said.said, label)}
    if said.head == SENTIMENT.name:
        return dict((sims_metrics if limit == 1 else sentiment_metrics)(said.said, said.label))
    error = float(np.abs(said.said - said.label).mean())
    return {"mae": error, "corr": correlation(said.said, said.label)}


def own_measures(said: Said) -> dict[str, Any]:
    """The same beside their number, n, and the names of the classes."""
    return {"n": len(said.ids), **({"classes": list(said.classes)} if said.classes else {}), **measures(said)}


def joined(parts: Sequence[Said]) -> Said:
    """The utterances of all, one after the other."""
    return replace(
        parts[0],
        ids=tuple(one for part in parts for one in part.ids),
        corpus=tuple(one for part in parts for one in part.corpus),
        speakers=tuple(one for part in parts for one in part.speakers),
        splits=tuple(one for part in parts for one in part.splits),
        label=np.concatenate([part.label for part in parts]),
        said=np.concatenate([part.said for part in parts]),
    )


def read_said(path: Path) -> Said:
    """Raises PredictionsInvalid."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            head, *names = (reader.fieldnames or ())[len(_KEYS) :]
        classes = () if names == [_NUMBER] else tuple(names)
        said = np.array([[float(row[name]) for name in names] for row in rows], np.float64)
        return Said(
            ids=tuple(row["id"] for row in rows),
            corpus=tuple(row["corpus"] for row in rows),
            speakers=tuple(row["speaker"] for row in rows),
            splits=tuple(Split(row["split"]) for row in rows),
            label=np.array([classes.index(row[head]) if classes else float(row[head]) for row in rows]),
            said=said if classes else said.reshape(-1),
            head=head,
            classes=classes,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PredictionsInvalid(f"{path}: not a table of predictions ({error!r}); give the folder of a run") from error
