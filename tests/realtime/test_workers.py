"""One failing worker is restarted and reported; the others go on; everything ends when told to."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import CameraUnavailable
from realtime.workers import Backoff, WorkerState, WorkerStatus, supervise

QUICK = Backoff(first_s=0.01, cap_s=0.02)
Running = Callable[[], None]


def states(reports: list[WorkerStatus]) -> list[WorkerState]:
    return [report.state for report in reports]


def test_a_worker_that_ends_by_itself_has_ended_not_failed() -> None:
    reports: list[WorkerStatus] = []

    def worker(stop: threading.Event, running: Running) -> None:
        running()
        running()

    asyncio.run(supervise("film", worker, on_status=reports.append))
    assert states(reports) == [WorkerState.STARTING, WorkerState.RUNNING, WorkerState.ENDED]
    assert {report.worker for report in reports} == {"film"}


def test_faults_restart_the_worker_until_it_works() -> None:
    reports: list[WorkerStatus] = []
    attempts = itertools.count()

    def worker(stop: threading.Event, running: Running) -> None:
        attempt = next(attempts)
        if attempt == 0:
            raise RuntimeError("driver fell over")
        running()
        if attempt == 1:
            raise CameraUnavailable("camera:0: stopped delivering")

    asyncio.run(supervise("camera", worker, on_status=reports.append, backoff=QUICK))
    assert states(reports) == [
        WorkerState.STARTING,
        WorkerState.RESTARTING,
        WorkerState.STARTING,
        WorkerState.RUNNING,
        WorkerState.RESTARTING,
        WorkerState.STARTING,
        WorkerState.RUNNING,
        WorkerState.ENDED,
    ]
    assert [report.reason for report in reports if report.reason] == [
        "RuntimeError: driver fell over",
        "camera:0: stopped delivering",
    ]
    assert all((report.retry_in_s or 0) > 0 for report in reports if report.state is WorkerState.RESTARTING)
    assert [report.restarts for report in reports] == [0, 0, 1, 1, 1, 2, 2, 2]


def test_what_is_not_there_at_the_first_start_is_final() -> None:
    reports: list[WorkerStatus] = []

    def worker(stop: threading.Event, running: Running) -> None:
        raise CameraUnavailable("camera:7: no such camera")

    with pytest.raises(CameraUnavailable, match="camera:7"):
        asyncio.run(supervise("camera", worker, on_status=reports.append, backoff=QUICK))
    assert states(reports) == [WorkerState.STARTING, WorkerState.FAILED]
    assert reports[-1].reason == "camera:7: no such camera"


def test_one_failing_worker_leaves_the_others_alone() -> None:
    beats = threading.Semaphore(0)
    reports: list[WorkerStatus] = []

    def broken(stop: threading.Event, running: Running) -> None:
        running()
        raise ValueError("bad frame")

    def steady(stop: threading.Event, running: Running) -> None:
        running()
        while not stop.wait(0.001):
            beats.release()

    async def session() -> None:
        thrice = asyncio.Event()

        def report(status: WorkerStatus) -> None:
            reports.append(status)
            if status.restarts >= 3:
                thrice.set()

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(supervise(name, worker, on_status=report, backoff=QUICK))
                for name, worker in (("broken", broken), ("steady", steady))
            ]
            await thrice.wait()
            while beats.acquire(blocking=False):
                pass
            # It still beats after its neighbour's faults.
            await asyncio.get_running_loop().run_in_executor(None, beats.acquire)
            for task in tasks:
                task.cancel()

    asyncio.run(session())
    steady_states = states([report for report in reports if report.worker == "steady"])
    assert steady_states == [WorkerState.STARTING, WorkerState.RUNNING, WorkerState.ENDED]


def test_cancelling_stops_the_thread_and_says_so() -> None:
    reports: list[WorkerStatus] = []
    left = threading.Event()

    def worker(stop: threading.Event, running: Running) -> None:
        running()
        stop.wait()
        left.set()

    asyncio.run(cancelled_once_running(worker, reports))
    assert left.is_set()
    assert (reports[-1].state, reports[-1].reason) == (WorkerState.ENDED, "stopped")


def test_cancelling_during_a_wait_for_the_next_try_ends_it() -> None:
    reports: list[WorkerStatus] = []

    def worker(stop: threading.Event, running: Running) -> None:
        running()
        raise OSError("gone")

    asyncio.run(cancelled_once_running(worker, reports, until=WorkerState.RESTARTING))
    assert (reports[-1].state, reports[-1].reason) == (WorkerState.ENDED, "stopped")


def test_a_thread_stuck_in_native_code_is_left_behind_and_told_of() -> None:
    reports: list[WorkerStatus] = []
    release = threading.Event()

    def worker(stop: threading.Event, running: Running) -> None:
        running()
        release.wait()

    asyncio.run(cancelled_once_running(worker, reports, grace_s=0.05))
    assert reports[-1].state is WorkerState.ENDED
    assert "left behind" in reports[-1].reason
    release.set()


def test_a_stuck_thread_does_not_keep_the_interpreter_alive() -> None:
    script = """
import asyncio, time
from realtime.workers import supervise

async def session():
    stuck = lambda stop, running: time.sleep(3600)
    worker = asyncio.create_task(supervise("stuck", stuck, on_status=print, grace_s=0.1))
    await asyncio.sleep(0.2)
    worker.cancel()
    await asyncio.wait([worker])

asyncio.run(session())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "left behind" in done.stdout


async def cancelled_once_running(
    worker: Callable[[threading.Event, Running], None],
    reports: list[WorkerStatus],
    *,
    until: WorkerState = WorkerState.RUNNING,
    grace_s: float = 30.0,
) -> None:
    """Supervise `worker`, and cancel it when it is reported to be in state `until`."""
    reached = asyncio.Event()

    def report(status: WorkerStatus) -> None:
        reports.append(status)
        if status.state is until:
            reached.set()

    task = asyncio.create_task(supervise("worker", worker, on_status=report, grace_s=grace_s, backoff=Backoff(60, 60)))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@given(failures=st.integers(1, 10_000), first_s=st.floats(0.01, 5), cap_s=st.floats(5, 60))
def test_waits_double_up_to_the_cap_and_are_jittered_downwards(failures: int, first_s: float, cap_s: float) -> None:
    full_s = min(cap_s, first_s * 2.0 ** min(failures - 1, 60))
    assert full_s / 2 <= Backoff(first_s, cap_s).wait_s(failures) <= full_s
