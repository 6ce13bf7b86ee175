"""Cross-validation of a fine-tuning: an accuracy of few test utterances would be chance, so all are tested in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from dhmd.checkpoint import load
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from training.config import FitConfig
from training.data.items import Example, Split
from training.evaluation.evaluate import predictions
from training.evaluation.predict import FEW
from training.evaluation.predictions import FOLDS, Said, joined, own_measures
from training.learning.device import first
from training.learning.fit import FitData, fit

COUNT: Final = 5


def worthwhile(config: FitConfig, examples: Sequence[Example]) -> bool:
    """Tells whether there are too few test utterances to measure by, and enough people or clips to take turns."""
    tested = sum(bool(example.rows) for example in examples if example.utterance.split is Split.TEST)
    return config.start is not None and tested < FEW and len({one.utterance.group for one in examples}) >= 2 * COUNT


def cross_validated(
    config: FitConfig,
    examples: Sequence[Example],
    specs: Mapping[Modality, FeatureSpec],
    manifests: Mapping[str, str],
    run: Path,
    encoders: Path,
) -> dict[str, dict[str, Any]]:
    """Fine-tune COUNT times, each without the groups of one fold, which is then tested, and measure all that was said
    before and after: {head: {"before": measures, "after": measures}}. The runs lie in `run`/folds.
    """
    groups = sorted({example.utterance.group for example in examples})
    order = np.random.default_rng(config.seed).permutation(len(groups))
    fold_of = {groups[at]: i % COUNT for i, at in enumerate(order)}
    said: dict[str, dict[str, list[Said]]] = defaultdict(lambda: {"before": [], "after": []})
    for fold in range(COUNT):
        if first():
            print(f"fold {fold + 1} of {COUNT}: too few utterances are of the split test, so all are tested in turn")
        turned = [replace(one, utterance=replace(one.utterance, split=_split(one, fold_of, fold))) for one in examples]
        begun = load(str(config.start))
        data = FitData.of(turned, specs, manifests)
        after = fit(config, data, run / FOLDS / str(fold + 1), encoders, begun)
        if not first():
            continue
        for when, checkpoint in (("before", load(str(config.start))), ("after", load(after))):
            for one in predictions(checkpoint, data.examples[Split.TEST]):
                said[one.head][when].append(one)
    if first():
        print("now the checkpoint itself, trained on the split train")
    return {
        head: {when: own_measures(joined(parts)) for when, parts in both.items() if parts}
        for head, both in said.items()
    }


def _split(example: Example, fold_of: Mapping[str, int], fold: int) -> Split:
    """The next fold validates."""
    own = fold_of[example.utterance.group]
    return Split.TEST if own == fold else Split.VALIDATION if own == (fold + 1) % COUNT else Split.TRAIN
