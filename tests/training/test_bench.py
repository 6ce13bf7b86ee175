"""The bench counts what a step does."""

from __future__ import annotations

from dhmd.modality import Modality
from training.bench import time_step
from training.config import Network, SequenceConfig


def test_twice_the_width_is_about_four_times_the_work() -> None:
    network = Network(d=16, attention_heads=2, layers=1, atoms=8)
    small, large = (
        time_step(
            SequenceConfig(name="x", features="published", network=network.model_copy(update={"d": d})),
            dict.fromkeys(Modality, 4),
            threads=1,
            steps=2,
        )
        for d in (16, 32)
    )
    assert 2.5 < large.operations / small.operations < 4.5
    assert small.limit == small.operations / small.rate
    assert "2 steps, 1 thread(s)" in str(small)
