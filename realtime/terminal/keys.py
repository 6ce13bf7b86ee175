"""Keys that are pressed in the terminal while a live view is drawn in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final

from realtime.terminal.view import TerminalView

if sys.platform == "win32":
    import msvcrt
else:
    import termios

_SEQUENCE: Final = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
"""Arrows, function keys and Alt with a key: Escape and more, some of it digits."""
_FIRST_OF_TWO: Final = "\x00\xe0"
"""What a console of Windows gives before the code of an arrow or a function key."""
_POLL_S: Final = 0.05


@contextlib.contextmanager
def listening(view: TerminalView, on_key: Callable[[str], object]) -> Iterator[bool]:
    """Hands over each key that is pressed in the view's terminal, from the event loop; gives whether any can be: there
    is a terminal, and this program is in front of it.
    """
    stdin = sys.stdin if view.console.is_terminal else None
    if stdin is not None and stdin.isatty() and _in_front(stdin.fileno()):
        with _pressed(stdin.fileno(), on_key):
            yield True
    else:
        yield False


if sys.platform == "win32":

    @contextlib.contextmanager
    def _pressed(_: int, on_key: Callable[[str], object]) -> Iterator[None]:
        """Poll the console: an event loop cannot wait for it."""

        async def poll() -> None:
            while True:
                while msvcrt.kbhit():
                    if (key := msvcrt.getwch()) in _FIRST_OF_TWO:
                        msvcrt.getwch()
                    else:
                        on_key(key)
                await asyncio.sleep(_POLL_S)

        task = asyncio.get_running_loop().create_task(poll(), name="keys")
        try:
            yield
        finally:
            task.cancel()

    def _in_front(_: int) -> bool:
        return True

else:

    @contextlib.contextmanager
    def _pressed(terminal: int, on_key: Callable[[str], object]) -> Iterator[None]:
        """Tell each key at once, from the event loop; restores the terminal's modes at the end."""
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
        """Tell whether its keys are meant for us. A program behind another one is stopped when it reads or sets a
        terminal."""
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:
            return True  # it controls no program, so none is in front
