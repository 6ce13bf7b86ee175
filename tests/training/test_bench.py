"""The bench counts what a step does."""

from __future__ import annotations

from pathlib import Path

from dhmd.modality import Modality
from training.bench import PAPER, time_step
from training.config import Network, SequenceConfig, read_config


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


def test_the_paper_is_that_of_the_configuration() -> None:
    config = read_config(Path(__file__).resolve().parents[2] / "configs" / "mosi.yaml")
    assert isinstance(config, SequenceConfig)
    assert (PAPER.optimisation, PAPER.losses, PAPER.limit) == (config.optimisation, config.losses, config.limit)
    widths = {Modality.TEXT: 768, Modality.VISION: 20, Modality.AUDIO: 5}
    assert PAPER.network.dhmd(widths) == config.network.dhmd(widths)
