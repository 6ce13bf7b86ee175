"""Pitch, voicing and loudness of signals whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmd.features.prosody import PROSODY_HISTORY, PROSODY_ROW, prosody

RATE = 16_000


def tone(f0_hz: float, harmonics: int, seconds: float = 0.6) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(np.sin(2 * np.pi * f0_hz * k * t + k) / k for k in range(1, harmonics + 1)).astype(np.float32) * 0.1


@settings(max_examples=40, deadline=None)
@given(f0_hz=st.floats(60, 500), harmonics=st.integers(1, 8))
def test_pitch_is_the_fundamental_whatever_the_harmonics(f0_hz: float, harmonics: int) -> None:
    rows = prosody(tone(f0_hz, harmonics))
    np.testing.assert_allclose(160 * 2 ** rows[:, 1], f0_hz, rtol=0.005)
    assert rows[:, 2].min() > 0.9


def test_pitch_follows_a_glide() -> None:
    t = np.arange(RATE) / RATE
    f0_hz = 100 * 2**t  # an octave a second
    rows = prosody(np.sin(2 * np.pi * np.cumsum(f0_hz) / RATE).astype(np.float32))
    slope = np.polyfit(np.arange(len(rows)) * PROSODY_ROW / RATE, rows[:, 1], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


def test_noise_and_silence_are_unvoiced() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert prosody(noise)[:, 2].max() < 0.4
    np.testing.assert_array_equal(prosody(noise)[:, 1], 0.0)
    np.testing.assert_array_equal(prosody(np.zeros(RATE, np.float32)), [[-10.0, 0.0, 0.0]] * 12)


def test_energy_is_the_log_of_the_mean_square_of_its_own_row() -> None:
    samples = np.zeros(PROSODY_HISTORY + 3 * PROSODY_ROW, np.float32)
    samples[PROSODY_HISTORY + PROSODY_ROW : PROSODY_HISTORY + 2 * PROSODY_ROW] = 0.1
    np.testing.assert_allclose(prosody(samples)[:, 0], [-10.0, -2.0, -10.0], atol=1e-4)


def test_a_row_does_not_see_what_comes_after_it() -> None:
    samples = tone(200, 4)
    changed = samples.copy()
    changed[PROSODY_HISTORY + 2 * PROSODY_ROW :] = 0.5
    np.testing.assert_array_equal(prosody(samples)[:2], prosody(changed)[:2])
    assert not np.array_equal(prosody(samples)[2], prosody(changed)[2])
