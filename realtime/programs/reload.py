"""Settings that are read again while a run goes on: at SIGHUP, as supervisors send it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from dhmd.errors import DHMDError
from realtime.recognition.steadied import Steadied
from realtime.settings import RunSettings

logger = logging.getLogger(__name__)

Reread = Callable[[], Sequence[RunSettings]]
LIVE: Final = frozenset({"smoothing_s", "margin"})
"""Settings that a run can follow; the rest is for its next start."""


@contextmanager
def followed(
    reread: Reread | None, settings: Sequence[RunSettings], steadied: Mapping[str, Steadied]
) -> Iterator[None]:
    """Follow the settings of streams while the context lasts. reread: reads them again; None where they cannot change.
    steadied: of each stream, by its name.

    A run in a terminal ends with it, as everything there does: it is left alone.
    """
    hangup = getattr(signal, "SIGHUP", None)
    if reread is None or hangup is None or (sys.stdin is not None and sys.stdin.isatty()):
        yield
        return
    loop, known = asyncio.get_running_loop(), {one.stream: one for one in settings}

    def reload() -> None:
        nonlocal known
        try:
            new = reread()
        except DHMDError as error:
            logger.warning("%s; the settings stay as they were", error)
            return
        # Of a run of one stream, the name itself may change.
        found = dict(zip(known, new, strict=True)) if len(new) == len(known) == 1 else {one.stream: one for one in new}
        for name, before in known.items():
            of = f" of {name}" if len(known) > 1 else ""
            if (now := found.get(name)) is None:
                logger.warning("settings read again: the stream %s ends at the next start", name)
                continue
            changed = {key for key in RunSettings.model_fields if getattr(now, key) != getattr(before, key)}
            if changed & LIVE:
                steadied[name].keep(now.steadiness)
            for what, keys in (("from now on", changed & LIVE), ("at the next start", changed - LIVE)):
                if keys:
                    logger.warning("settings%s read again: %s followed %s", of, ", ".join(sorted(keys)), what)
        if later := found.keys() - known.keys():
            logger.warning("settings read again: %s will be read at the next start", ", ".join(sorted(later)))
        known = {name: found.get(name, before) for name, before in known.items()}

    before = signal.signal(hangup, lambda *_: loop.call_soon_threadsafe(reload))
    try:
        yield
    finally:
        signal.signal(hangup, before)
