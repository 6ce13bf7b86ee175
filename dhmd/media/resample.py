"""Sound of any rate and layout to what the extractors take: 16 kHz, mono, float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dhmd.features.timeline import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import av


class Resampler:
    """Streaming; the first sample out is at the time of the first one in. Give all frames in order, then `flush`."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[int, str, str] | None = None

    def push(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        """(N,) what is ready; a little less than was put in, as the filter looks ahead."""
        from av import AudioResampler

        shape = (frame.sample_rate, frame.layout.name, frame.format.name)
        tail = self.flush() if shape != self._shape else np.empty(0, np.float32)
        if self._resampler is None:
            # 16-bit on purpose: to float, FFmpeg mixes channels down without keeping their sum within [-1, 1].
            self._resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            self._shape = shape
        # Samples are counted, not stamped: gaps are the caller's to fill.
        frame.pts = None
        return np.concatenate([tail, _float(self._resampler.resample(frame))])

    def flush(self) -> NDArray[np.float32]:
        """(N,) the rest; the next frame begins anew."""
        if self._resampler is None:
            return np.empty(0, np.float32)
        rest = _float(self._resampler.resample(None))
        self._resampler = None
        return rest


def _float(frames: list[av.AudioFrame]) -> NDArray[np.float32]:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts).astype(np.float32) / np.float32(32768) if parts else np.empty(0, np.float32)
