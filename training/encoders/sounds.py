"""Voices as another microphone in another room would have recorded them."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.features.speech import ENCODER_HOP
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.voice import CONTEXT

Sound = NDArray[np.float32]
_Signal = NDArray[np.floating[Any]]

SHORTEST_S: Final = 1.2


def varied(sound: Sound, draw: np.random.Generator) -> Sound:
    """A part of at most 3.2 s, as the live network hears it, pauses around it included, at another speed and pitch
    (7 %), level (8 dB) and with another sound colour, mostly with noise, sometimes in a small room or by telephone."""
    samples: _Signal = sound
    if draw.random() < 0.8:
        samples = _resampled(samples, math.exp(draw.normal(0, 0.07)))
    longest = CONTEXT
    if draw.random() < 0.6:
        longest = round(draw.uniform(SHORTEST_S * SAMPLE_RATE_HZ, CONTEXT))
    if len(samples) > longest:
        begin = draw.integers(0, len(samples) - longest)
        samples = samples[begin : begin + longest]
    if draw.random() < 0.5:
        colour = draw.normal(0, 0.12, 17) * np.hanning(17)
        colour[8] += 1
        samples = np.convolve(samples, colour, "same")
    if draw.random() < 0.3:
        samples = _in_a_room(samples, draw)
    level = _level(samples)
    if draw.random() < 0.3:
        before = draw.integers(0, CONTEXT - len(samples) + 1)
        samples = np.pad(samples, (before, draw.integers(0, CONTEXT - len(samples) - before + 1)))
    if draw.random() < 0.7:
        samples = samples + _noise(len(samples), draw) * level * 10 ** (-draw.uniform(10, 45) / 20)
    if draw.random() < 0.15:
        samples = _by_telephone(samples, draw)
    return (samples * 10 ** (draw.normal(0, 8) / 20)).astype(np.float32)


def at_tempo(mel: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """The newest 3.2 s of log-mel (80, T) spoken `factor` times as fast, the pitch as it was."""
    count = max(2, int(mel.shape[1] / factor) // 2 * 2)
    at = np.linspace(0, mel.shape[1] - 1, count)
    before = at.astype(np.int64)
    share = (at - before).astype(np.float32)
    stretched = mel[:, before] * (1 - share) + mel[:, np.minimum(before + 1, mel.shape[1] - 1)] * share
    return np.ascontiguousarray(stretched[:, -2 * CONTEXT // ENCODER_HOP :])


def _resampled(samples: _Signal, factor: float) -> _Signal:
    """Played `factor` times as fast, and as high."""
    at = np.arange(int(len(samples) / factor)) * factor
    return np.asarray(np.interp(at, np.arange(len(samples)), samples), np.float64)


def _in_a_room(samples: _Signal, draw: np.random.Generator) -> _Signal:
    """With an exponential echo of 0.05 to 0.3 s."""
    length = round(draw.uniform(0.05, 0.3) * SAMPLE_RATE_HZ)
    echo = draw.standard_normal(length) * np.exp(-5 * np.arange(length) / length)
    echo *= draw.uniform(0.1, 0.5) / np.linalg.norm(echo)
    echo[0] += 1
    size = 1 << (len(samples) + length).bit_length()
    return np.asarray(np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(echo, size))[: len(samples)])


def _by_telephone(samples: _Signal, draw: np.random.Generator) -> _Signal:
    """Without what is below 50 to 350 Hz and above 3 to 6 kHz."""
    spectrum = np.fft.rfft(samples)
    frequency = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ)
    lost = (frequency < draw.uniform(50, 350)) | (frequency > draw.uniform(3000, 6000))
    return np.asarray(np.fft.irfft(np.where(lost, 0.003 * spectrum, spectrum), len(samples)))


def _noise(count: int, draw: np.random.Generator) -> _Signal:
    """Of unit deviation; half of it falls off towards high frequencies."""
    noise = draw.standard_normal(count)
    if draw.random() < 0.5:
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.full(400, 1 / 400), "same")
    return np.asarray(noise / (noise.std() + 1e-9))


def _level(samples: _Signal) -> float:
    return float(np.sqrt(np.square(samples).mean() + 1e-9))
