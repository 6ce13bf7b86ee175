"""Archives of feature arrays: read, checked key by key, and standardised by the training samples."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import FeaturesInvalid

CLIP: Final = 5.0
"""Standard deviations beyond which a feature is clipped."""
_KINDS: Final = {"U": "text", "f": "numbers", "b": "true or false"}


def read_arrays(path: Path, shapes: Mapping[str, tuple[str, ...]]) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz, of N samples each and all finite.

    shapes: by key, "U" for text, "f" for numbers or "b" for truth, then what the dimensions after the first are called.
    `id` names the samples. Raises FeaturesInvalid with one line for each thing that is wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in shapes if key in file}
    except OSError as error:
        raise FeaturesInvalid(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (AttributeError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise FeaturesInvalid(f"{path}: expected an .npz of plain arrays ({error})") from None
    problems: list[str] = []
    count = len(arrays["id"]) if "id" in arrays and arrays["id"].ndim == 1 else 0
    for key, (kind, *dimensions) in shapes.items():
        array = arrays.get(key)
        if array is None:
            problems.append(f"{key}: expected an array, found nothing")
        elif array.dtype.kind != kind or array.ndim != 1 + len(dimensions) or len(array) != count:
            expected = f"{_KINDS[kind]} ({', '.join([str(count), *dimensions])})"
            problems.append(f"{key}: expected {expected}, found {array.dtype.name} {array.shape}")
        elif kind == "f" and not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array.reshape(count, -1)).all(axis=1))[0])
            problems.append(f"{key}: expected finite numbers, found NaN or infinity in {arrays['id'][bad]}")
    refuse(path, problems)
    return arrays


def refuse(path: Path, problems: list[str]) -> None:
    """Raise FeaturesInvalid with these, if there are any."""
    if problems:
        raise FeaturesInvalid("\n".join(f"{path}: {problem}" for problem in problems))


def standardised(rows: NDArray[np.float64], training: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows by the mean and deviation of those in `training`, (N,), clipped to +-CLIP. One that never varies is 0."""
    mean, deviation = rows[training].mean(axis=0), rows[training].std(axis=0)
    scaled = np.where(deviation > 0, (rows - mean) / np.where(deviation > 0, deviation, 1), 0)
    return scaled.clip(-CLIP, CLIP).astype(np.float32)
