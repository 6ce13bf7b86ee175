"""Marks made by keys: in a real terminal, as someone at the keyboard makes them."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dhmd.labels import EMOTIONS
from dhmd.session import Session, schema
from realtime.clock import MediaClock
from realtime.demo import CLIP
from realtime.session.marking import Marking

PROGRAM = (str(Path(sys.executable).with_name("dhmd-live")),)
PATIENCE_S = 120.0
SLOW_S = 2.0
"""From a key pressed to the mark, on a busy machine."""
LEADING = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""A program that gets the terminal for its own, as a shell gives it."""


class Terminal:
    """`dhmd-live` in a terminal of its own: what it shows is kept, keys can be pressed."""

    def __init__(self, *command: str) -> None:
        self.keyboard, self._screen = pty.openpty()
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        self.before = termios.tcgetattr(self._screen)
        self.shown = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", LEADING, sys.executable, *command],
            stdin=self._screen,
            stdout=self._screen,
            stderr=self._screen,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self.keyboard, 65536).decode(errors="replace")
            except OSError:
                return

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._screen)

    def wait_for(self, happened: Callable[[], Any]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not happened():
            assert self._process.poll() is None, f"ended early: {self.shown[-3000:]}"
            assert time.monotonic() < deadline_s, f"waited in vain: {self.shown[-3000:]}"
            time.sleep(0.02)

    def press(self, keys: bytes) -> float:
        """Returns the unix time."""
        at = time.time()
        os.write(self.keyboard, keys)
        return at

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._screen)
        self._reader.join(PATIENCE_S)
        os.close(self.keyboard)


@pytest.fixture
def start(untrained_checkpoint: Path) -> Iterator[Callable[..., Terminal]]:
    """start(*arguments, program=...): a run on the demo clip."""
    terminals: list[Terminal] = []

    def run(*arguments: str, program: tuple[str, ...] = PROGRAM) -> Terminal:
        common = ["run", "--source", str(CLIP), "--broker", "none", "--checkpoint", str(untrained_checkpoint)]
        terminals.append(Terminal(*program, *common, *arguments))
        return terminals[-1]

    yield run
    for terminal in terminals:
        terminal.close()


def marks(path: Path) -> list[tuple[float, float, str]]:
    """Start and end in unix seconds, and the emotion."""
    session = Session.open(path)
    epoch = session.epoch_unix
    said = [record.message for record in session.records({schema.MARK})]
    return [(epoch + one.start_s, epoch + one.end_s, one.emotion) for one in said]


def test_keys_mark_the_session_and_the_terminal_is_as_before(start: Callable[..., Terminal], tmp_path: Path) -> None:
    path = tmp_path / "talk.mcap"
    terminal = start("--record", str(path), "--duration", "16")
    terminal.wait_for(lambda: "m mark · last 5 s: 1 neutral 2 happy 3 sad" in terminal.shown)
    assert not terminal.modes[3] & (termios.ECHO | termios.ICANON)
    assert terminal.modes[3] & termios.ISIG
    begun = terminal.press(b"m")
    terminal.wait_for(lambda: "m ends the mark" in terminal.shown)
    terminal.wait_for(lambda: "no emotion" in terminal.shown)
    terminal.press(b"x\x1b[15~\x1b[A\x1bOP\x1b23")  # no key of ours, F5, up, F1, Alt and 2; then 3
    terminal.wait_for(lambda: "s: sad" in terminal.shown)
    ended = terminal.press(b"m")
    terminal.wait_for(lambda: "marked " in terminal.shown)
    at_once = terminal.press(b"2")
    terminal.wait_for(lambda: terminal.shown.count("s: happy"))
    left_open = terminal.press(b"m4")
    assert terminal.wait() == 0
    assert terminal.modes == terminal.before
    stretch, window, last = marks(path)
    assert stretch[0] == pytest.approx(begun, abs=SLOW_S)
    assert stretch[1] == pytest.approx(ended, abs=SLOW_S)
    assert stretch[0] < stretch[1]
    assert stretch[2] == "sad"
    assert window[1] == pytest.approx(at_once, abs=SLOW_S)
    assert window[1] - window[0] <= 5.0 + 1e-6
    assert window[2] == "happy"
    assert last[0] == pytest.approx(left_open, abs=SLOW_S)
    assert last[1] > last[0]
    assert last[2] == EMOTIONS[3]


@pytest.mark.parametrize("how", ["typed", signal.SIGINT, signal.SIGTERM])
def test_stopped_a_run_leaves_the_terminal_as_it_was_and_the_marks_in_the_file(
    how: str | signal.Signals, start: Callable[..., Terminal], tmp_path: Path
) -> None:
    path = tmp_path / "talk.mcap"
    terminal = start("--record", str(path))
    terminal.wait_for(lambda: "m mark" in terminal.shown)
    terminal.press(b"m7")
    terminal.wait_for(lambda: "s: surprise" in terminal.shown)
    if isinstance(how, signal.Signals):
        terminal.send(how)
    else:
        terminal.press(b"\x03")
    assert terminal.wait() == 0
    assert terminal.modes == terminal.before
    assert [emotion for _, _, emotion in marks(path)] == ["surprise"]


FAULTY = """
from realtime import cli
from realtime.pipeline import pipeline
emit = pipeline.Pipeline.emit
def failing(self, emission):
    emit(self, emission)
    if emission.estimate.seq == 20:
        raise RuntimeError("a fault of ours")
pipeline.Pipeline.emit = failing
cli.program()
"""


def test_after_a_fault_of_ours_the_terminal_is_as_it_was(start: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = start("--record", str(tmp_path / "talk.mcap"), program=("-c", FAULTY))
    terminal.wait_for(lambda: not terminal.modes[3] & termios.ICANON)
    assert terminal.wait() != 0
    assert terminal.modes == terminal.before


def test_marks_without_a_recording_say_what_is_missing(start: Callable[..., Terminal]) -> None:
    terminal = start()
    terminal.wait_for(lambda: "sentiment" in terminal.shown)
    assert "m mark" not in terminal.shown
    terminal.press(b"m")
    terminal.wait_for(lambda: "marks need a recording: start with --record FILE.mcap" in terminal.shown)
    terminal.press(b"\x03")
    assert terminal.wait() == 0
    assert terminal.modes == terminal.before


BEHIND = """
import subprocess, sys
sys.exit(subprocess.Popen([sys.executable, *sys.argv[1:]], process_group=0).wait())
"""


def test_behind_another_program_a_run_leaves_the_keys_to_that(start: Callable[..., Terminal], tmp_path: Path) -> None:
    """A program that set the terminal from there would be stopped."""
    terminal = start("--record", str(tmp_path / "talk.mcap"), "--duration", "2", program=("-c", BEHIND, *PROGRAM))
    terminal.wait_for(lambda: "sentiment" in terminal.shown)
    assert terminal.modes == terminal.before
    terminal.press(b"m\n")
    assert terminal.wait() == 0
    assert terminal.modes == terminal.before
    assert "m mark" not in terminal.shown
    assert marks(tmp_path / "talk.mcap") == []


def test_suspended_and_gone_on_with_the_keys_are_read_again(start: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = start("--record", str(tmp_path / "talk.mcap"))
    terminal.wait_for(lambda: "m mark" in terminal.shown)
    terminal.send(signal.SIGSTOP)
    termios.tcsetattr(terminal.keyboard, termios.TCSANOW, terminal.before)  # as a shell does
    terminal.send(signal.SIGCONT)
    terminal.wait_for(lambda: not terminal.modes[3] & termios.ICANON)
    terminal.press(b"m")
    terminal.wait_for(lambda: "m ends the mark" in terminal.shown)
    terminal.press(b"\x03")
    assert terminal.wait() == 0
    assert terminal.modes == terminal.before


class Recorded:
    """Takes marks."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.start_s = 0.0
        self.marks: list[tuple[float, float, str | None]] = []

    def mark(self, start_s: float, end_s: float, emotion: str | None, _: float | None) -> None:
        self.marks.append((start_s, end_s, emotion))


class Keyboard:
    """Marking on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock, self.recorder, self.shown = MediaClock(), Recorded(), ""
        self.marking = Marking(self.recorder, self.clock, 5.0, self._show)  # type: ignore[arg-type]

    def _show(self, line: str) -> None:
        self.shown = line

    def press(self, key: str, at_s: float) -> list[tuple[float, float, str | None]]:
        self.clock.advance(at_s)
        self.marking.press(key)
        return self.recorder.marks


def test_what_the_keys_do() -> None:
    keys = Keyboard()
    assert keys.press("2", 3.0) == [(0.0, 3.0, "happy")]
    assert keys.press("m", 4.0) == keys.press("q", 5.0) == keys.recorder.marks[:1]
    assert keys.shown.endswith("marking since 4.0 s, no emotion")
    keys.press("3", 6.0)
    keys.press("4", 6.5)  # another choice
    assert keys.press("m", 9.0)[1:] == [(4.0, 9.0, "angry")]
    assert keys.shown.endswith("\nmarked 4.0 to 9.0 s: angry")
    keys.press("m", 10.0)
    assert keys.press("m", 11.0)[2:] == [(10.0, 11.0, None)]
    keys.press("m", 12.0)
    keys.press("m", 12.0)  # no time has passed
    assert len(keys.recorder.marks) == 3
    keys.press("m", 13.0)
    keys.clock.advance(14.0)
    keys.marking.end()
    keys.marking.end()
    assert keys.recorder.marks[3:] == [(13.0, 14.0, None)]
    assert keys.shown == "marked 13.0 to 14.0 s, no emotion"


def test_a_recording_that_stopped_takes_no_marks() -> None:
    keys = Keyboard()
    keys.recorder.failed = "talk.mcap: No space left on device"
    assert keys.press("1", 9.0) == []
    assert keys.shown.endswith("not marked: nothing is recorded any more")
