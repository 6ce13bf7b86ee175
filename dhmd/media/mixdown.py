"""Several channels to one, without losing a voice that the mix would cancel or bury."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av

HOP_S: Final = 0.02
MEMORY_S: Final = 0.2
"""Loudness is that of about so long before."""
BURIED: Final = 10**-0.9
"""Power of the mix by that of the loudest channel (-9 dB) below which that channel is taken instead. Two speakers with
a microphone each, left and right, lie at -6 dB: they stay mixed, so that neither is lost."""
HEARD: Final = 10**-0.6
"""From here on (-6 dB) the mix is good enough again, and a channel as good as the loudest."""
SILENCE: Final = 1e-8
"""Power (-80 dB of full scale) of what is not judged by."""
WEIGHTS: Final = {"FC": 1.0, "FL": 0.5**0.5, "FR": 0.5**0.5, "LFE": 0.0, "LFE2": 0.0}
"""Of channels of surround sound, as FFmpeg has them, 0.5 for others: speech is in the centre."""


class Mixdown:
    """The mix of the channels, or the loudest of them while that is far louder; fades over one hop from one to the
    other. Which, depends on the sound alone, and not on the pieces it comes in.

    weights: of the channels in the mix; they are brought to a sum of 1.
    """

    def __init__(self, rate_hz: int, weights: Sequence[float]) -> None:
        self._weights = np.asarray(weights, np.float32) / np.float32(sum(weights))
        self._hop = max(1, round(rate_hz * HOP_S))
        self._forget = 1 - math.exp(-HOP_S / MEMORY_S)
        self._held = np.empty((len(weights), 0), np.float32)
        self._powers: NDArray[np.float64] | None = None
        self._taken = self._weights
        """Weights by which the last hop was mixed."""

    def push(self, channels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) of whole hops. channels: (C, M)."""
        held = np.concatenate([self._held, channels], axis=1)
        whole = held.shape[1] - held.shape[1] % self._hop
        self._held = held[:, whole:]
        hops = [self._mixed(held[:, begin : begin + self._hop]) for begin in range(0, whole, self._hop)]
        return np.concatenate([np.empty(0, np.float32), *hops])

    def flush(self) -> NDArray[np.float32]:
        """(N,) the rest."""
        rest, self._held = self._held, self._held[:, :0]
        return self._mixed(rest) if rest.shape[1] else np.empty(0, np.float32)

    def _mixed(self, hop: NDArray[np.float32]) -> NDArray[np.float32]:
        before, self._taken = self._taken, self._choice(hop)
        mixed = np.asarray(self._taken @ hop, np.float32)
        if before is self._taken:
            return mixed
        fade = np.linspace(0, 1, hop.shape[1], dtype=np.float32)
        return np.asarray((1 - fade) * (before @ hop) + fade * mixed, np.float32)

    def _choice(self, hop: NDArray[np.float32]) -> NDArray[np.float32]:
        powers = np.square([self._weights @ hop, *hop], dtype=np.float64).mean(axis=1)
        self._powers = powers if self._powers is None else self._powers + self._forget * (powers - self._powers)
        mix, channels = self._powers[0], self._powers[1:]
        loudest = int(channels.argmax())
        enough, is_mix = channels[loudest] * HEARD, self._taken is self._weights
        if channels[loudest] < SILENCE or (is_mix and mix >= channels[loudest] * BURIED):
            return self._taken
        if mix >= enough:
            return self._weights
        if not is_mix and float(self._taken @ channels) >= enough:
            return self._taken
        return np.asarray(np.arange(len(channels)) == loudest, np.float32)


def channels_of(frame: av.AudioFrame) -> NDArray[np.float32]:
    """(C, N) in [-1, 1], of any format."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return np.nan_to_num(samples.astype(np.float32), posinf=1.0, neginf=-1.0)
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples.astype(np.float64) - (full if samples.dtype.kind == "u" else 0.0)) / full).astype(np.float32)


def weights_of(layout: av.AudioLayout) -> list[float]:
    """Weights for the mix of a layout's channels."""
    names = [channel.name for channel in layout.channels]
    if len(names) != layout.nb_channels or "FC" not in names:
        return [1.0] * layout.nb_channels
    return [WEIGHTS.get(name, 0.5) for name in names]
