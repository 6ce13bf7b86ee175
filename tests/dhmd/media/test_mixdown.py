"""Mixing channels down: what is said in any of them is heard."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.mixdown import Mixdown
from dhmd.media.reader import MediaReader

TONE = "0.5*sin(2*PI*300*t)"
LEVEL = 0.5 / 2**0.5


@pytest.mark.parametrize(
    ("name", "channels", "codec"),
    [
        ("phase", [TONE, f"-{TONE}"], "pcm_s16le"),
        ("phase_float", [TONE, f"-0.99*{TONE}"], "pcm_f32le"),
        ("centre", ["0", "0", TONE, "0", "0", "0"], "pcm_s24le"),
        ("surround", ["0", "0", "0", "0", TONE, "0"], "flac"),
        ("array", [*["0"] * 7, TONE], "pcm_s16le"),
        ("interface", [*["0"] * 15, TONE], "pcm_s16le"),
    ],
)
def test_a_voice_that_the_mix_would_bury_keeps_its_level(
    make_media: Callable[..., Path], name: str, channels: list[str], codec: str
) -> None:
    layout = {2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[len(channels)]
    source = ("-f", "lavfi", "-i", f"aevalsrc='{'|'.join(channels)}':s=44100:d=1:c={layout}", "-c:a", codec)
    heard = np.concatenate(list(MediaReader(make_media(f"{name}.mka", *source)).sound()))
    assert len(heard) == pytest.approx(SAMPLE_RATE_HZ, abs=20)
    assert heard[1000:-1000].std() == pytest.approx(LEVEL, rel=0.02)


def voice(seconds: float, pitch_hz: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    t = np.arange(round(seconds * 48_000)) / 48_000
    return np.float32(0.3) * np.sin(2 * np.pi * pitch_hz * t, dtype=np.float32)


def test_two_speakers_with_a_microphone_each_are_both_heard_all_the_time() -> None:
    first, second, pause = voice(2, 200), voice(2, 310), np.zeros(96_000, np.float32)
    channels = np.array([np.concatenate([first, pause]), np.concatenate([pause, second])])
    heard = Mixdown(48_000, [1, 1]).push(channels)
    assert heard == pytest.approx(channels.mean(axis=0), abs=1e-6)


def test_when_another_channel_speaks_it_is_taken_within_a_moment_and_without_a_click() -> None:
    first, second, pause = voice(2, 200), voice(2, 310), np.zeros(96_000, np.float32)
    channels = np.zeros((8, 192_000), np.float32)
    channels[1], channels[6] = np.concatenate([first, pause]), np.concatenate([pause, second])
    heard = Mixdown(48_000, [1] * 8).push(channels)
    loudness = np.square(heard.reshape(-1, 960)).mean(axis=1) ** 0.5
    assert (loudness > 0.2).mean() > 0.85
    assert np.abs(np.diff(heard)).max() < 0.02


def test_pieces_of_any_length_give_the_same() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 48_000)).astype(np.float32)
    noise[1:, 20_000:] = 0
    whole, pieces = Mixdown(48_000, [1, 1, 1]), Mixdown(48_000, [1, 1, 1])
    expected = np.concatenate([whole.push(noise), whole.flush()])
    cuts = [0, 7, 5000, 5001, 30_000, 48_000]
    given = [pieces.push(noise[:, begin:end]) for begin, end in pairwise(cuts)]
    assert (np.concatenate([*given, pieces.flush()]) == expected).all()
