"""What is added to a stream's outputs is told what it has a method for, and what it missed."""

from __future__ import annotations

from typing import Any

from realtime.clock import MediaClock
from realtime.pipeline.outputs import Outputs
from realtime.workers import WorkerState, WorkerStatus

RUNNING = WorkerStatus("video", WorkerState.RUNNING)
PAUSED = WorkerStatus("video", WorkerState.PAUSED)


class Counter:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_estimate(self, emission: Any) -> None:
        self.told.append(emission)


class Status:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_worker(self, status: WorkerStatus) -> None:
        self.told.append(status)

    def on_connection(self, state: str) -> None:
        self.told.append(state)


def outputs() -> Outputs[Any]:
    return Outputs(None, MediaClock())


def test_each_output_is_told_what_it_has_a_method_for() -> None:
    every, counter, status = outputs(), Counter(), Status()
    every.add(counter)
    every.add(status)
    every.on_estimate("one")
    every.on_worker(RUNNING)
    every.on_connection("connected")
    assert counter.told == ["one"]
    assert status.told == [RUNNING, "connected"]
    assert every.workers == {"video": RUNNING}


def test_a_newcomer_is_told_the_newest_state_alone() -> None:
    every, status = outputs(), Status()
    for told in (RUNNING, PAUSED):
        every.on_worker(told)
    every.on_connection("away")
    every.on_connection("connected")
    every.add(status)
    assert status.told == [PAUSED, "connected"]


def test_before_there_is_a_connection_nothing_is_said_of_one() -> None:
    every, status = outputs(), Status()
    every.add(status)
    assert status.told == []


def test_outputs_can_be_an_output() -> None:
    inner, outer, counter = outputs(), outputs(), Counter()
    inner.add(counter)
    outer.add(inner)
    outer.on_estimate("one")
    assert counter.told == ["one"]
