"""Supervision of blocking workers: each runs in a thread of its own, is restarted when it fails, and is reported on.

    async with asyncio.TaskGroup() as group:
        group.create_task(supervise("camera", read_camera, on_status=publish), name="camera")

Threads are daemons made here, not those of asyncio's executor, which the interpreter would wait for at exit: a driver
call that never returns must not keep the program alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dhmd.errors import DHMDError
from realtime.concerned import carried

logger = logging.getLogger(__name__)


class WorkerState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    BEHIND = "behind"
    """It runs, and cannot keep up: what it looked at last is old, and still stands for now."""
    LATE = "late"
    """What it looked at last is too old to stand for now."""
    PAUSED = "paused"
    RESTARTING = "restarting"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker does now. reason: why it restarts, is behind or paused, failed or was stopped; else empty.
    retry_in_s: wait before the next try. restarts: how often it was started again."""

    worker: str
    state: WorkerState
    reason: str = ""
    retry_in_s: float | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_s` to `cap_s`, each shortened by a random part of up to a half."""

    first_s: float = 0.5
    cap_s: float = 30.0

    def wait_s(self, failures: int) -> float:
        """Wait after the `failures`-th failure in a row (1 for the first)."""
        full_s = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 32))
        return full_s * random.uniform(0.5, 1.0)


class Pause:
    """Holds workers back while it lasts, so that what they keep open is closed. Lives in the event loop."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the workers are held back; None while there is no pause."""
        self.holding: set[str] = set()
        """Workers whose threads still run."""
        self._let_go = asyncio.Event()
        self._changed = asyncio.Event()

    def begin(self, reason: str) -> None:
        self._set(reason)

    def end(self) -> None:
        self._set(None)

    def let_go(self, worker: str) -> None:
        """Take note that the thread of a worker has ended."""
        self.holding.discard(worker)
        self._let_go.set()

    def _set(self, reason: str | None) -> None:
        self.reason = reason
        self._changed.set()
        self._changed = asyncio.Event()

    async def released(self, timeout_s: float) -> bool:
        """Wait until all workers have let go, no longer than `timeout_s`; tell whether they have."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.holding:
                    await self._let_go.wait()
                    self._let_go.clear()
        return not self.holding

    async def until(self, *, paused: bool) -> None:
        while (self.reason is not None) != paused:
            await self._changed.wait()


BlockingWorker = Callable[[threading.Event, Callable[[], None]], None]
"""`worker(stop, running)`: runs until its source ends (returns), fails (raises), or `stop` is set (returns soon).
It calls `running()` once it delivers."""


async def supervise(
    name: str,
    worker: BlockingWorker,
    *,
    on_status: Callable[[WorkerStatus], None],
    backoff: Backoff = Backoff(),
    grace_s: float = 1.5,
    pause: Pause | None = None,
    patient: bool = False,
) -> None:
    """Run `worker` in a thread until it ends; start it again with backoff when it raises. In a pause, it is stopped.

    A DHMDError raised before the worker ever called `running()` is final and propagates: what was asked for is
    not there. Anything later (a camera pulled out, a stream that stalls) only restarts this worker, as does anything
    at all where supervision is patient. Cancelling sets the stop event and waits at most `grace_s` for the thread; one
    that is stuck in native code is left behind.
    `on_status` is called in the event loop.
    """
    ever_ran = patient
    failures = restarts = 0
    left_behind = False
    pause = pause or Pause()

    def report(state: WorkerState, reason: str = "", retry_in_s: float | None = None) -> None:
        on_status(WorkerStatus(name, state, reason, retry_in_s, restarts))

    try:
        while True:
            if pause.reason is not None:
                report(WorkerState.PAUSED, pause.reason)
                await pause.until(paused=False)
                # What another program took meanwhile is waited for, as what was pulled out.
                ever_ran = True
            report(WorkerState.STARTING)
            attempt = _Attempt(name, worker, pause, on_running=lambda: report(WorkerState.RUNNING))
            try:
                if await attempt.paused(grace_s, lambda reason: report(WorkerState.PAUSED, reason)):
                    continue
            except asyncio.CancelledError:
                left_behind = not await attempt.stop(grace_s)
                raise
            error = attempt.error
            if error is None:
                report(WorkerState.ENDED)
                return
            reason = str(error) if isinstance(error, DHMDError) else f"{type(error).__name__}: {error}"
            ever_ran |= attempt.running_since_s is not None
            if isinstance(error, DHMDError) and not ever_ran:
                report(WorkerState.FAILED, reason)
                raise error
            ran_s = 0.0 if attempt.running_since_s is None else time.monotonic() - attempt.running_since_s
            failures = 1 if ran_s > backoff.cap_s else failures + 1
            wait_s = backoff.wait_s(failures)
            logger.warning("%s: %s; next try in %.1f s", name, reason, wait_s)
            logger.debug("%s failed", name, exc_info=error)
            report(WorkerState.RESTARTING, reason, wait_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pause.until(paused=True), wait_s)
            restarts += 1
    except asyncio.CancelledError:
        reason = "stopped"
        if left_behind:
            reason = f"stopped; its thread did not return within {grace_s:g} s and was left behind"
            logger.warning("%s: %s", name, reason)
        report(WorkerState.ENDED, reason)
        raise


class _Attempt:
    """One life of a worker's thread."""

    def __init__(self, name: str, worker: BlockingWorker, pause: Pause, on_running: Callable[[], None]) -> None:
        self.running_since_s: float | None = None
        self._on_running = on_running
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._pause = pause
        pause.holding.add(name)
        self._done.add_done_callback(lambda _: pause.let_go(name))
        threading.Thread(target=carried(self._run), args=(worker,), name=name, daemon=True).start()

    async def paused(self, grace_s: float, on_held: Callable[[str], None]) -> bool:
        """Return once it has ended (false), or was stopped as a pause began (true). on_held: told why it waits, when
        the thread does not return within `grace_s`."""
        await self._ended_or(self._pause.until(paused=True))
        if self._done.done():
            return False
        if not await self.stop(grace_s) and self._pause.reason is not None:
            on_held(f"{self._pause.reason}; what it reads from is not released yet")
            await self._ended_or(self._pause.until(paused=False))
        return True

    @property
    def error(self) -> BaseException | None:
        """The error that the worker raised; None when it ended by itself."""
        return self._done.result()

    async def _ended_or(self, other: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(other)
        waited: set[asyncio.Future[Any]] = {self._done, task}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()

    async def stop(self, grace_s: float) -> bool:
        """Ask the thread to end; tell whether it did within `grace_s`."""
        self._stop.set()
        finished, _ = await asyncio.wait({self._done}, timeout=grace_s)
        return bool(finished)

    def _run(self, worker: BlockingWorker) -> None:
        error: BaseException | None = None
        try:
            worker(self._stop, lambda: self._in_loop(self._running))
        except BaseException as raised:  # noqa: BLE001 - handed to the event loop whole
            error = raised
        self._in_loop(lambda: self._done.set_result(error))

    def _in_loop(self, call: Callable[[], None]) -> None:
        # A thread that was left behind may outlive the loop; nobody listens to it any more.
        if not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call)

    def _running(self) -> None:
        if self.running_since_s is None and not self._stop.is_set():
            self.running_since_s = time.monotonic()
            self._on_running()
