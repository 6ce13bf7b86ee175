"""Whether perception keeps up with what is captured, as the statuses of its workers tell it, and what gives way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dhmd.features.face import RATE_HZ as FACES_HZ
from dhmd.modality import Modality
from realtime.perception.attention import PATIENCE, Progress
from realtime.perception.people import PeopleInView
from realtime.workers import WorkerState, WorkerStatus

WORKERS: Final = {"face": Modality.VISION, "voice": Modality.AUDIO, "transcript": Modality.TEXT}
CHECK_S: Final = 0.25
RECOVERED_S: Final = 2.0
"""Time for which a worker has to keep up until it is called running again."""
PEOPLE: Final = "people"
"""Name under which it is told how often people are followed."""
SLOW: Final = 0.75
"""Of the full rate, below which it is told."""
KEEPS_UP: Final = frozenset({WorkerState.RUNNING, WorkerState.BEHIND, WorkerState.LATE})


class LagWatch:
    """Tells of a worker that falls behind: `behind` while what it looked at last stands for now, then `late`.

    on_status: told what the workers report, and in between how they keep up. Belongs to the event loop.
    """

    def __init__(self, progress: Progress, on_status: Callable[[WorkerStatus], None]) -> None:
        self._progress = progress
        self._on_status = on_status
        self._told: dict[str, WorkerStatus] = {}
        self._behind_until_s: dict[str, float] = {}

    def on_worker(self, status: WorkerStatus) -> None:
        """Pass on what a worker reports."""
        self._told[status.worker] = status
        self._on_status(status)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            for worker, modality in WORKERS.items():
                status = self._told.get(worker)
                if status is not None and status.state in KEEPS_UP:
                    self._check(status, self._progress.lag_s(modality), modality)

    def _check(self, status: WorkerStatus, lag_s: float, modality: Modality) -> None:
        patience, now_s = PATIENCE[modality], time.monotonic()
        if lag_s > patience.longest_s:
            state, reason = WorkerState.LATE, "has looked at nothing new for too long to say what is there"
        elif lag_s > patience.behind_s:
            state, reason = WorkerState.BEHIND, f"{lag_s:.1f} s behind; the machine is busy"
        else:
            state, reason = WorkerState.RUNNING, ""
        if state is not WorkerState.RUNNING:
            self._behind_until_s[status.worker] = now_s + RECOVERED_S
        elif now_s < self._behind_until_s.get(status.worker, 0.0):
            return
        if state is not status.state:
            self.on_worker(replace(status, state=state, reason=reason))


class PeopleLag:
    """Tells, as a worker's status, where there are more people than the machine can follow at the full rate."""

    def __init__(self, on_status: Callable[[WorkerStatus], None]) -> None:
        self._on_status = on_status
        self._state = WorkerState.RUNNING

    def check(self, view: PeopleInView, estimates_hz: tuple[float, float] | None = None) -> None:
        """Look at who is in view now. estimates_hz: of each of them, and of one alone, where they are made here."""
        rates = [("looks at each", view.faces_hz, FACES_HZ)]
        if estimates_hz is not None:
            rates.append(("estimates each", *estimates_hz))
        people = len(view.people)
        slow = [
            f"{what} {rate_hz:.0f} times a second"
            for what, rate_hz, full_hz in rates
            if people > 1 and rate_hz < SLOW * full_hz
        ]
        state = WorkerState.BEHIND if slow else WorkerState.RUNNING
        if state is not self._state:
            self._state = state
            reason = f"{people} people share the processor: {' and '.join(slow)}" if slow else ""
            self._on_status(WorkerStatus(PEOPLE, state, reason))


class Yielding:
    """Words wait while face or voice are behind, for a while each time: they are the first to give way."""

    LONGEST_S: Final = 3.0

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._since_s: float | None = None

    def gives_way(self) -> bool:
        """Returns whether to wait a little more."""
        pressed = any(
            self._progress.lag_s(modality) > PATIENCE[modality].behind_s
            for modality in (Modality.VISION, Modality.AUDIO)
        )
        now_s = time.monotonic()
        self._since_s = self._since_s or now_s
        if pressed and now_s - self._since_s < self.LONGEST_S:
            return True
        self._since_s = None
        return False
