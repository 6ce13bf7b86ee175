"""What a run says of each utterance, as a table beside it: so that two runs can be compared utterance by utterance."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from training.data.items import Split
from training.errors import PredictionsInvalid

PREDICTIONS: Final = "predictions.csv"
_KEYS: Final = ("id", "corpus", "speaker", "split")


@dataclass(frozen=True, slots=True)
class Said:
    """N utterances. Either label (N,) is a class and said (N, 7) probabilities, or both are sentiment (N,)."""

    ids: tuple[str, ...]
    corpus: tuple[str, ...]
    speakers: tuple[str, ...]
    splits: tuple[Split, ...]
    label: NDArray[Any]
    said: NDArray[np.float64]

    @property
    def classes(self) -> bool:
        return self.said.ndim == 2

    def of(self, split: Split) -> Self:
        """Leaves only the utterances of that split."""
        chosen = [i for i, own in enumerate(self.splits) if own is split]
        return type(self)(
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
        writer.writerow((*_KEYS, *(("emotion", *EMOTIONS) if self.classes else ("sentiment", "said"))))
        for *keys, label, said in zip(
            self.ids, self.corpus, self.speakers, self.splits, self.label, self.said, strict=True
        ):
            name = EMOTIONS[int(label)] if self.classes else f"{float(label):.6g}"
            writer.writerow((*keys, name, *(f"{value:.6g}" for value in np.atleast_1d(said))))
        return table.getvalue()


def joined(parts: Sequence[Said]) -> Said:
    """The utterances of all, one after the other."""
    return Said(
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
            rows = list(csv.DictReader(file))
        classes = bool(rows) and "emotion" in rows[0]
        names = EMOTIONS if classes else ("said",)
        said = np.array([[float(row[name]) for name in names] for row in rows], np.float64)
        return Said(
            ids=tuple(row["id"] for row in rows),
            corpus=tuple(row["corpus"] for row in rows),
            speakers=tuple(row["speaker"] for row in rows),
            splits=tuple(Split(row["split"]) for row in rows),
            label=np.array([EMOTIONS.index(row["emotion"]) if classes else float(row["sentiment"]) for row in rows]),
            said=said if classes else said.reshape(-1),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PredictionsInvalid(f"{path}: not a table of predictions ({error!r}); give the folder of a run") from error
