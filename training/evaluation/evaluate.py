"""Measure a checkpoint on labelled utterances: those of a manifest, and composed windows by modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.checkpoint import Checkpoint, own_calibration, subset_name
from dhmd.influence import influence
from dhmd.modality import Modality
from dhmd.model import EMOTION, SENTIMENT, Head, own_heads
from training.data.compose import SUBSETS, Composer, Composition, Sample
from training.data.items import Example, Utterance
from training.evaluation.metrics import emotion_metrics, sentiment_metrics
from training.evaluation.predict import Predictions, batches, predict, predict_head, product, softmax
from training.evaluation.predictions import Said, joined, own_measures

PER_CLASS: Final = 100
"""Composed windows of each class."""

SEED: Final = 0


def evaluate(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """Measures examples of the test split: {"corpora": {name: see `measure`}, "composed": see `by_modalities`}."""
    return {"corpora": by_corpus(checkpoint, examples), "composed": by_modalities(checkpoint, examples)}


def by_corpus(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """{name of a manifest: see `measure`}."""
    names = dict.fromkeys(example.utterance.corpus for example in examples)
    return {
        name: measure(checkpoint, [example for example in examples if example.utterance.corpus == name])
        for name in names
    }


def measure(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """Every utterance as it was recorded: {n, coverage, modalities, emotion, sentiment, by_modalities}.

    coverage: share of the utterances in which anything was perceived (a face, a voice, words). The measures leave out
    the rest. modalities: those that any of them has, by `subset_name`.
    emotion, sentiment: over those that are labelled so; absent when none is. An utterance is shown with all it has.
    by_modalities: {set of modalities: {n, emotion, sentiment, product}} over the utterances that have all of the set,
    shown only that. product: as emotion, of the product of what the modalities of the set say alone.
    """
    composer = _composer(checkpoint, examples)
    samples = [composer.alone(example) for example in examples if example.rows]
    samples = [sample for sample in samples if present(sample)]
    held = [present(sample) for sample in samples]
    result: dict[str, Any] = {
        "n": len(examples),
        "coverage": len(samples) / max(len(examples), 1),
        "modalities": subset_name(frozenset().union(*held)),
        **_measures(checkpoint, samples, held),
    }
    own = [said for said in predictions(checkpoint, examples) if said.head not in {SENTIMENT.name, EMOTION.name}]
    if own:
        result["heads"] = {said.head: own_measures(said) for said in own}
    result["by_modalities"] = {}
    for subset in SUBSETS:
        having = [sample for sample, own in zip(samples, held, strict=True) if subset <= own]
        if having:
            measured = _measures(checkpoint, having, [subset] * len(having))
            result["by_modalities"][subset_name(subset)] = {"n": len(having), **measured}
            if len(subset) > 1 and "emotion" in measured:
                labelled = [sample for sample in having if sample.emotion >= 0]
                alone = [_probabilities(checkpoint, labelled, frozenset({m})) for m in sorted(subset)]
                result["by_modalities"][subset_name(subset)]["product"] = _product(alone)
    return result


def predictions(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Said]:
    """What each head says of each utterance that is labelled for it, shown with all it has; none for a head without."""
    composer = _composer(checkpoint, examples)
    parts: dict[frozenset[Modality], list[tuple[Example, Sample]]] = {}
    for example in examples:
        if example.rows and (held := present(sample := composer.alone(example))):
            parts.setdefault(held, []).append((example, sample))
    found = []
    for head in checkpoint.model.config.heads:
        said = []
        for subset, pairs in parts.items():
            labelled = [(one.utterance, sample) for one, sample in pairs if _labelled(one, head)]
            if labelled:
                said.append(_said(checkpoint, head, subset_name(subset), *zip(*labelled, strict=True)))
        found += [joined(said)] if said else []
    return found


def _labelled(example: Example, head: Head) -> bool:
    one = example.utterance
    known = {EMOTION.name: one.emotion, SENTIMENT.name: one.sentiment, **one.extra}
    return known.get(head.name) is not None


def _said(
    checkpoint: Checkpoint, head: Head, subset: str, utterances: Sequence[Utterance], samples: Sequence[Sample]
) -> Said:
    scores, label = predict_head(checkpoint.model, batches(samples), head)
    own = head not in {SENTIMENT, EMOTION}
    if head.classes:
        name = own_calibration(head, subset) if own else subset
        scores = softmax(scores / checkpoint.calibration.temperature.get(name, 1.0))
    elif own:
        scores, label = (np.vectorize(head.on_scale, otypes=[float])(x) for x in (scores, label))
    return Said(
        ids=tuple(one.id for one in utterances),
        corpus=tuple(one.corpus for one in utterances),
        speakers=tuple(one.group for one in utterances),
        splits=tuple(one.split for one in utterances),
        label=label,
        said=scores,
        head=head.name,
        classes=head.classes,
    )


def _measures(
    checkpoint: Checkpoint, samples: Sequence[Sample], shown: Sequence[frozenset[Modality]]
) -> dict[str, Any]:
    """Measures windows, of each of which the model sees only the modalities in `shown`."""
    result: dict[str, Any] = {}
    parts: list[tuple[Predictions, str, NDArray[np.bool_]]] = []  # the last: whose sentiment people labelled
    for subset in dict.fromkeys(shown):
        own = [sample for sample, other in zip(samples, shown, strict=True) if other == subset]
        labelled = np.array([sample.sentiment_labelled for sample in own], np.bool_)
        parts.append((predict(checkpoint.model, batches(own, subset)), subset_name(subset), labelled))
    if not parts:
        return {}
    label = np.concatenate([said.emotion_label for said, *_ in parts])
    if (label >= 0).any():
        probabilities = np.concatenate([_calibrated(checkpoint, said, name) for said, name, _ in parts])
        result["emotion"] = emotion_metrics(probabilities[label >= 0], label[label >= 0])
    truth = np.concatenate([said.sentiment_label[labelled] for said, _, labelled in parts])
    if len(truth):
        guess = np.concatenate([said.sentiment[labelled] for said, _, labelled in parts])
        result["sentiment"] = sentiment_metrics(guess, truth)
        half_width = checkpoint.calibration.sentiment_half_width
        widths = np.concatenate([np.full(labelled.sum(), half_width.get(name, np.nan)) for _, name, labelled in parts])
        if not np.isnan(widths).any():
            result["sentiment"]["within_half_width"] = float((np.abs(guess - truth) <= widths).mean())
    return result


def present(sample: Sample) -> frozenset[Modality]:
    """The modalities that a window holds."""
    return frozenset(m for m, mask in sample.masks.items() if mask.any())


def by_modalities(checkpoint: Checkpoint, examples: Sequence[Example]) -> dict[str, Any]:
    """Composed windows that hold all three modalities, the same for every subset and only shown in part:
    {n, by_modalities: {subset: emotion}, product: {subset of several: emotion}, influence: see `reasons`}; no subset
    where the examples lack a modality. product: of the product of what the modalities say alone."""
    samples = composed(checkpoint, examples)
    said = {subset: _probabilities(checkpoint, samples, subset) for subset in (SUBSETS if samples else ())}
    return {
        "n": len(samples),
        "by_modalities": {subset_name(subset): emotion_metrics(*measured) for subset, measured in said.items()},
        "product": {
            subset_name(subset): _product([said[frozenset({m})] for m in sorted(subset)])
            for subset in said
            if len(subset) > 1
        },
        "influence": reasons({subset: probabilities for subset, (probabilities, _) in said.items()}) if samples else {},
    }


def reasons(said: Mapping[frozenset[Modality], NDArray[np.float64]]) -> dict[str, Any]:
    """Tells whether the modality with the largest influence is the reason: {changed, named}.

    changed: share of the windows in which the likeliest emotion is another without some modality. named: of these, the
    share in which it is another without the one of the largest influence. said: (N, 7) of the same windows, which hold
    all modalities, by which of them are shown.
    """
    whole = said[frozenset(Modality)]
    without = np.stack([said[frozenset(Modality) - {m}] for m in Modality])
    changed = without.argmax(axis=2) != whole.argmax(axis=1)
    some = changed.any(axis=0)
    largest = changed[influence(whole, without).argmax(axis=0), np.arange(len(whole))]
    return {
        "changed": float(some.mean()),
        "named": float(largest[some].mean()) if some.any() else None,
    }


def _product(alone: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> dict[str, Any]:
    """Measures of the product of what each modality says alone. alone: as of `_probabilities`, labelled windows."""
    return emotion_metrics(product(probabilities for probabilities, _ in alone), alone[0][1])


def _probabilities(
    checkpoint: Checkpoint, samples: Sequence[Sample], subset: frozenset[Modality]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Calibrated, (N, 7), for windows of which only that is shown; and the labels (N,)."""
    said = predict(checkpoint.model, batches(samples, subset))
    return _calibrated(checkpoint, said, subset_name(subset)), said.emotion_label


def composed(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Sample]:
    """Windows of all three modalities, as many of every emotion, always the same for the same examples."""
    return _composer(checkpoint, examples).fixed(frozenset(Modality), PER_CLASS)


def recorded(checkpoint: Checkpoint, examples: Sequence[Example]) -> tuple[Head, list[Sample]]:
    """Windows of utterances as they were recorded, which are labelled for the head returned: for emotions where any
    are, else for a head of its own, else for sentiment. No window where none is labelled."""
    composer, heads = _composer(checkpoint, examples), checkpoint.model.config.heads
    for head in (EMOTION, *own_heads(heads), SENTIMENT):
        labelled = [composer.alone(one) for one in examples if one.rows and _labelled(one, head)]
        if windows := [window for window in labelled if present(window)]:
            return head, windows
    return EMOTION, []


def _composer(checkpoint: Checkpoint, examples: Sequence[Example]) -> Composer:
    scale = {m: checkpoint.model.normaliser[m].state_dict()["std"].numpy() for m in Modality}
    return Composer(examples, checkpoint.features, scale, Composition(), SEED, own_heads(checkpoint.model.config.heads))


def _calibrated(checkpoint: Checkpoint, said: Predictions, name: str) -> NDArray[np.float64]:
    """Those of live use, at temperature 1 where a set of modalities was not calibrated."""
    return said.probabilities(checkpoint.calibration.temperature.get(name, 1.0))
