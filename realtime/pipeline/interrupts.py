"""Ctrl-C and SIGTERM as one event, and waiting for it or for another."""

from __future__ import annotations

import asyncio
import signal


def stop_when_asked(stop: asyncio.Event | None = None) -> asyncio.Event:
    """An event of the running loop, `stop` or a new one, that SIGINT and SIGTERM set.

    The handlers outlive the loop, unlike asyncio's own: a signal that meets a run which is just ending by itself must
    not turn its result into a death by signal.
    """
    asked = stop or asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(asked.set)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is Windows' own, of Ctrl-Break and of supervisors
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, ask)
    return asked


async def either(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
