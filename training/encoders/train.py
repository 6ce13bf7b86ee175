"""Train one modality's encoder from manifests: weights, and a report of how they came about, in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from dhmd.assets.store import fetch
from dhmd.checkpoint import encoder_path, save_beside
from dhmd.features.expression import ExpressionNet
from dhmd.features.low_rank import adapter_of
from dhmd.features.text import DEFAULT_ENCODER, TextExtractor
from dhmd.features.token_vectors import open_encoder
from dhmd.features.weights import load_single, save_half
from dhmd.modality import Modality
from training.data.items import Split, counted
from training.encoders import audio, languages, text, vision
from training.encoders.tuning import Plan
from training.errors import TooLittleData
from training.features.extract import face_images
from training.features.face_images import SPLITS
from training.inputs import Inputs
from training.learning.results import versions
from training.learning.run_files import keep

MANIFESTS: Final[Mapping[Modality, tuple[str, ...]]] = {
    Modality.VISION: ("fer2013", "ck48"),
    Modality.AUDIO: ("ravdess", "emodb", "emovo", "urdu", "ased"),
    Modality.TEXT: ("meld", "goemotions", "mosi"),
}
"""What each is trained on unless something else is named."""


def train_map(sources: Inputs, english: Path, out: Path, epochs: int | None = None, seed: int | None = None) -> Path:
    """Teach the text encoder of many languages what the tuned English one reads: `out` becomes a checkpoint that is
    `base` but for the words, with a report of the training.

    english: adapter of the English encoder. epochs, seed: where others than the usual are wanted. Raises TooLittleData.
    """
    plan = replace(languages.Plan(), **{k: v for k, v in (("epochs", epochs), ("seed", seed)) if v is not None})
    texts = [
        " ".join(sentence.split())
        for split in (Split.TRAIN, Split.VALIDATION)
        for part in text.sentences(sources.utterances, split).values()
        for sentence in part.texts
    ]
    _require(len(texts), "sentence", Split.TRAIN)
    student, teacher = (open_encoder(fetch(name)) for name in (languages.STUDENT, DEFAULT_ENCODER))
    teacher.learn(load_single(english))
    learned, log = languages.distil(languages.pairs(texts, student, teacher), plan)
    out.mkdir(parents=True, exist_ok=True)
    path = encoder_path(out, Modality.TEXT)
    save_half(path, learned.state_dict())
    report = {
        "modality": Modality.TEXT,
        "settings": languages.described(plan),
        "data": {"sha256": sources.sha256, "utterances": counted(sources.utterances)},
        "log": log,
        "versions": versions(),
    }
    keep(path.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    save_beside(out, "base", TextExtractor(languages.STUDENT, path).spec, languages.TESTED)
    return path


def train_encoder(
    modality: Modality, sources: Inputs, out: Path, state: Path, epochs: int | None = None, seed: int | None = None
) -> Path:
    """Train, and write `out`/MODALITY.safetensors and a report beside it.

    state: folder of what a cut run goes on from. epochs, seed: where others than the usual are wanted.
    Returns the file of the weights. Raises TooLittleData.
    """
    given = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    for folder in (out, state):
        folder.mkdir(parents=True, exist_ok=True)
    path = encoder_path(out, modality)
    # A cut run is gone on with by one of the same data and settings alone.
    shaped_by = json.dumps([asdict(_USUAL[modality]), given, sources.sha256], sort_keys=True)
    unfinished = state / f"{modality}-{sha256(shaped_by.encode()).hexdigest()[:12]}.pt"
    settings, log, test = _TRAIN[modality](sources, path, unfinished, given)
    report = {
        "modality": modality,
        "settings": settings,
        "data": {"sha256": sources.sha256, "utterances": counted(sources.utterances)},
        "log": log,
        "test": test,
        "versions": versions(),
    }
    keep(path.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    return path


Outcome = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]
"""Settings, log of the epochs, and measures on the test split."""


def _vision(sources: Inputs, path: Path, state: Path, given: Mapping[str, int]) -> Outcome:
    images = face_images(sources.utterances, sources.store, sources.extraction())
    for split in (Split.TRAIN, Split.VALIDATION):
        _require((images.split == SPLITS.index(split)).sum(), "image with a face", split)
    settings = replace(vision.Settings(), **given)
    pupil, log = vision.train(images, settings, state)
    pupil.network.save(path)
    pupil.network = ExpressionNet.load(path)
    tested = images[images.split == SPLITS.index(Split.TEST)]
    corpora = sorted(set(tested.corpus.tolist()))
    return asdict(settings), log, {name: vision.accuracies(pupil, tested[tested.corpus == name]) for name in corpora}


def _audio(sources: Inputs, path: Path, state: Path, given: Mapping[str, int]) -> Outcome:
    parts = {split: audio.voices(sources.utterances, split) for split in Split}
    for split in (Split.TRAIN, Split.VALIDATION):
        _require(len(parts[split].label), "voice", split)
    plan = replace(audio.PLAN, **given)
    network, log = audio.train(parts[Split.TRAIN], parts[Split.VALIDATION], state, plan)
    save_half(path, network.learned())
    return asdict(plan), log, audio.measures(network, parts[Split.TEST])


def _text(sources: Inputs, path: Path, state: Path, given: Mapping[str, int]) -> Outcome:
    parts = {split: text.sentences(sources.utterances, split) for split in Split}
    for split in (Split.TRAIN, Split.VALIDATION):
        _require(len(parts[split]), "sentence", split)
    plan = replace(text.PLAN, **given)
    encoder, log = text.train(parts[Split.TRAIN], parts[Split.VALIDATION], state, plan)
    save_half(path, adapter_of(encoder.encoder))
    return asdict(plan), log, text.measures(encoder, parts[Split.TEST])


_USUAL: Final[Mapping[Modality, vision.Settings | Plan]] = {
    Modality.VISION: vision.Settings(),
    Modality.AUDIO: audio.PLAN,
    Modality.TEXT: text.PLAN,
}

_TRAIN: Final[Mapping[Modality, Callable[[Inputs, Path, Path, Mapping[str, int]], Outcome]]] = {
    Modality.VISION: _vision,
    Modality.AUDIO: _audio,
    Modality.TEXT: _text,
}


def _require(count: int, what: str, split: Split) -> None:
    if not count:
        raise TooLittleData(f"no labelled {what} is in the split {split}; name manifests that have some")
