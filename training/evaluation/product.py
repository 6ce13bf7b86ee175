"""The product of what several runs say, each of one modality: the fusion that any other has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.data.items import Split
from training.errors import PredictionsInvalid
from training.evaluation.predict import softmax, temperature_of
from training.evaluation.predictions import Said, joined


def product(runs: Sequence[Said]) -> Said:
    """Multiply the probabilities, divided by the classes' prior but for one, and calibrate them on validation.

    The prior is that of validation, with one more of each class. Raises PredictionsInvalid where the runs do not tell
    the same classes of the same utterances, in the same order.
    """
    first = runs[0]
    alike = all((run.ids, run.classes) == (first.ids, first.classes) for run in runs)
    if not (first.classes and alike and all((run.label == first.label).all() for run in runs)):
        raise PredictionsInvalid("a product is of runs that tell the same classes of the same utterances and fold")
    validation = first.of(Split.VALIDATION)
    if not validation.ids:
        raise PredictionsInvalid("a product is calibrated on validation, of which these runs tell nothing")
    count = np.bincount(validation.label.astype(np.int64), minlength=len(first.classes)) + 1
    added = np.sum([np.log(run.said.clip(min=1e-6)) for run in runs], axis=0)
    scores = added - (len(runs) - 1) * np.log(count / count.sum())
    parts = {split: [i for i, own in enumerate(first.splits) if own is split] for split in Split}
    temperature = temperature_of(scores[parts[Split.VALIDATION]], validation.label)
    return joined(
        [
            replace(part, said=softmax(scores[parts[split]] / temperature))
            for split in (Split.VALIDATION, Split.TEST)
            if (part := first.of(split)).ids
        ]
    )
