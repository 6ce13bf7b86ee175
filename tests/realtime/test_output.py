"""Output that fails, on a full disk or into a closed pipe, ends no run and loses no recording."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dhmd.session import Session, schema
from realtime.cli import entry
from realtime.session.writer import SessionWriter

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirection", [">/dev/full 2>/dev/full", ">&- 2>&-", "| true"])
def test_a_run_whose_output_fails_goes_on_and_its_recording_is_whole(
    redirection: str, talking_clip: Path, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    session = tmp_path / "talk.mcap"
    command = (
        f"set -o pipefail; {sys.executable} -m realtime run --source {talking_clip} --broker none "
        f"--checkpoint {untrained_checkpoint} --record {session} {redirection}"
    )
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    estimates = list(Session.open(session).records({schema.ESTIMATE}))
    assert len(estimates) >= 20


def test_a_listing_that_nobody_reads_any_more_ends_without_a_traceback(talking_clip: Path) -> None:
    ran = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m realtime devices | true"], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ran.stderr


def test_the_version_is_told(live: Callable[..., Any]) -> None:
    assert live("--version").out == f"dhmd-live {version('dhmd')}\n"


def test_an_interrupt_that_native_code_makes_an_error_of_its_own_is_an_interrupt() -> None:
    program = """
import os, signal, sys, time
from realtime.cli import entry

def command(_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape")

entry.COMMANDS = (lambda commands: commands.add_parser("load").set_defaults(command=command),)
sys.argv = ["dhmd-live", "load"]
entry.program()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


@pytest.mark.parametrize("made", ["bytearray(2**33)", "__import__('torch').empty(2**33)"])
def test_memory_that_is_not_there_is_one_line(made: str) -> None:
    program = f"""
import resource, sys
from realtime.cli import entry

def command(_):
    resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))
    {made}

entry.COMMANDS = (lambda commands: commands.add_parser("load").set_defaults(command=command),)
sys.argv = ["dhmd-live", "load"]
entry.program()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    line = "error: this process gets no more memory; end other programs, or let it have 1.5 GB\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", line)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"


def test_a_terminal_obeys_nothing_that_comes_from_others(live: Any, refuse: Any, tmp_path: Path) -> None:
    path = tmp_path / f"talk{HOSTILE}.mcap"
    line = refuse(1, "info", path)
    assert line.isprintable()
    with path.open("wb") as file:
        head = {"version": "1", "epoch_unix": "0", "hop_s": "1", "timed": "true", "features": "[]", "settings": "{}"}
        SessionWriter(file, 0.0, head | {"stream": HOSTILE, "model": HOSTILE, "checkpoint": HOSTILE}).finish()
    shown = live("info", path).out
    assert "owned" in shown
    assert all(part.isprintable() for part in shown.splitlines())
    assert all(part.isprintable() for part in live("--verbose", "run", HOSTILE).err.splitlines())


def test_a_line_of_the_log_is_printable() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", (HOSTILE,), None)
    assert entry._Lines().format(record).isprintable()


def test_messages_without_end_are_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(entry.time, "monotonic", lambda: now_s)
    lines = entry._Lines()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "again", (), None)
    for _ in range(1000):
        lines.emit(record)
    assert len(capsys.readouterr().err.splitlines()) == entry.MESSAGES_AT_ONCE
    now_s = 60.0
    lines.emit(record)
    assert capsys.readouterr().err == "warning: 900 messages left out\nerror: again\n"
