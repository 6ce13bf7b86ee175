"""Published feature files of CMU-MOSI, CMU-MOSEI and CH-SIMS: `aligned_50.pkl`, `unaligned_50.pkl` and their kind.

A dict of train, valid and test, each with `id` (N), `text` (N, T, 768: of a BERT that stays as it is), `text_bert`
(N, 3, T: token ids, attention mask, segments), `audio` and `vision` (N, steps, width), `regression_labels` (N), and
where the modalities are not aligned to the words, `audio_lengths` and `vision_lengths` (N). Other keys are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.modality import Modality
from training.data import unpickle
from training.data.items import Split
from training.data.sequences import Sequences, Utterances
from training.errors import FeaturesInvalid

SPLITS: Final = {Split.TRAIN: "train", Split.VALIDATION: "valid", Split.TEST: "test"}
_LENGTHS: Final = {m: f"{m}_lengths" for m in (Modality.VISION, Modality.AUDIO)}


def read_published(path: Path, limit: float) -> Sequences:
    """Read such a file. limit: no label may be farther from zero (3 for CMU-MOSI and CMU-MOSEI, 1 for CH-SIMS).

    Raises PickleRefused, and FeaturesInvalid with one line for each thing that is wrong: which key, what was expected,
    what was found; NaN and infinite numbers by the sample they are in.
    """
    content = unpickle.load(path)
    problems: list[str] = []
    parts: dict[Split, _Part] = {}
    for split, name in SPLITS.items():
        part = content.get(name) if isinstance(content, dict) else None
        if isinstance(part, dict):
            parts[split] = _Part(name, part, limit)
            problems += parts[split].problems
        else:
            problems.append(f"{name}: expected a dict, found {_described(part)}")
    for key in Modality if not problems else ():
        widths = {part.name: part.arrays[key].shape[2] for part in parts.values()}
        if len(set(widths.values())) > 1:
            problems.append(f"{key}: expected one width, found {', '.join(f'{w} in {s}' for s, w in widths.items())}")
    if problems:
        raise FeaturesInvalid("\n".join(f"{path}: {problem}" for problem in problems))
    utterances = {split: part.utterances() for split, part in parts.items()}
    problems = [problem for part in parts.values() for problem in part.problems]
    if problems:
        raise FeaturesInvalid("\n".join(f"{path}: {problem}" for problem in problems))
    with path.open("rb") as file:
        return Sequences(utterances, hashlib.file_digest(file, "sha256").hexdigest(), standardised=False)


class _Part:
    """One split while it is being checked. What is wrong with it gathers in `problems`."""

    def __init__(self, name: str, content: Mapping[Any, Any], limit: float) -> None:
        self.name, self._content = name, content
        self.problems: list[str] = []
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.ids = self._read_ids()
        count = len(self.ids)
        for m in Modality:
            self._read(m, (count, None, None))
        self._read("text_bert", (count, 3, self._steps(Modality.TEXT)))
        self._read("regression_labels", (count,))
        self.aligned = not any(key in content for key in _LENGTHS.values())
        for m, key in _LENGTHS.items():
            if not self.aligned:
                self._read(key, (count,))
                self._check_range(key, 0, self._steps(m))
            elif m in self.arrays and (text := self._steps(Modality.TEXT)) and self._steps(m) != text:
                self._wrong(m, f"{text} steps as text has, or {key}", f"{self._steps(m)} steps and no {key}")
        self._check_range("regression_labels", -limit, limit)
        if "text_bert" in self.arrays and not np.isin(self.arrays["text_bert"][:, 1], (0, 1)).all():
            self._wrong("text_bert", "an attention mask of 0 and 1 in its second row", "other numbers")

    def utterances(self) -> Utterances:
        """The utterances as they were read, with masks."""
        attention = self.arrays["text_bert"][:, 1] > 0
        masks = {Modality.TEXT: attention}
        for m, key in _LENGTHS.items():
            filled = np.asarray((self.arrays[m] != 0).any(axis=2))
            masks[m] = _aligned(filled, attention) if self.aligned else self._unaligned(key, filled)
        return Utterances(
            ids=self.ids,
            inputs={m: self.arrays[m] for m in Modality},
            masks=masks,
            sentiment=self.arrays["regression_labels"],
        )

    def _unaligned(self, key: str, filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The first steps up to the length or, where a file is padded on the left, the last."""
        lengths, steps = self.arrays[key].astype(np.int64)[:, None], np.arange(filled.shape[1])
        first = steps < lengths
        last = steps >= filled.shape[1] - lengths
        left = np.asarray((filled & ~first).any(axis=1))
        wrong = left & (filled & ~last).any(axis=1)
        if wrong.any():
            worst = int(np.flatnonzero(wrong)[0])
            found = f"{int(filled[worst].sum())} steps that are not zero for a length of {int(lengths[worst, 0])}"
            self._wrong(key, "zeros beyond the length", f"{found} in sample {self.ids[worst]}")
        return np.where(left[:, None], last, first)

    def _read_ids(self) -> tuple[str, ...]:
        ids = self._content.get("id")
        named = ids.tolist() if isinstance(ids, np.ndarray) and ids.ndim == 1 else ids
        if isinstance(named, list) and named and all(isinstance(one, str) for one in named):
            return tuple(named)
        self._wrong("id", "names of the samples", _described(ids))
        return ()

    def _read(self, key: str, shape: tuple[int | None, ...]) -> None:
        """Take an array of numbers of that shape (None: any size from 1), all finite."""
        value = self._content.get(key)
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.empty(0, object)
        expected = f"numbers ({', '.join('any' if n is None else str(n) for n in shape)})"
        if not self.ids:
            return
        if array.dtype.kind not in "fiub" or array.ndim != len(shape) or not _fits(array.shape, shape):
            self._wrong(key, expected, _described(value))
            return
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32)
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        if len(bad):
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            self._wrong(key, "finite numbers", f"NaN or infinity in {', '.join(self.ids[i] for i in bad[:3])}{more}")
            return
        self.arrays[key] = array

    def _check_range(self, key: str, low: float, high: float | None) -> None:
        if key in self.arrays and high is not None:
            outside = np.flatnonzero((self.arrays[key] < low) | (self.arrays[key] > high))
            if len(outside):
                worst = int(outside[0])
                found = f"{self.arrays[key][worst]:g} in sample {self.ids[worst]}"
                self._wrong(key, f"numbers from {low:g} to {high:g}", found)

    def _steps(self, key: str) -> int | None:
        return self.arrays[key].shape[1] if key in self.arrays else None

    def _wrong(self, key: str, expected: str, found: str) -> None:
        shown = found if found.isprintable() else ascii(found)
        self.problems.append(f"{self.name}: {key}: expected {expected}, found {shown}")


def _aligned(filled: NDArray[np.bool_], attention: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The words' mask; where a file stands otherwise beside its words, the steps that are not zero."""
    beside = np.asarray((filled & ~attention).any(axis=1))
    return np.where(beside[:, None], filled, attention)


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return all(n > 0 if wanted is None else n == wanted for n, wanted in zip(found, expected, strict=True))


def _described(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} ({', '.join(map(str, value.shape))})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
