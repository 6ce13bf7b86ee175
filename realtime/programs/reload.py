"""Settings that are read again while a run goes on: at SIGHUP, as supervisors send it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dhmd.errors import DHMDError
from realtime.recognition.steadied import Steadied
from realtime.settings import RunSettings

logger = logging.getLogger(__name__)

LIVE: Final = frozenset({"smoothing_s", "margin"})
"""Settings that a run can follow; the rest is for its next start."""


@contextmanager
def followed(reread: Callable[[], RunSettings] | None, settings: RunSettings, steadied: Steadied) -> Iterator[None]:
    """Follow the settings while the context lasts. reread: reads them again; None where they cannot change.

    A run in a terminal ends with it, as everything there does: it is left alone.
    """
    hangup = getattr(signal, "SIGHUP", None)
    if reread is None or hangup is None or (sys.stdin is not None and sys.stdin.isatty()):
        yield
        return
    loop, known = asyncio.get_running_loop(), settings

    def reload() -> None:
        nonlocal known
        try:
            new = reread()
        except DHMDError as error:
            logger.warning("%s; the settings stay as they were", error)
            return
        changed = {key for key in RunSettings.model_fields if getattr(new, key) != getattr(known, key)}
        if changed & LIVE:
            steadied.keep(new.steadiness)
        for what, keys in (("followed from now on", changed & LIVE), ("followed at the next start", changed - LIVE)):
            if keys:
                logger.warning("settings read again: %s %s", ", ".join(sorted(keys)), what)
        known = new

    before = signal.signal(hangup, lambda *_: loop.call_soon_threadsafe(reload))
    try:
        yield
    finally:
        signal.signal(hangup, before)
