"""The product of what several runs say, each of one modality: the fusion that any other has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from training.data.items import Split
from training.errors import PredictionsInvalid
from training.evaluation.predict import Predictions, temperature_of
from training.evaluation.predictions import Said, joined


def product(runs: Sequence[Said]) -> Said:
    """Multiply the probabilities, divided by the classes' prior but for one, and calibrate them on validation.

    The prior is that of validation, with one more of each class. Raises PredictionsInvalid where the runs do not tell
    the emotions of the same utterances, in the same order.
    """
    first = runs[0]
    if not all(run.classes and run.ids == first.ids and (run.label == first.label).all() for run in runs):
        raise PredictionsInvalid("a product is of runs that tell the emotions of the same utterances, on the same fold")
    validation = first.of(Split.VALIDATION)
    if not validation.ids:
        raise PredictionsInvalid("a product is calibrated on validation, of which these runs tell nothing")
    count = np.bincount(validation.label.astype(np.int64), minlength=len(EMOTIONS)) + 1
    added = np.sum([np.log(run.said.clip(min=1e-6)) for run in runs], axis=0)
    scores = added - (len(runs) - 1) * np.log(count / count.sum())
    parts = {split: [i for i, own in enumerate(first.splits) if own is split] for split in Split}
    said = {split: _predictions(scores[at], first.label[at]) for split, at in parts.items()}
    temperature = temperature_of(said[Split.VALIDATION])
    return joined(
        [
            Said(part.ids, part.corpus, part.speakers, part.splits, part.label, said[split].probabilities(temperature))
            for split in (Split.VALIDATION, Split.TEST)
            if (part := first.of(split)).ids
        ]
    )


def _predictions(scores: NDArray[Any], label: NDArray[Any]) -> Predictions:
    unknown = np.full(len(label), np.nan)
    return Predictions(scores, unknown, label.astype(np.int64), unknown)
