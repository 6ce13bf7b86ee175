"""Made examples of three small modalities: what each class looks like differs, so that there is something to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dhmd.contract import FeatureSpec, Rows
from dhmd.features.landmarks import BLENDSHAPES
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.items import Example, Split, Utterance

SIZES = {Split.TRAIN: (24, 8), Split.VALIDATION: (6, 4), Split.TEST: (6, 4)}
"""Utterances of neutral, and of every other class."""


@pytest.fixture(scope="session")
def specs() -> dict[Modality, FeatureSpec]:
    """As wide as live features, since placement knows what some of them mean; the windows are shorter."""

    def spec(m: Modality, width: int, rate_hz: float | None, steps: int, absent_after_s: float) -> FeatureSpec:
        return FeatureSpec(m, f"made-{m}", "1", width, rate_hz, steps, 5.0, absent_after_s)

    return {
        Modality.TEXT: spec(Modality.TEXT, 12, None, 20, 5.0),
        Modality.VISION: spec(Modality.VISION, len(BLENDSHAPES) + 3 + 4, 4.0, 20, 0.5),
        Modality.AUDIO: spec(Modality.AUDIO, 16, 5.0, 25, 1.0),
    }


@pytest.fixture(scope="session")
def made(specs: dict[Modality, FeatureSpec]) -> list[Example]:
    """Utterances of one modality with an emotion, of all modalities and splits, and text with sentiment."""
    draw = np.random.default_rng(0)
    examples: list[Example] = []
    for m, spec in specs.items():
        prototypes = draw.standard_normal((len(EMOTIONS), spec.width))
        direction = draw.standard_normal(spec.width)

        def rows(around: np.ndarray, m: Modality = m, width: int = spec.width) -> Rows:
            count = 4 if m is Modality.VISION else int(draw.integers(6, 20))
            times = np.zeros(count) if m is Modality.VISION else (np.arange(count) + 1) * 0.2
            return Rows(times, (around + draw.standard_normal((count, width))).astype(np.float32))

        for split, (of_neutral, of_others) in SIZES.items():
            for c, emotion in enumerate(EMOTIONS):
                for i in range(of_neutral if c == 0 else of_others):
                    name = f"made-{m}/{split}/{emotion}/{i}"
                    image = Path("made.png") if m is Modality.VISION else None
                    utterance = Utterance(name, f"made-{m}", split, name, emotion, image=image)
                    examples.append(Example(utterance, {m: rows(prototypes[c])}))
            if m is Modality.TEXT:
                for i in range(30):
                    sentiment = float(draw.uniform(-3, 3))
                    name = f"made-sentiment/{split}/{i}"
                    utterance = Utterance(name, "made-sentiment", split, name, sentiment=sentiment)
                    examples.append(Example(utterance, {m: rows(0.5 * sentiment * direction)}))
    return examples


@pytest.fixture(scope="package", autouse=True)
def few_windows() -> Iterator[None]:
    """What is measured on composed or imagined windows takes as many times less, and says the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.evaluate.PER_CLASS", 25)
        patch.setattr("training.learning.rehearsal.POOL", 256)
        yield


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small for threads to pay, and threads that wait for a busy core cost minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def published_content(kind: str, count: int = 96, seed: int = 0) -> dict[str, dict[str, Any]]:
    """A made file in the published layout: "aligned", "unaligned", or "sims" (unaligned, labels in [-1, 1], 39 steps of
    text); the features lean with the label. The steps are fewer than in real files, except where the name tells."""
    draw = np.random.default_rng(seed)
    steps = {
        "aligned": {"text": 50, "vision": 50, "audio": 50},
        "unaligned": {"text": 50, "vision": 60, "audio": 70},
        "sims": {"text": 39, "vision": 55, "audio": 80},
    }[kind]
    widths = {"text": 768, "vision": 20, "audio": 5}
    limit = 1.0 if kind == "sims" else 3.0
    leaning = {m: draw.standard_normal(width) for m, width in widths.items()}
    content: dict[str, dict[str, Any]] = {}
    for name, n in (("train", count), ("valid", count // 2), ("test", count // 2)):
        label = np.round(draw.uniform(-limit, limit, n), 1)
        lengths = {m: draw.integers(5, steps[m] + 1, n) for m in widths}
        if kind == "aligned":
            lengths["vision"] = lengths["audio"] = lengths["text"]
        part: dict[str, Any] = {
            "raw_text": np.array([f"sentence {i}" for i in range(n)]),
            "id": [f"{name}{i}$_${i}" for i in range(n)],
            "regression_labels": label.astype(np.float32),
            "annotations": ["Positive" if y > 0 else "Negative" for y in label],
        }
        for m, width in widths.items():
            rows = draw.standard_normal((n, steps[m], width)) + label[:, None, None] / limit * leaning[m]
            rows[np.arange(steps[m]) >= lengths[m][:, None]] = 0
            part[m] = rows.astype(np.float32)
            if kind != "aligned" and m != "text":
                part[f"{m}_lengths"] = lengths[m].tolist()
        attention = np.arange(steps["text"]) < lengths["text"][:, None]
        part["text_bert"] = np.stack([attention * 7, attention, attention * 0], axis=1).astype(np.float32)
        content[name] = part
    return content


@pytest.fixture(scope="session")
def published() -> Callable[..., dict[str, dict[str, Any]]]:
    return published_content
