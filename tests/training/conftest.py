"""Made examples of three small modalities: what each class looks like differs, so that there is something to learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dhmd.contract import FeatureSpec, Rows
from dhmd.features.landmarks import BLENDSHAPES
from dhmd.features.speech import ENCODER_WIDTH
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.items import Example, Item, Split

SIZES = {Split.TRAIN: (24, 8), Split.VALIDATION: (6, 4), Split.TEST: (6, 4)}
"""Items of neutral, and of every other class."""


@pytest.fixture(scope="session")
def specs() -> dict[Modality, FeatureSpec]:
    """As wide as live features, since placement knows what some of them mean; the windows are shorter."""

    def spec(m: Modality, width: int, rate_hz: float | None, steps: int, absent_after_s: float) -> FeatureSpec:
        return FeatureSpec(m, f"made-{m}", "1", width, rate_hz, steps, 5.0, absent_after_s)

    return {
        Modality.TEXT: spec(Modality.TEXT, 12, None, 20, 5.0),
        Modality.VISION: spec(Modality.VISION, len(BLENDSHAPES) + 3 + 4, 4.0, 20, 0.5),
        Modality.AUDIO: spec(Modality.AUDIO, ENCODER_WIDTH + 3, 5.0, 25, 1.0),
    }


@pytest.fixture(scope="session")
def made(specs: dict[Modality, FeatureSpec]) -> list[Example]:
    """Emotion items of all modalities and splits, and text items with sentiment."""
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
                    item = Item(name, f"made-{m}", split, name, m, (), emotion)
                    examples.append(Example(item, rows(prototypes[c])))
            if m is Modality.TEXT:
                for i in range(30):
                    sentiment = float(draw.uniform(-3, 3))
                    name = f"made-sentiment/{split}/{i}"
                    item = Item(name, "made-sentiment", split, name, m, (), None, sentiment)
                    examples.append(Example(item, rows(0.5 * sentiment * direction)))
    return examples


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small for threads to pay, and threads that wait for a busy core cost minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
