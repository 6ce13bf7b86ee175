"""Standard output and error that may fail, on a full disk or into a closed pipe, without ending a run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from dhmd.untrusted import plain


class PlainConsole(Console):
    """A console that styles what it prints and obeys nothing that is in it: names, paths and words come from others."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


class Failing:
    """Stands in for a text stream, and falls silent for good at the first error: a view never ends a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = False

    def write(self, text: str) -> int:
        if not self._silent:
            try:
                return self._stream.write(text)
            except (OSError, ValueError):
                self._silent = True
        return len(text)

    def flush(self) -> None:
        if not self._silent:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._silent = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def let_output_fail() -> None:
    """Go on without output once it fails, or where a stream was closed before the start."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process lasts
        setattr(sys, name, Failing(stream))


def flush_output() -> None:
    """Write what is left, if it can be written."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
