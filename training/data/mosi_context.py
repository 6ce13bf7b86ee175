"""CMU-MOSI in context: each utterance with those of its video before it, one feature vector an utterance.

A file of arrays with one row an utterance: `id` (VIDEO_NUMBER), `label` in [-3, 3], `bc_split` (train or test, by
video), and `text`, `video`, `audio` (N, width). `bc_split` is the only valid split: the text and video vectors come
from networks that were trained on its training labels. For the same reason validation videos, which are taken out of
the training videos, look far too easy.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.modality import Modality
from training.data.arrays import read_arrays, refuse, standardised
from training.data.items import Split
from training.data.sequences import Sequences, Utterances

STEPS: Final = 50
"""Utterances in a sequence; the last is the one whose sentiment is asked for."""

VALIDATION_VIDEOS: Final = 10
_KEYS: Final = {Modality.TEXT: "text", Modality.VISION: "video", Modality.AUDIO: "audio"}
_SHAPES: Final = {"id": ("U",), "label": ("f",), "bc_split": ("U",), **dict.fromkeys(_KEYS.values(), ("f", "width"))}


def read_mosi_context(path: Path) -> Sequences:
    """Sequences are left-padded with zeros and masked; features are standardised by the utterances of the training
    videos, without those of validation, and clipped to +-5. Raises FeaturesInvalid."""
    arrays = _read(path)
    ids = [str(one) for one in arrays["id"]]
    video = np.array([one.rpartition("_")[0] for one in ids])
    number = np.array([int(one.rpartition("_")[2]) for one in ids])
    split = _splits(video, arrays["bc_split"])
    training = split == Split.TRAIN
    rows = {m: standardised(arrays[key].astype(np.float64), training) for m, key in _KEYS.items()}

    order = np.lexsort((number, video))
    position = np.full((len(ids), STEPS), -1)  # which utterance stands at each step
    for name in np.unique(video):
        own = order[video[order] == name]
        for i, utterance in enumerate(own):
            seen = own[max(0, i + 1 - STEPS) : i + 1]
            position[utterance, STEPS - len(seen) :] = seen

    def utterances(chosen: NDArray[np.int64]) -> Utterances:
        mask = position[chosen] >= 0
        return Utterances(
            ids=tuple(ids[i] for i in chosen),
            inputs={m: x[position[chosen]] * mask[..., None] for m, x in rows.items()},
            masks=dict.fromkeys(Modality, mask),
            label=arrays["label"][chosen].astype(np.float32),
        )

    return Sequences(
        splits={s: utterances(order[split[order] == s]) for s in Split},
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        standardised=True,
    )


def _splits(video: NDArray[np.str_], bc_split: NDArray[np.str_]) -> NDArray[np.str_]:
    """(N,) the split of each utterance; the validation videos are drawn from those of training with seed 0."""
    candidates = sorted(set(video[bc_split == "train"].tolist()))
    held_out = np.random.default_rng(0).choice(candidates, VALIDATION_VIDEOS, replace=False)
    split = np.where(bc_split == "train", str(Split.TRAIN), str(Split.TEST))
    return np.where(np.isin(video, held_out), str(Split.VALIDATION), split)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays, checked."""
    arrays = read_arrays(path, _SHAPES)
    wrong = [one for one in arrays["id"].tolist() if not one.rpartition("_")[2].isdecimal()]
    problems = [f"id: expected VIDEO_NUMBER, found {one!r}" for one in wrong[:1]]
    videos = {one.rpartition("_")[0] for one in arrays["id"][arrays["bc_split"] == "train"].tolist()}
    if len(videos) <= VALIDATION_VIDEOS:
        problems.append(f"bc_split: expected more than {VALIDATION_VIDEOS} videos in train, found {len(videos)}")
    refuse(path, problems)
    return arrays
