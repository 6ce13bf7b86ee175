"""Debian's Chromium for tests: pages, what their consoles complain about, and a cable to the server that can be cut."""

from __future__ import annotations

import contextlib
import importlib.resources
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 240_000
"""What only a hang reaches: on a busy machine a page needs minutes for what it does in a second."""

AXE = Path(str(importlib.resources.files("axe_playwright_python"))) / "axe.min.js"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@contextlib.contextmanager
def launching() -> Iterator[Callable[..., Any]]:
    """launch(*flags): a browser, as many as are wanted; all closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])


@contextlib.contextmanager
def served(*words: str) -> Iterator[str]:
    """A command that serves the page; gives its address."""
    command = [sys.executable, "-m", "realtime", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"page: (\S+)", line):
                yield found[1]
                break
        else:
            raise AssertionError(f"no page, exit status {process.wait()}")
        process.terminate()
        process.stdout.read()
    assert process.returncode == 0


def opened(browser: Any, address: str, **how: Any) -> tuple[Any, list[str]]:
    """A page, and what its console complains about."""
    page = browser.new_page(**how)
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    return page, complaints


def accessible(page: Any) -> None:
    """Assert that axe-core finds nothing that anybody is shut out by, in the page as it is now."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    violations = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
    assert violations == [], violations


class Cable:
    """A TCP relay to a server on loopback that can be cut and mended."""

    def __init__(self, address: str) -> None:
        self._target = ("127.0.0.1", urlsplit(address).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._ends: list[socket.socket] = []
        self._whole = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """All connections break; new ones are refused."""
        self._whole = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._whole:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_relay, args=(one, other), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
