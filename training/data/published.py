"""Published feature files of CMU-MOSI, CMU-MOSEI, CH-SIMS, UR-FUNNY and MUStARD: `aligned_50.pkl` and their kind.

A dict of train, valid and test, each with `id` (N), `text` (N, T, width: of a language encoder that stays as it is),
`audio` and `vision` (N, steps, width), and labels: `regression_labels`, `classification_labels` or `labels`, of which
the configuration says the kind. Where they are there, too, `text_bert` (N, 3, T: token ids, attention mask, segments)
says where the words stand, `audio_lengths` and `vision_lengths` (N) where the others do, and `context_text`,
`context_audio` and `context_vision` (N, turns, steps, width) what was said before. Other keys are not read.

Numbers are of any type, and arrays may be lists, or arrays of objects. Steps that nobody tells of stand from the first
to the last that is not zero.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.modality import Modality
from dhmd.model import Head
from training.data import unpickle
from training.data.items import Split
from training.data.sequences import Sequences, Utterances
from training.errors import FeaturesInvalid

VIDEO_END: Final = "$_$"
"""Between the video and the rest in the name of an utterance, as the field's files have it."""
SPLITS: Final = {Split.TRAIN: "train", Split.VALIDATION: "valid", Split.TEST: "test"}
_LENGTHS: Final = {m: f"{m}_lengths" for m in (Modality.VISION, Modality.AUDIO)}
_CONTEXT: Final = {m: f"context_{m}" for m in Modality}
_LABELS: Final = {
    "regression": ("regression_labels", "labels"),
    "classification": ("classification_labels", "labels"),
}
"""The first of them that is there, by the kind of the head."""
_MADE_FINITE: Final = (*_LENGTHS, *(_CONTEXT[m] for m in _LENGTHS))
"""What the trackers of sound and faces left infinite counts as 0, as in the field's own loaders."""


def read_published(path: Path, head: Head, *, tokens: bool = False) -> Sequences:
    """Read such a file, with labels for that head: a number from `low` to `high`, or a class, counted from 0. Of two
    classes they may also be -1 and 1.

    tokens: the words are (N, T, 3) the token ids, attention mask and segments of `text_bert`, in place of `text`.
    Raises PickleRefused, and FeaturesInvalid with one line for each thing that is wrong: which key, what was expected,
    what was found; NaN and infinite numbers of words and labels by the sample they are in.
    """
    content = unpickle.load(path)
    problems: list[str] = []
    parts: dict[Split, _Part] = {}
    for split, name in SPLITS.items():
        part = content.get(name) if isinstance(content, dict) else None
        if isinstance(part, dict):
            parts[split] = _Part(name, part, head, tokens=tokens)
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
    notes = [f"{path}: {note}" for note in _notes(list(parts.values()))]
    with path.open("rb") as file:
        return Sequences(
            utterances, hashlib.file_digest(file, "sha256").hexdigest(), standardised=False, notes=tuple(notes)
        )


def _notes(parts: Sequence[_Part]) -> list[str]:
    """What was assumed, in a line each."""
    notes = []
    for key in _MADE_FINITE:
        numbers, samples = (sum(part.infinite.get(key, (0, 0))[i] for part in parts) for i in range(2))
        if numbers:
            notes.append(f"numbers of {key} that are NaN or infinite count as 0: {numbers}, utterances: {samples}")
    return notes


class _Part:
    """One split while it is being checked. What is wrong with it gathers in `problems`.

    infinite: by key, the numbers that were not finite, and the samples they were in.
    """

    def __init__(self, name: str, content: Mapping[Any, Any], head: Head, *, tokens: bool) -> None:
        self.name, self._content, self._head, self._tokens = name, content, head, tokens
        self.problems: list[str] = []
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.infinite: dict[str, tuple[int, int]] = {}
        self.ids = self._read_ids()
        count = len(self.ids)
        for m in _LENGTHS if tokens else Modality:
            self._read(m, (count, None, None))
        if tokens and "text_bert" not in content:
            self._wrong(
                "text_bert", "token ids, mask and segments for `text: finetune` (else --set text=fixed)", "nothing"
            )
        elif "text_bert" in content:
            self._read("text_bert", (count, 3, self._steps(Modality.TEXT)))
        if tokens and "text_bert" in self.arrays:
            self.arrays[Modality.TEXT] = np.ascontiguousarray(self.arrays["text_bert"].transpose(0, 2, 1))
        self._labels = next((key for key in _LABELS[head.kind] if key in content), _LABELS[head.kind][0])
        self._read(self._labels, (count,))
        self._check_labels()
        for m, key in _LENGTHS.items():
            if any(other in content for other in _LENGTHS.values()):
                self._read(key, (count,))
                self._check_range(key, 0, self._steps(m))
        for m, key in _CONTEXT.items():
            if m in self.arrays and not tokens and any(other in content for other in _CONTEXT.values()):
                self._read(key, (count, None, None, self.arrays[m].shape[2]))
        if "text_bert" in self.arrays and not np.isin(self.arrays["text_bert"][:, 1], (0, 1)).all():
            self._wrong("text_bert", "an attention mask of 0 and 1 in its second row", "other numbers")

    def utterances(self) -> Utterances:
        """The utterances as they were read, with masks."""
        words = self.arrays["text_bert"][:, 1] > 0 if "text_bert" in self.arrays else None
        text = _span(self.arrays[Modality.TEXT]) if words is None else words
        inputs, masks = {}, {}
        for m in Modality:
            filled = np.asarray((self.arrays[m] != 0).any(axis=2))
            if m is Modality.TEXT:
                mask = text
            elif (key := _LENGTHS[m]) in self.arrays:
                mask = self._unaligned(key, filled)
            else:
                alike = filled.shape == text.shape
                mask = _aligned(filled, text) if alike else _span(self.arrays[m])
            inputs[m], masks[m] = self._in_context(m, mask)
        label = self.arrays[self._labels]
        classes = self._head.kind == "classification"
        return Utterances(
            ids=self.ids,
            inputs=inputs,
            masks=masks,
            label=np.maximum(label, 0).astype(np.int64) if classes else label,
            head=self._head,
        )

    def _in_context(self, m: Modality, mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The steps of the turns before, then those of the utterance, and where any stand."""
        own, before = self.arrays[m], self.arrays.get(_CONTEXT[m])
        if before is None:
            return own, mask
        turns = before.reshape(len(before), -1, before.shape[3])
        standing = np.asarray((turns != 0).any(axis=2))
        return np.concatenate([turns, own], axis=1), np.concatenate([standing, mask], axis=1)

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
        """Names of the samples; where a file gives several parts of a name, joined; told apart where they repeat."""
        ids = self._content.get("id")
        named = ids.tolist() if isinstance(ids, np.ndarray) and 1 <= ids.ndim <= 2 else ids
        names = [_name(one) for one in named] if isinstance(named, list) else []
        if not names or not all(names):
            self._wrong("id", "names of the samples", _described(ids))
            return ()
        met: Counter[str] = Counter()
        for i, name in enumerate(names):
            met[name] += 1
            if met[name] > 1:
                names[i] = f"{name}#{met[name]}"
        return tuple(names)

    def _read(self, key: str, shape: tuple[int | None, ...]) -> None:
        """Take an array of numbers of that shape (None: any size from 1), all finite."""
        value = self._content.get(key)
        array = _array(value)
        expected = f"numbers ({', '.join('any' if n is None else str(n) for n in shape)})"
        if not self.ids:
            return
        if len(shape) == 1 and array.ndim > 1 and array.shape[1:] == (1,) * (array.ndim - 1):
            array = array.reshape(-1)
        if array.dtype.kind not in "fiub" or array.ndim != len(shape) or not _fits(array.shape, shape):
            self._wrong(key, expected, _described(value))
            return
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32)
        faulty = ~np.isfinite(array)
        bad = np.flatnonzero(faulty.reshape(len(array), -1).any(axis=1))
        if len(bad) and key in _MADE_FINITE:
            self.infinite[key] = int(faulty.sum()), len(bad)
            array = np.where(faulty, np.float32(0), array)
        elif len(bad):
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            self._wrong(key, "finite numbers", f"NaN or infinity in {', '.join(self.ids[i] for i in bad[:3])}{more}")
            return
        self.arrays[key] = array

    def _check_labels(self) -> None:
        label, head = self.arrays.get(self._labels), self._head
        if label is None:
            return
        if head.kind == "regression":
            self._check_range(self._labels, head.low or 0.0, head.high)
            return
        known = (-1, 1) if head.size == 2 and (label < 0).any() else tuple(range(head.size))
        if (odd := np.flatnonzero(~np.isin(label, known))).size:
            found = f"{label[odd[0]]:g} in sample {self.ids[int(odd[0])]}"
            self._wrong(self._labels, f"one of {', '.join(map(str, known))}", found)

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


def _name(one: object) -> str:
    """The name of a sample, "" where it is none. Lists of several parts are a video and what tells its utterances
    apart."""
    if isinstance(one, bytes):
        return one.decode("utf-8", "replace")
    if isinstance(one, np.ndarray):
        one = one.tolist()
    if isinstance(one, list | tuple):
        first, *others = map(_name, one) if one else [""]
        return f"{first}{VIDEO_END}{'_'.join(others)}" if others else first
    return str(one) if isinstance(one, str | int | float) and not isinstance(one, bool) else ""


def _array(value: object) -> NDArray[Any]:
    """What was read as one array; samples of unequal length are filled up with steps of zeros."""
    try:
        return np.asarray(value)
    except ValueError:
        pass
    rows = [np.asarray(one) for one in value] if isinstance(value, list) and _arrays(value) else []
    if not rows or len({row.shape[1] for row in rows}) > 1:
        return np.empty(0, object)
    filled = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), np.float32)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
    return filled


def _arrays(value: list[Any]) -> bool:
    return all(isinstance(one, np.ndarray) and one.ndim == 2 and one.dtype.kind in "fiub" for one in value)


def _span(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N, steps) from the first to the last step that is not zero."""
    filled = np.asarray((rows != 0).any(axis=2))
    since = np.maximum.accumulate(filled, axis=1)
    until = np.maximum.accumulate(filled[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(since & until)


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
