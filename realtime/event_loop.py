"""The event loop of a program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end, as `asyncio.run` does, in a loop that waits for the sockets of the MQTT client: the one that
    Windows has by default cannot."""
    with _interrupts_cancel(), asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def _interrupts_cancel() -> Iterator[None]:
    """Let Ctrl-C cancel what waits, rather than raise in the middle of what works: asyncio does, where it finds
    Python's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        # A handler that was set meanwhile stays.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
