"""Keys of the terminal that label stretches of the session as it is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator

from dhmd.labels import EMOTIONS
from realtime.clock import SessionClock
from realtime.session.recorder import Recorder
from realtime.terminal.view import TerminalView

_CHOICES = " ".join(f"{number} {name}" for number, name in enumerate(EMOTIONS, start=1))
_SEQUENCE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
"""Arrows, function keys and Alt with a key: Escape and more, some of it digits."""
_EMOTION_OF = {str(number): name for number, name in enumerate(EMOTIONS, start=1)}


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


@contextlib.contextmanager
def marking_keys(
    recorder: Recorder | None,
    clock: SessionClock,
    window_s: float,
    view: TerminalView,
    tell: Callable[[str], object] = lambda _: None,
) -> Iterator[Marking]:
    """Marking by the keys of the terminal in which there is a live view, and in which we are in front.

    tell: who else is told what was marked.
    """

    def show(line: str) -> None:
        view.dashboard.marks = line
        tell(line)

    marking = Marking(recorder, clock, window_s, show)
    stdin = sys.stdin if view.console.is_terminal else None
    if stdin is not None and stdin.isatty() and _in_front(stdin.fileno()):
        with _pressed(stdin.fileno(), marking.press):
            marking.teach()
            yield marking
    else:
        yield marking


@contextlib.contextmanager
def _pressed(terminal: int, on_key: Callable[[str], object]) -> Iterator[None]:
    """Each key is told at once, from the event loop; the terminal's modes are as before at the end."""
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(terminal, 64) if _in_front(terminal) else b""
        if not data:
            loop.remove_reader(terminal)
        for key in _SEQUENCE.sub(b"", data).decode(errors="ignore"):
            on_key(key)

    def begin() -> None:
        if _in_front(terminal):
            modes = termios.tcgetattr(terminal)
            modes[3] &= ~(termios.ECHO | termios.ICANON)
            modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
            termios.tcsetattr(terminal, termios.TCSAFLUSH, modes)
            loop.add_reader(terminal, read)

    try:
        begin()
        # A shell gives a program that was suspended its own modes.
        loop.add_signal_handler(signal.SIGCONT, begin)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_reader(terminal)
        if _in_front(terminal):
            with contextlib.suppress(termios.error):  # it may be gone
                termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


def _in_front(terminal: int) -> bool:
    """Whether its keys are meant for us. A program behind another one is stopped when it reads or sets a terminal."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return True  # it controls no program, so none is in front
