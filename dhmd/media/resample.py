"""Sound of any rate and layout to what the extractors take: 16 kHz, mono, float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.mixdown import Mixdown, channels_of, weights_of

if TYPE_CHECKING:
    import av


class Resampler:
    """Streaming; the first sample out is at the time of the first one in. Give all frames in order, then `flush`."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._mixdown: Mixdown | None = None
        self._shape: tuple[int, str, str] | None = None

    def push(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        """(N,) what is ready; a little less than was put in, as filter and mix look ahead."""
        from av import AudioResampler

        shape = (frame.sample_rate, frame.layout.name, frame.format.name)
        tail = self.flush() if shape != self._shape else np.empty(0, np.float32)
        if self._resampler is None:
            self._resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            alone = frame.layout.nb_channels == 1
            self._mixdown = None if alone else Mixdown(frame.sample_rate, weights_of(frame.layout))
            self._shape = shape
        if self._mixdown is None:
            # Samples are counted, not stamped: gaps are the caller's to fill.
            frame.pts = None
            return np.concatenate([tail, _float(self._resampler.resample(frame))])
        return np.concatenate([tail, self._resampled(self._mixdown.push(channels_of(frame)))])

    def flush(self) -> NDArray[np.float32]:
        """(N,) the rest; the next frame begins anew."""
        if self._resampler is None:
            return np.empty(0, np.float32)
        held = np.empty(0, np.float32) if self._mixdown is None else self._resampled(self._mixdown.flush())
        rest = _float(self._resampler.resample(None))
        self._resampler = None
        return np.concatenate([held, rest])

    def _resampled(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._resampler is None or self._shape is None or not len(mono):
            return np.empty(0, np.float32)
        return _float(self._resampler.resample(frame_of(mono[np.newaxis], self._shape[0])))


def frame_of(channels: NDArray[np.float32], rate_hz: int) -> av.AudioFrame:
    """A frame of (C, N) samples in [-1, 1]."""
    from av import AudioFrame

    layout = "mono" if len(channels) == 1 else "stereo" if len(channels) == 2 else f"{len(channels)} channels"
    # Interleaved: PyAV knows planes of eight channels at most.
    frame = AudioFrame.from_ndarray(channels.T.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = rate_hz
    return frame


def _float(frames: list[av.AudioFrame]) -> NDArray[np.float32]:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts).astype(np.float32) / np.float32(32768) if parts else np.empty(0, np.float32)
