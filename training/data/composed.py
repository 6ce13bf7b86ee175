"""Composed windows as one file of features, the same for every method that is compared on them.

The windows hold all three modalities, of strangers who show the same emotion; see `training.data.compose`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import EMOTION
from training.data.arrays import read_arrays, refuse
from training.data.compose import Composer, Composition, Sample, statistics
from training.data.items import Example, Split
from training.data.sequences import Sequences, Utterances
from training.errors import TooLittleData

MEASURED_PER_CLASS: Final = {Split.VALIDATION: 100, Split.TEST: 200}

_ALL: Final = frozenset(Modality)
_COMPOSITION: Final = Composition(subsets={subset_name(_ALL): 1.0}, balance=1.0, native_share=0.0, sentiment_share=0.0)
_MASK: Final = "{}_mask"
_SHAPES: Final = {
    **dict.fromkeys(("id", "speaker", "split", "emotion"), ("U",)),
    **{str(m): ("f", "steps", "width") for m in Modality},
    **{_MASK.format(m): ("b", "steps") for m in Modality},
}


def write_composed(
    examples: Sequence[Example], specs: Mapping[Modality, FeatureSpec], count: int, seed: int, path: Path
) -> None:
    """Compose `count` windows to learn from, varied as in training, and MEASURED_PER_CLASS as they were recorded.

    Its arrays have one row a window: `id`, `speaker` (of the voice), `split`, `emotion`, and by modality the features
    (N, steps, width) in half precision and which steps hold any, `MODALITY_mask`. Raises TooLittleData.
    """
    by_split = {split: [e for e in examples if e.utterance.split is split and e.utterance.emotion] for split in Split}
    scale = {m: deviation for m, (_, deviation) in statistics(by_split[Split.TRAIN], specs).items()}
    speakers = {example.utterance.id: example.utterance.group for example in examples}
    samples: list[tuple[Split, Sample]] = []
    for split, own in by_split.items():
        composer = Composer(own, specs, scale, _COMPOSITION, seed)
        if not composer.classes(_ALL):
            raise TooLittleData(f"no emotion of the split {split} is labelled in words, a face and a voice")
        drawn = composer.fixed(_ALL, MEASURED_PER_CLASS[split]) if split in MEASURED_PER_CLASS else None
        samples += [(split, sample) for sample in drawn or (composer.sample(0, i) for i in range(count))]
    arrays: dict[str, NDArray[Any]] = {
        "id": np.array([f"{split}/{i}" for i, (split, _) in enumerate(samples)]),
        "speaker": np.array([speakers[sample.items[Modality.AUDIO]] for _, sample in samples]),
        "split": np.array([str(split) for split, _ in samples]),
        "emotion": np.array([EMOTIONS[sample.emotion] for _, sample in samples]),
    }
    for m in Modality:
        arrays[str(m)] = np.stack([sample.values[m].astype(np.float16) for _, sample in samples])
        arrays[_MASK.format(m)] = np.stack([sample.masks[m] for _, sample in samples])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    unfinished.replace(path)


def read_composed(path: Path) -> Sequences:
    """Raises FeaturesInvalid."""
    arrays = read_arrays(path, _SHAPES)
    known = {"emotion": EMOTIONS, "split": tuple(Split)}
    problems = [
        f"{key}: expected one of {', '.join(names)}, found {name!r}"
        for key, names in known.items()
        for name in sorted(set(arrays[key].tolist()) - set(names))[:1]
    ]
    problems += [f"split: no window is of {split}" for split in Split if split not in arrays["split"]]
    refuse(path, problems)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Sequences({split: _utterances(arrays, arrays["split"] == split) for split in Split}, sha256, False)


def _utterances(arrays: Mapping[str, NDArray[Any]], chosen: NDArray[np.bool_]) -> Utterances:
    def of(key: str) -> NDArray[Any]:
        return arrays[key][chosen]

    return Utterances(
        ids=tuple(of("id").tolist()),
        inputs={m: of(str(m)).astype(np.float32) for m in Modality},
        masks={m: of(_MASK.format(m)) for m in Modality},
        label=np.array([EMOTIONS.index(name) for name in of("emotion")], np.int64),
        head=EMOTION,
        speakers=tuple(of("speaker").tolist()),
    )
