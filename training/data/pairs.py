"""Faces and voices of the same takes, as `dhmd-train prepare ravdess-pairs` writes them, split by speaker.

The speakers are dealt into five folds of equal size in the order of their names. A fold is the test set, the last half
as many speakers before it (round the end) are validation, and all others train: fold 5 is RAVDESS's fixed split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import EMOTION
from training.data.arrays import read_arrays, refuse, standardised
from training.data.items import Split
from training.data.sequences import Sequences, Utterances

FOLDS: Final = 5
_SHAPES: Final = {
    **dict.fromkeys(("id", "speaker", "emotion"), ("U",)),
    **dict.fromkeys(("vision", "audio"), ("f", "steps", "width")),
}
_NUMBERS: Final = (Modality.VISION, Modality.AUDIO)


def read_pairs(path: Path, fold: int, baseline: Collection[Modality]) -> Sequences:
    """Features are standardised by the training speakers and clipped to +-5; there are no words.

    baseline: modalities from whose rows the mean over all clips of their speaker is taken away. It needs no label, but
    clips of the speaker to be recognised, of all emotions alike. Raises FeaturesInvalid.
    """
    arrays = _read(path)
    split = _splits(arrays["speaker"], fold)
    rows = {m: standardised(_rested(arrays, m, baseline), split == Split.TRAIN) for m in _NUMBERS}
    rows[Modality.TEXT] = np.zeros((len(split), 1, 1), np.float32)
    return Sequences(
        splits={s: _utterances(arrays, rows, np.flatnonzero(split == s)) for s in Split},
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        standardised=True,
    )


def _utterances(
    arrays: dict[str, NDArray[Any]], rows: dict[Modality, NDArray[np.float32]], chosen: NDArray[np.int64]
) -> Utterances:
    return Utterances(
        ids=tuple(arrays["id"][chosen].tolist()),
        inputs={m: rows[m][chosen] for m in Modality},
        masks={m: np.full(rows[m][chosen].shape[:2], m in _NUMBERS) for m in Modality},
        label=np.array([EMOTIONS.index(name) for name in arrays["emotion"][chosen]], np.int64),
        head=EMOTION,
        speakers=tuple(arrays["speaker"][chosen].tolist()),
    )


def _splits(speaker: NDArray[np.str_], fold: int) -> NDArray[np.str_]:
    """(N,) the split of each clip; fold: from 1."""
    names = np.unique(speaker)
    each = len(names) // FOLDS
    turned = np.roll(names, -(fold - 1) * each)
    split = np.where(np.isin(speaker, turned[:each]), str(Split.TEST), str(Split.TRAIN))
    return np.where(np.isin(speaker, turned[len(turned) - each // 2 :]), str(Split.VALIDATION), split)


def _rested(arrays: dict[str, NDArray[Any]], m: Modality, baseline: Collection[Modality]) -> NDArray[np.float64]:
    rows = arrays[m].astype(np.float64)
    if m in baseline:
        for name in np.unique(arrays["speaker"]):
            own = arrays["speaker"] == name
            rows[own] -= rows[own].mean(axis=0)
    return rows


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays, checked."""
    arrays = read_arrays(path, _SHAPES)
    unknown = sorted(set(arrays["emotion"].tolist()) - set(EMOTIONS))
    problems = [f"emotion: expected one of {', '.join(EMOTIONS)}, found {name!r}" for name in unknown[:1]]
    speakers = len(set(arrays["speaker"].tolist()))
    if speakers < 2 * FOLDS:
        problems.append(f"speaker: expected at least {2 * FOLDS} speakers, found {speakers}")
    refuse(path, problems)
    return arrays
