"""Variations of voices keep what they are: sound of a voice's length, level and pitch, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from dhmd.features.voice import CONTEXT
from training.encoders.sounds import at_tempo, varied
from training.features.spoken import spoken_part

RATE = 16_000


def tone(seconds: float, level: float = 0.2) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_silence_around_the_voice_is_cut_off() -> None:
    silence = np.zeros(RATE, np.float32)
    kept = spoken_part(np.concatenate([silence, tone(1.0), silence]))
    assert len(kept) / RATE == pytest.approx(1.2, abs=0.05)
    assert len(spoken_part(silence)) == RATE


def test_a_variation_is_a_part_that_the_network_can_hear() -> None:
    lengths = {len(varied(tone(5.0), np.random.default_rng(seed))) for seed in range(20)}
    assert max(lengths) <= CONTEXT
    assert min(lengths) >= 1.2 * RATE
    assert len(lengths) > 5


def test_variations_differ_and_are_the_seeds() -> None:
    first, again, other = (varied(tone(2.0), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert len(first) != len(other) or not np.allclose(first, other)
    levels = [np.sqrt(np.square(varied(tone(2.0), np.random.default_rng(seed))).mean()) for seed in range(30)]
    assert 0.005 < min(levels) < 0.1
    assert 0.2 < max(levels) < 3.0


def test_another_tempo_changes_the_length_and_not_the_bands() -> None:
    ramp = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (80, 1)) + np.arange(80, dtype=np.float32)[:, None]
    quick, slow = at_tempo(ramp, 1.25), at_tempo(ramp, 0.8)
    assert quick.shape == (80, 160)
    assert slow.shape == (80, 250)
    for changed in (quick, slow):
        np.testing.assert_allclose(changed[:, [0, -1]], ramp[:, [0, -1]], atol=1e-5)
        assert (np.diff(changed, axis=1) > 0).all()


def test_at_a_slow_tempo_the_newest_seconds_stay() -> None:
    ramp = np.tile(np.arange(320, dtype=np.float32), (80, 1))
    slow = at_tempo(ramp, 0.5)
    assert slow.shape == (80, 2 * CONTEXT // 320)
    assert slow[0, -1] == 319
    assert slow[0, 0] == pytest.approx(160, abs=1)
