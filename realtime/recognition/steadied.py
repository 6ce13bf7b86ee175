"""What of a stream is published: an average where one is asked for, and a top emotion that changes by a margin."""

from __future__ import annotations

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import EmotionName
from realtime.recognition.engine import Inference
from realtime.recognition.smoothing import Smoothing
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness


class Hysteresis:
    """Top emotion of one stream: it stays until another leads it by more than `margin`.

    It begins anew, with the likeliest, when nothing was perceived.
    """

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._top: int | None = None

    def top(self, emotions: tuple[float, ...] | None) -> EmotionName | None:
        """Return the emotion on top, now that these are the newest probabilities; None: nothing was perceived."""
        if emotions is None:
            self._top = None
            return None
        likeliest = max(range(len(emotions)), key=emotions.__getitem__)
        if self._top is None or emotions[likeliest] - emotions[self._top] > self._margin:
            self._top = likeliest
        return EMOTIONS[self._top]


class Steadied:
    """Inferences of one stream, in their order, as they are to be published. Used in one thread."""

    def __init__(self, steadiness: Steadiness = BY_DEFAULT) -> None:
        self.smoothing = Smoothing(steadiness.smoothing_s)
        self._hysteresis = Hysteresis(steadiness.margin)

    def of(self, inference: Inference | None, end_s: float) -> tuple[Inference | None, EmotionName | None]:
        """Return what to publish of the window that ends at `end_s`, and the emotion on top."""
        shown = self.smoothing.of(inference, end_s)
        return shown, self._hysteresis.top(None if shown is None else shown.emotions)
