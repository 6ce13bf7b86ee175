"""What of a stream is published: an average where one is asked for, and a top emotion that changes by a margin."""

from __future__ import annotations

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import EmotionName
from realtime.recognition.engine import Inference
from realtime.recognition.smoothing import Smoothing
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness


class Hysteresis:
    """Top emotion of one stream: it stays until another has led it by `margin`, a probability, for a second.

    A lead twice as large takes half the time, and one that is lost is given back: the sum of leads over time counts, as
    in Page's test for a change (Biometrika 41, 1954). It begins anew, with the likeliest, when nothing was perceived.
    """

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self._top: int | None = None
        self._lead = [0.0] * len(EMOTIONS)
        """Lead of each emotion over the one on top, probability times seconds; never below 0."""
        self._end_s = 0.0

    def top(self, emotions: tuple[float, ...] | None, end_s: float) -> EmotionName | None:
        """Return the emotion on top, now that the window that ends at `end_s` has these probabilities.

        None: nothing was perceived.
        """
        passed_s, self._end_s = end_s - self._end_s, end_s
        if emotions is None:
            self._top = None
            return None
        if self._top is None:
            self._put_on_top(max(range(len(emotions)), key=emotions.__getitem__))
        else:
            ahead = [probability - emotions[self._top] for probability in emotions]
            self._lead = [max(0.0, lead + now * passed_s) for lead, now in zip(self._lead, ahead, strict=True)]
            first = max(range(len(emotions)), key=self._lead.__getitem__)
            if self._lead[first] > self.margin:
                self._put_on_top(first)
        return None if self._top is None else EMOTIONS[self._top]

    def _put_on_top(self, emotion: int) -> None:
        self._top, self._lead = emotion, [0.0] * len(EMOTIONS)


class Steadied:
    """Inferences of one stream, in their order, as they are to be published. Used in one thread."""

    def __init__(self, steadiness: Steadiness = BY_DEFAULT) -> None:
        self.smoothing = Smoothing(steadiness.smoothing_s)
        self._hysteresis = Hysteresis(steadiness.margin)

    @property
    def steadiness(self) -> Steadiness:
        return Steadiness(self.smoothing.seconds, self._hysteresis.margin)

    def keep(self, steadiness: Steadiness) -> None:
        """Keep the answer this still from now on. For any thread."""
        self.smoothing.seconds, self._hysteresis.margin = steadiness.smoothing_s, steadiness.margin

    def of(self, inference: Inference | None, end_s: float) -> tuple[Inference | None, EmotionName | None]:
        """Return what to publish of the window that ends at `end_s`, and the emotion on top."""
        shown = self.smoothing.of(inference, end_s)
        return shown, self._hysteresis.top(None if shown is None else shown.emotions, end_s)
