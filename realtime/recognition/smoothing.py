"""An average over time of what is published, for displays that shall not flicker."""

from __future__ import annotations

import math
from dataclasses import replace

from realtime.recognition.engine import Inference, Sentiment


class Smoothing:
    """Exponential average of emotions and sentiment with a time constant of `seconds`; 0: none.

    What one modality says alone and the graph stay as they are. The average begins anew when nothing was perceived.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._last: Inference | None = None
        self._end_s = 0.0

    def of(self, inference: Inference | None, end_s: float) -> Inference | None:
        """The inference as it is to be published, of the window that ends at `end_s`. Called in one thread."""
        last, passed_s, seconds = self._last, end_s - self._end_s, self.seconds
        if inference is not None and last is not None and seconds > 0:
            kept = math.exp(-passed_s / seconds)

            def mean(old: float, new: float) -> float:
                return kept * old + (1 - kept) * new

            was, now = last.sentiment, inference.sentiment
            inference = replace(
                inference,
                emotions=tuple(mean(*pair) for pair in zip(last.emotions, inference.emotions, strict=True)),
                sentiment=Sentiment(mean(was.value, now.value), mean(was.low, now.low), mean(was.high, now.high)),
            )
        self._last, self._end_s = inference, end_s
        return inference
