"""An average over time of what is published, for displays that shall not flicker."""

from __future__ import annotations

import math
from dataclasses import replace

from realtime.messages.estimate import Extra, ExtraClasses, ExtraNumber
from realtime.recognition.engine import Inference, Sentiment, rounded_to_one


class Smoothing:
    """Exponential average of emotions, sentiment and the heads of the checkpoint's own, with a time constant of
    `seconds`; 0: none.

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
                extra={name: _between(last.extra.get(name), one, kept) for name, one in inference.extra.items()},
            )
        self._last, self._end_s = inference, end_s
        return inference


def _between(old: Extra | None, new: Extra, kept: float) -> Extra:
    """What a head says, averaged with what it said; `kept`: share of the latter."""
    if isinstance(old, ExtraNumber) and isinstance(new, ExtraNumber):
        means = {
            name: round(kept * getattr(old, name) + (1 - kept) * getattr(new, name), 4)
            for name in ("value", "low", "high")
        }
        return new.model_copy(update=means)
    if isinstance(old, ExtraClasses) and isinstance(new, ExtraClasses):
        shares = [kept * old.probabilities.get(name, 0.0) + (1 - kept) * p for name, p in new.probabilities.items()]
        probabilities = dict(zip(new.probabilities, rounded_to_one(shares), strict=True))
        return ExtraClasses(top=max(probabilities, key=lambda name: probabilities[name]), probabilities=probabilities)
    return new
