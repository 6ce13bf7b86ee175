"""A busy machine is told of, and words give way first."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dhmd.modality import Modality
from realtime.messages.estimate import Dropped
from realtime.perception.attention import Progress
from realtime.perception.people import PeopleInView, PersonInView
from realtime.pipeline import lag
from realtime.pipeline.lag import LagWatch, PeopleLag, Yielding
from realtime.programs.edge import EdgeHop, EdgePipeline
from realtime.scale.edge_stream import DueWindow
from realtime.workers import WorkerState, WorkerStatus

RUNNING = WorkerStatus("face", WorkerState.RUNNING, restarts=2)


class Late:
    """Stand-in for Progress: as late as told."""

    def __init__(self, **lags_s: float) -> None:
        self.lags_s = lags_s

    def lag_s(self, modality: Modality) -> float:
        return self.lags_s.get(modality.name.lower(), 0.0)


def states(late: Late, told: list[WorkerStatus], first: WorkerStatus, lags_s: list[float]) -> list[WorkerState]:
    """What is told of the face as its lag changes, each for long enough to be noticed."""

    async def go() -> None:
        watch = LagWatch(cast("Progress", late), told.append)
        watch.on_worker(first)
        watching = asyncio.create_task(watch.watch())
        for lag_s in lags_s:
            late.lags_s["vision"] = lag_s
            count = len(told)
            for _ in range(2000):
                await asyncio.sleep(0.001)
                if len(told) > count:
                    break
        watching.cancel()

    asyncio.run(go())
    return [status.state for status in told]


def test_a_worker_that_falls_behind_is_behind_then_late_and_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "CHECK_S", 0.001)
    monkeypatch.setattr(lag, "RECOVERED_S", 0.01)
    told = list[WorkerStatus]()
    assert states(Late(), told, RUNNING, [0.9, 2.5, 0.0]) == [
        *(WorkerState.RUNNING, WorkerState.BEHIND, WorkerState.LATE, WorkerState.RUNNING)
    ]
    assert told[1].reason == "0.9 s behind; the machine is busy"
    assert {status.restarts for status in told} == {2}
    assert not told[-1].reason


@pytest.mark.parametrize("state", [WorkerState.RESTARTING, WorkerState.PAUSED, WorkerState.ENDED])
def test_what_does_not_run_is_not_called_behind(monkeypatch: pytest.MonkeyPatch, state: WorkerState) -> None:
    monkeypatch.setattr(lag, "CHECK_S", 0.0001)
    assert states(Late(), [], WorkerStatus("face", state), [9.0]) == [state]


@pytest.mark.parametrize(
    ("lags_s", "waits"), [({"vision": 0.6}, True), ({"audio": 1.2}, True), ({"vision": 0.3}, False)]
)
def test_words_wait_while_face_or_voice_are_behind(lags_s: dict[str, float], waits: bool) -> None:
    late: Any = Late(**lags_s)
    assert Yielding(late).gives_way() is waits


def test_words_wait_no_longer_than_their_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    late: Any = Late(vision=9.0)
    yielding = Yielding(late)
    assert yielding.gives_way()
    monkeypatch.setattr(Yielding, "LONGEST_S", 0.0)
    assert not yielding.gives_way()
    monkeypatch.undo()
    assert yielding.gives_way()


def in_view(people: int, faces_hz: float) -> PeopleInView:
    each = [PersonInView(number, 0.0, (0.0, 0.0, 0.1, 0.1)) for number in range(people)]
    return PeopleInView(1.0, tuple(each), faces_hz=faces_hz)


def test_more_people_than_can_be_followed_are_told_of_until_they_can() -> None:
    told = list[WorkerStatus]()
    lag = PeopleLag(told.append)
    for people, faces_hz, each_hz in ((2, 15.0, 10.0), (1, 5.0, 10.0), (4, 8.0, 5.0), (4, 8.0, 5.0), (4, 15.0, 10.0)):
        lag.check(in_view(people, faces_hz), (each_hz, 10.0))
    assert [status.state for status in told] == [WorkerState.BEHIND, WorkerState.RUNNING]
    assert told[0].reason == (
        "4 people share the processor: looks at each 8 times a second and estimates each 5 times a second"
    )


def test_an_edge_tells_of_them_too() -> None:
    perception: Any = None
    clock: Any = None
    nothing = Dropped(video=0, audio=0)
    edge = EdgePipeline(perception, clock, lambda: nothing, lambda _: None, timed=True)
    edge.emit(EdgeHop(DueWindow(1.0, 4, nothing), in_view(4, 8.0)))
    assert edge.outputs.workers["people"].reason == "4 people share the processor: looks at each 8 times a second"
