"""Settings that are read again at SIGHUP."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
from pathlib import Path

import pytest

from realtime.layers import read_settings
from realtime.programs.reload import followed
from realtime.recognition.steadied import Steadied
from realtime.recognition.steadiness import Steadiness

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal"),
]


async def test_what_smooths_is_followed_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "live.yaml"
    file.write_text("stream: hall\nmargin: 0.1\n")

    async def told(text: str) -> None:
        caplog.clear()
        file.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)
        while not caplog.messages:  # noqa: ASYNC110 - of the program's own log
            await asyncio.sleep(0.01)

    monkeypatch.setattr("sys.stdin", io.StringIO())
    caplog.set_level(logging.WARNING)
    settings = read_settings(file, {})
    steadied, before = Steadied(settings.steadiness), signal.getsignal(signal.SIGHUP)
    with followed(lambda: [read_settings(file, {})], [settings], {"hall": steadied}):
        await told("stream: yard\nmargin: 0.3\nsmoothing_s: 2\n")
        assert steadied.steadiness == Steadiness(2.0, 0.3)
        assert caplog.messages == [
            "settings read again: margin, smoothing_s followed from now on",
            "settings read again: stream followed at the next start",
        ]
        await told("stream: yard\nmargin: 3\n")
        assert "margin" in caplog.text
        assert "the settings stay as they were" in caplog.text
        assert steadied.steadiness == Steadiness(2.0, 0.3)
    assert signal.getsignal(signal.SIGHUP) is before


async def test_a_run_in_a_terminal_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    settings, before = read_settings(None, {}), signal.getsignal(signal.SIGHUP)
    with followed(lambda: [settings], [settings], {"default": Steadied(settings.steadiness)}):
        assert signal.getsignal(signal.SIGHUP) is before
