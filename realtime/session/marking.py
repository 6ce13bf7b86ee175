"""Keys, of the terminal or of the page, that label stretches of a session while it is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dhmd.labels import EMOTIONS
from realtime.clock import SessionClock
from realtime.session.recorder import Recorder

_CHOICES: Final = " ".join(f"{number} {name}" for number, name in enumerate(EMOTIONS, start=1))
_EMOTION_OF: Final = {str(number): name for number, name in enumerate(EMOTIONS, start=1)}


class Marking:
    """What the keys do: m begins a stretch and ends it, 1 to 7 say its emotion; with none under way they mark the last
    window.

    recorder: None where nothing is recorded; a key then says how it would be. show: draws what there is to know.
    """

    def __init__(
        self, recorder: Recorder | None, clock: SessionClock, window_s: float, show: Callable[[str], object]
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._window_s = window_s
        self._show = show
        self._start_s: float | None = None
        self._emotion: str | None = None
        self._last = ""

    def press(self, key: str) -> None:
        if key != "m" and key not in _EMOTION_OF:
            return
        if self._recorder is None:
            self._show("marks need a recording: start with --record FILE.mcap")
            return
        now_s = self._clock.now()
        if key != "m" and self._start_s is None:
            self._mark(max(self._recorder.start_s, now_s - self._window_s), now_s, _EMOTION_OF[key])
        elif key != "m":
            self._emotion = _EMOTION_OF[key]
        elif self._start_s is None:
            self._start_s, self._emotion = now_s, None
        else:
            self._finish()
        self.teach()

    def teach(self) -> None:
        """Show which keys there are, and what was marked last or is being marked."""
        if self._recorder is None:
            return
        if self._start_s is None:
            self._show(f"m mark · last {self._window_s:g} s: {_CHOICES}\n{self._last}".rstrip())
        else:
            under_way = f"marking since {self._start_s - self._recorder.start_s:.1f} s{_said(self._emotion)}"
            self._show(f"m ends the mark · {_CHOICES}\n{under_way}")

    def end(self) -> None:
        """The run is over, and with it a stretch that is under way."""
        self._finish()
        self._show(self._last)

    def _finish(self) -> None:
        if self._start_s is not None:
            start_s, self._start_s = self._start_s, None
            self._mark(start_s, self._clock.now(), self._emotion)

    def _mark(self, start_s: float, end_s: float, emotion: str | None) -> None:
        if self._recorder is None or end_s <= start_s:
            return
        if self._recorder.failed is not None:
            self._last = "not marked: nothing is recorded any more"
            return
        self._recorder.mark(start_s, end_s, emotion)
        began_s = self._recorder.start_s
        self._last = f"marked {start_s - began_s:.1f} to {end_s - began_s:.1f} s{_said(emotion)}"


def _said(emotion: str | None) -> str:
    return ", no emotion" if emotion is None else f": {emotion}"
