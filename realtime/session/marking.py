"""Keys, of the terminal or of the page, that label stretches of a session while it is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dhmd.labels import EMOTIONS
from realtime.clock import StreamClock
from realtime.errors import CommandRefused
from realtime.session.marks import Label, Marks
from realtime.session.recorder import Recorder

_CHOICES: Final = " ".join(f"{number} {name}" for number, name in enumerate(EMOTIONS, start=1))
_LABEL_OF: Final = {str(number): Label(name) for number, name in enumerate(EMOTIONS, start=1)}


class Marking:
    """Turns keys into marks: m begins a stretch and ends it, 1 to 7 give its emotion; with none under way they mark the
    last window.

    recorder: None where nothing is recorded; a key then shows how to record. show: draws a line or two.
    """

    def __init__(
        self, recorder: Recorder | None, clock: StreamClock, window_s: float, show: Callable[[str], object]
    ) -> None:
        self._marks = None if recorder is None else Marks(recorder)
        self._clock = clock
        self._window_s = window_s
        self._show = show
        self._last = ""

    def press(self, key: str) -> None:
        if key != "m" and key not in _LABEL_OF:
            return
        if self._marks is None:
            self._show("marks need a recording: start with --record FILE.mcap")
            return
        self._carry_out(self._marks, key)
        self.teach()

    def _carry_out(self, marks: Marks, key: str) -> None:
        now_s = self._clock.now()
        try:
            if key != "m" and marks.begun_s is not None:
                marks.label = _LABEL_OF[key]
            elif key != "m":
                self._last = marks.last(self._window_s, now_s, _LABEL_OF[key]) + _said(_LABEL_OF[key])
            elif marks.begun_s is None:
                marks.begin(now_s)
            else:
                self._last = marks.end(now_s) + _said(marks.label)
        except CommandRefused as refusal:
            self._last = f"not marked: {refusal}"

    def teach(self) -> None:
        """Show which keys there are, and what was marked last or is being marked."""
        if (marks := self._marks) is None:
            return
        if marks.begun_s is None:
            self._show(f"m mark · last {self._window_s:g} s: {_CHOICES}\n{self._last}".rstrip())
        else:
            under_way = f"marking since {marks.begun_s - marks.recorder.start_s:.1f} s{_said(marks.label)}"
            self._show(f"m ends the mark · {_CHOICES}\n{under_way}")

    def end(self) -> None:
        """End the mark that is under way with the run, and show it."""
        if self._marks is not None and self._marks.begun_s is not None:
            self._carry_out(self._marks, "m")
        self._show(self._last)


def _said(label: Label) -> str:
    return ", no emotion" if label.emotion is None else f": {label.emotion}"
