"""Faces and voices of the same takes, as `dhmd-train prepare ravdess-pairs` writes them, split by speaker.

The speakers are dealt into five folds of equal size in the order of their names. A fold is the test set, the last half
as many speakers before it (round the end) are validation, and all others train: fold 5 is RAVDESS's fixed split.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.items import Split
from training.data.sequences import Sequences, Utterances
from training.errors import FeaturesInvalid

FOLDS: Final = 5
CLIP: Final = 5.0
_SHAPES: Final = {"id": 1, "speaker": 1, "emotion": 1, "vision": 3, "audio": 3}
_NUMBERS: Final = (Modality.VISION, Modality.AUDIO)


def read_pairs(path: Path, fold: int, baseline: Collection[Modality]) -> Sequences:
    """Features are standardised by the training speakers and clipped to +-5; there are no words.

    baseline: modalities from whose rows the mean over all clips of their speaker is taken away. It needs no label, but
    clips of the speaker to be recognised, of all emotions alike. Raises FeaturesInvalid.
    """
    arrays = _read(path)
    split = _splits(arrays["speaker"], fold)
    rows = {m: _standardised(_rested(arrays, m, baseline), split == Split.TRAIN) for m in _NUMBERS}
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
        sentiment=np.full(len(chosen), np.nan, np.float32),
        emotion=np.array([EMOTIONS.index(name) for name in arrays["emotion"][chosen]], np.int64),
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


def _standardised(rows: NDArray[np.float64], training: NDArray[np.bool_]) -> NDArray[np.float32]:
    mean, deviation = rows[training].mean(axis=0), rows[training].std(axis=0)
    # A feature that never varies says nothing.
    scaled = np.where(deviation > 0, (rows - mean) / np.where(deviation > 0, deviation, 1), 0)
    return scaled.clip(-CLIP, CLIP).astype(np.float32)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays, checked."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in _SHAPES if key in file}
    except OSError as error:
        raise FeaturesInvalid(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (AttributeError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise FeaturesInvalid(f"{path}: expected an .npz of plain arrays ({error})") from None
    problems: list[str] = []
    count = len(arrays["id"]) if "id" in arrays and arrays["id"].ndim == 1 else 0
    for key, dimensions in _SHAPES.items():
        array, kind = arrays.get(key), "f" if dimensions > 1 else "U"
        if array is None:
            problems.append(f"{key}: expected an array, found nothing")
        elif array.dtype.kind != kind or array.ndim != dimensions or len(array) != count:
            expected = f"{'numbers' if kind == 'f' else 'text'} of {dimensions} dimensions and {count} rows"
            problems.append(f"{key}: expected {expected}, found {array.dtype.name} {array.shape}")
        elif kind == "f" and not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array.reshape(count, -1)).all(axis=1))[0])
            problems.append(f"{key}: expected finite numbers, found NaN or infinity in {arrays['id'][bad]}")
    if not problems:
        unknown = sorted(set(arrays["emotion"].tolist()) - set(EMOTIONS))
        problems += [f"emotion: expected one of {', '.join(EMOTIONS)}, found {name!r}" for name in unknown[:1]]
        speakers = len(set(arrays["speaker"].tolist()))
        if speakers < 2 * FOLDS:
            problems.append(f"speaker: expected at least {2 * FOLDS} speakers, found {speakers}")
    if problems:
        raise FeaturesInvalid("\n".join(f"{path}: {problem}" for problem in problems))
    return arrays
