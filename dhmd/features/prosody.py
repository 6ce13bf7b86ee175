"""Loudness and melody of speech: log energy, pitch and voicing.

Pitch by YIN (de Cheveigne & Kawahara 2002, "YIN, a fundamental frequency estimator for speech and music").
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.features.timeline import SAMPLE_RATE_HZ

PROSODY_WIDTH: Final = 3
PROSODY_ROW: Final = 1280
"""Samples a row: 80 ms."""

LOWEST_HZ: Final = 60.0
HIGHEST_HZ: Final = 500.0
_MIN_LAG: Final = int(SAMPLE_RATE_HZ / HIGHEST_HZ)
_MAX_LAG: Final = int(np.ceil(SAMPLE_RATE_HZ / LOWEST_HZ))
_INTEGRATION: Final = 512
_HOP: Final = 320
_FRAME: Final = _INTEGRATION + _MAX_LAG + 1
_APERIODICITY: Final = 0.15
_VOICED: Final = 0.5
_MIDDLE_HZ: Final = 160.0

PROSODY_HISTORY: Final = _FRAME - _HOP
"""Samples before the first row that its first frame reaches back to."""


def prosody(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Prosody of successive rows of 80 ms.

    samples: (PROSODY_HISTORY + rows * PROSODY_ROW,) 16 kHz mono, beginning with the history (zeros at a start).
    Returns (rows, 3) float32: log10 of the mean square; octaves above 160 Hz, 0 where unvoiced; voicing in [0, 1].
    """
    rows = (len(samples) - PROSODY_HISTORY) // PROSODY_ROW
    own = samples[PROSODY_HISTORY : PROSODY_HISTORY + rows * PROSODY_ROW].astype(np.float64)
    energy = np.log10(np.square(own).reshape(rows, PROSODY_ROW).mean(1) + 1e-10)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP][: rows * PROSODY_ROW // _HOP]
    f0_hz, voicing = (x.reshape(rows, -1) for x in yin(frames))
    voiced = voicing >= _VOICED
    octaves = np.where(voiced, np.log2(f0_hz / _MIDDLE_HZ), 0.0).sum(1) / np.maximum(voiced.sum(1), 1)
    return np.stack([energy, octaves, voicing.mean(1)], axis=1).astype(np.float32)


def yin(frames: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pitch of each frame.

    frames: (N, >= 780) 16 kHz. Returns f0 in Hz (N,) between 60 and 500, and voicing (N,) in [0, 1]: one minus the
    aperiodicity at that pitch, 0 in digital silence.
    """
    x = frames[:, :_FRAME].astype(np.float64)
    x = x - x.mean(1, keepdims=True)
    # Step 2, the difference function, through the correlation of the first `_INTEGRATION` samples with all lags.
    size = 1 << (_FRAME + _INTEGRATION - 1).bit_length()
    head = np.fft.rfft(x[:, :_INTEGRATION], size)
    correlation = np.fft.irfft(np.fft.rfft(x, size) * head.conj(), size)[:, : _MAX_LAG + 2]
    power = np.cumsum(np.pad(np.square(x), ((0, 0), (1, 0))), axis=1)
    energy = power[:, _INTEGRATION : _INTEGRATION + _MAX_LAG + 2] - power[:, : _MAX_LAG + 2]
    difference = np.maximum(energy[:, :1] + energy - 2 * correlation, 0.0)  # (N, lags)
    # Step 3, its cumulative mean normalised form.
    lags = np.arange(1, _MAX_LAG + 2)
    normalised = np.ones_like(difference)
    total = np.cumsum(difference[:, 1:], axis=1)
    silent = energy[:, :1] < 1e-9
    np.divide(difference[:, 1:] * lags, total, out=normalised[:, 1:], where=(total > 1e-12) & ~silent)
    # Step 4, the first dip below the threshold, else the deepest.
    inner = normalised[:, _MIN_LAG : _MAX_LAG + 1]
    dip = (inner <= normalised[:, _MIN_LAG - 1 : _MAX_LAG]) & (inner < normalised[:, _MIN_LAG + 1 : _MAX_LAG + 2])
    good = dip & (inner < _APERIODICITY)
    lag = _MIN_LAG + np.where(good.any(1), good.argmax(1), np.where(dip, inner, np.inf).argmin(1))
    # Step 5, parabolic interpolation.
    row = np.arange(len(x))
    left, here, right = (normalised[row, lag + i] for i in (-1, 0, 1))
    curve = left - 2 * here + right
    offset = np.divide(left - right, 2 * curve, out=np.zeros_like(curve), where=np.abs(curve) > 1e-12)
    f0_hz = SAMPLE_RATE_HZ / (lag + np.clip(offset, -1.0, 1.0))
    return np.clip(f0_hz, LOWEST_HZ, HIGHEST_HZ), np.clip(1.0 - here, 0.0, 1.0)
