"""Recognition inside another program, without a broker: estimates as an iterator, synchronous or not.

from realtime import recognise
for estimate in recognise("talk.mp4"):
    print(estimate.t, estimate.top)
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from typing import Final

from rich.console import Console

from realtime import event_loop
from realtime.capture.camera import is_camera
from realtime.layers import read_settings
from realtime.messages.estimate import Estimate
from realtime.pipeline.pipeline import Emission
from realtime.programs.run import prepared
from realtime.programs.running import reached

MOST_WAITING: Final = 64
"""Estimates that wait for a slow reader. Of a live source the oldest are then dropped; a file waits."""


def recognise(source: str = "camera:0", /, **settings: object) -> Generator[Estimate, None, None]:
    """Recognise from a camera, a stream or a file, and yield each estimate.

    source, settings: keys of a configuration file, see `dhmd-live run --help`. A file is read as fast as the machine
    allows, unless `pace="realtime"`. With `people` above 1 those of each person come after that of the stream, and have
    their number in `person`. Closing the generator ends the run. Recognition takes threads of its own. Raises
    DHMDLiveError for what is wrong in the request, or not available.
    """
    handed = _HandedOver()
    thread = threading.Thread(target=handed.fill, args=(source, settings), name="recognise", daemon=True)
    thread.start()
    try:
        while (got := handed.queue.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        handed.closing.set()
        thread.join()


class _HandedOver:
    """What one thread makes for another: estimates, then None or what went wrong."""

    def __init__(self) -> None:
        self.queue: queue.Queue[Estimate | BaseException | None] = queue.Queue(maxsize=1)
        self.closing = threading.Event()
        """Set by the reader when it leaves."""

    def fill(self, source: str, settings: dict[str, object]) -> None:
        try:
            event_loop.run(self._recognise(source, settings))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._put(error)
        else:
            self._put(None)

    async def _recognise(self, source: str, settings: dict[str, object]) -> None:
        async with aclosing(recognising(source, **settings)) as estimates:
            async for estimate in estimates:
                if not await asyncio.to_thread(self._put, estimate):
                    return

    def _put(self, what: Estimate | BaseException | None) -> bool:
        """Wait until there is room. Returns false once nobody reads any more."""
        while not self.closing.is_set():
            with contextlib.suppress(queue.Full):
                self.queue.put(what, timeout=0.1)
                return True
        return False


async def recognising(source: str = "camera:0", /, **settings: object) -> AsyncGenerator[Estimate, None]:
    """Recognise as `recognise` does, in a running event loop; use `contextlib.aclosing` to leave early."""
    pace = "realtime" if source == "none" or is_camera(source) else "max"
    given = read_settings(None, {"source": source, **settings}, {"broker": "none", "pace": pace})
    waiting = _Waiting(patient=given.pace == "max")
    console = Console(quiet=True)
    manager = prepared(given, console, title="recognise", sinks=[waiting])
    under_way = await asyncio.to_thread(manager.__enter__)
    stop = asyncio.Event()

    async def go() -> None:
        async with reached(given, console) as broker:
            await under_way.go(console, stop, broker)

    task = asyncio.create_task(go(), name="recognise")
    task.add_done_callback(lambda _: waiting.changed.set())
    try:
        while not task.done() or waiting.estimates:
            while waiting.estimates:
                estimate = waiting.estimates.popleft()
                waiting.room.set()
                yield estimate
            waiting.changed.clear()
            if not task.done():
                await waiting.changed.wait()
        task.result()
    finally:
        stop.set()
        waiting.room.set()
        await asyncio.wait({task})
        await asyncio.to_thread(manager.__exit__, None, None, None)


class _Waiting:
    """A sink whose estimates wait for their reader, in the same event loop."""

    def __init__(self, *, patient: bool) -> None:
        self.estimates: deque[Estimate] = deque(maxlen=None if patient else MOST_WAITING)
        self.changed, self.room = asyncio.Event(), asyncio.Event()

    def on_estimate(self, emission: Emission) -> None:
        self.estimates.append(emission.estimate)
        self.changed.set()

    on_person = on_estimate

    async def settled(self) -> None:
        """Return once the reader has caught up; only a file waits for it."""
        while len(self.estimates) >= MOST_WAITING:
            self.room.clear()
            await self.room.wait()
