"""Labels on stretches of a recording: of the last seconds, or from a begin to an end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

from realtime.errors import CommandRefused
from realtime.session.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Label:
    """Emotion and sentiment of a stretch; either may be missing, or both."""

    emotion: str | None = None
    sentiment: float | None = None


NO_LABEL: Final = Label()


class Marks:
    """Marks on one recording, one at a time. Times are on the stream clock, in answers from the recording's start.

    Raises CommandRefused out of turn, once the recording has failed, and for a stretch of no length.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.begun_s: float | None = None
        """Start of the mark that is under way."""
        self.label = NO_LABEL
        """Label of the mark that is under way."""

    def last(self, seconds: float, now_s: float, label: Label) -> str:
        """Mark the last seconds, as far as they are recorded; returns in words which stretch that is."""
        return self._write(now_s - seconds, now_s, label)

    def begin(self, now_s: float, label: Label = NO_LABEL) -> None:
        if self.begun_s is not None:
            raise CommandRefused("a mark is under way already; end it first")
        self._check()
        self.begun_s, self.label = now_s, label

    def end(self, now_s: float, label: Label = NO_LABEL) -> str:
        """End the mark that is under way; returns in words which stretch it is.

        label: replaces that of the begin, unless it is empty.
        """
        if self.begun_s is None:
            raise CommandRefused("no mark is under way; begin one first")
        begun_s, self.begun_s = self.begun_s, None
        return self._write(begun_s, now_s, self.label if label == NO_LABEL else label)

    def close(self, now_s: float) -> None:
        """End the mark that is under way with its recording. Nobody asked for it, so nobody is told of a refusal."""
        with contextlib.suppress(CommandRefused):
            self.end(now_s)

    def _check(self) -> None:
        if self.recorder.failed is not None:
            raise CommandRefused("nothing is recorded any more")

    def _write(self, start_s: float, end_s: float, label: Label) -> str:
        self._check()
        began_s = self.recorder.start_s
        start_s = max(start_s, began_s)
        if end_s <= start_s:
            raise CommandRefused("nothing was recorded yet that could be marked")
        self.recorder.mark(start_s, end_s, label.emotion, label.sentiment)
        return f"marked {start_s - began_s:.1f} to {end_s - began_s:.1f} s"
