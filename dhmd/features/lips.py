"""Lips, seen and heard: how those of a face move, and how those of whoever is heard must be moving.

Shapes: U frames of 20 ms, counted from the start of the sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dhmd.features.weights import fill, load_single

FRAME: Final = 320
"""Samples between two frames."""
CHUNK: Final = 4
"""Frames that are made at once, always the same ones of a stream: they must not depend on the sizes of blocks."""
PAST: Final = 20
AHEAD: Final = 8
"""Frames before and after its own that a frame is made of."""
LOUDNESS_FRAMES: Final = 150
"""Frames within which the loudest band sets the level."""
BANDS: Final = 24
HIDDEN: Final = 40
WEIGHTS: Final = Path(__file__).parents[1] / "pretrained" / "lips.safetensors"

_WINDOW: Final = 400
_QUIET: Final = 1e-7  # power that is added to every band
_LEAST_LEVEL: Final = -3.0
_DEPTH: Final = 4.0  # decades below the level that are told apart

_FOREHEAD, _CHIN, _NOSE = 10, 152, 1
_EYES = (33, 263)
_CORNERS = (61, 291)
_INNER_LIPS = ((13, 14), (82, 87), (312, 317))


class Mouth(NamedTuple):
    """What of a face tells of speech, as fractions of the face's height (opening, jaw) and of the eyes' distance
    (width): neither the size of the face nor the shape of the picture matters."""

    opening: float
    width: float
    jaw: float


def mouth_of(landmarks: NDArray[np.float32]) -> Mouth:
    """The mouth of a face. landmarks: (478, 3), as of `Face`."""

    def between(a: int, b: int) -> float:
        return float(np.linalg.norm(landmarks[a] - landmarks[b]))

    height = max(between(_FOREHEAD, _CHIN), 1e-6)
    opening = sum(between(*pair) for pair in _INNER_LIPS) / len(_INNER_LIPS)
    return Mouth(
        opening / height, between(*_CORNERS) / max(between(*_EYES), 1e-6), between(_NOSE, _CHIN) / height
    )


class LipNetwork(nn.Module):
    """Opening, width and jaw of the lips that make a sound, each in deviations from its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(BANDS, HIDDEN, 5),
            nn.GELU(),
            nn.Conv1d(HIDDEN, HIDDEN, 5, dilation=2),
            nn.GELU(),
            nn.Conv1d(HIDDEN, HIDDEN, 5, dilation=4),
            nn.GELU(),
            nn.Conv1d(HIDDEN, len(Mouth._fields), 1),
        )

    def forward(self, levelled: Tensor) -> Tensor:
        """levelled: (B, BANDS, PAST + U + AHEAD), see `levelled`. Returns (B, 3, U), order of Mouth."""
        out: Tensor = self.layers(levelled)
        return out

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Self:
        """The trained network, in evaluation mode. Raises WeightsInvalid."""
        network = cls()
        fill(network, load_single(path), path)
        return network.eval()


def log_bands(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log10 power (U, BANDS) of mel bands, of windows of 25 ms that begin every 20 ms with the first sample."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::FRAME] * _hann
    power = np.square(np.abs(np.fft.rfft(windows, axis=1))).astype(np.float32)
    return np.asarray(np.log10(power @ _mel + _QUIET), np.float32)


def levelled(bands: NDArray[np.float32], loudest: float) -> NDArray[np.float32]:
    """Bands relative to the loudest of the last seconds, in [-1, 1]: how far the microphone stands off says nothing."""
    return np.maximum(bands - max(loudest, _LEAST_LEVEL), -_DEPTH) * (2 / _DEPTH) + 1


class HeardLips:
    """Lips of whoever is heard, of one continuous sound."""

    def __init__(self, network: LipNetwork) -> None:
        self._network = network
        self.reset()

    def reset(self) -> None:
        """Forget the sound: the next sample is the first of another one."""
        self._pending = np.zeros(_WINDOW // 2, np.float32)  # the window of a frame is centred at its time
        self._bands = np.full((LOUDNESS_FRAMES, BANDS), np.log10(_QUIET), np.float32)
        self._early = AHEAD // CHUNK

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (U, 3) that these samples complete, order of Mouth, U a multiple of CHUNK; frame u is that of the
        moment 0.02 u after the first sample."""
        pending = np.concatenate([self._pending, samples])
        made = [np.empty((0, len(Mouth._fields)), np.float32)]
        while len(pending) >= (CHUNK - 1) * FRAME + _WINDOW:
            bands = log_bands(pending[: (CHUNK - 1) * FRAME + _WINDOW])
            pending = pending[CHUNK * FRAME :]
            self._bands = np.concatenate([self._bands[CHUNK:], bands])
            if self._early:  # frames from before the sound
                self._early -= 1
                continue
            window = levelled(self._bands[-(PAST + CHUNK + AHEAD) :], float(self._bands.max()))
            with torch.inference_mode():
                made.append(self._network(torch.from_numpy(window.T[None]))[0].numpy().T)
        self._pending = pending
        return np.concatenate(made)


def _mel_filters() -> NDArray[np.float32]:
    """(201, BANDS) triangles of equal area on the mel scale from 0 to 8 kHz."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), BANDS + 2) / 2595) - 1)
    hz = np.linspace(0, 8000, _WINDOW // 2 + 1)[:, None]
    rising, falling = (hz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hz) / np.diff(edges)[1:]
    return (np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


_hann: Final = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
_mel: Final = _mel_filters()
