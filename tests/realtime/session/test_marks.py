"""Marks on one recording, one at a time, whoever makes them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from realtime.errors import CommandRefused
from realtime.session.marks import Label, Marks
from realtime.session.recorder import Recorder


class Recorded:
    """A recording of a run that is under way for 100 s; takes marks."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.start_s = 100.0
        self.marks: list[tuple[Any, ...]] = []

    def mark(self, *mark: object) -> None:
        self.marks.append(mark)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def marks(recorded: Recorded) -> Marks:
    return Marks(cast("Recorder", recorded))


def test_a_mark_never_begins_before_its_recording(marks: Marks, recorded: Recorded) -> None:
    assert marks.last(5.0, 103.0, Label("sad")) == "marked 0.0 to 3.0 s"
    marks.begin(99.0)
    assert marks.end(104.0) == "marked 0.0 to 4.0 s"
    assert recorded.marks == [(100.0, 103.0, "sad", None), (100.0, 104.0, None, None)]
    with pytest.raises(CommandRefused, match="nothing was recorded yet"):
        marks.last(5.0, 100.0, Label("sad"))


def test_the_label_of_the_end_replaces_that_of_the_begin(marks: Marks, recorded: Recorded) -> None:
    for label in (Label(), Label("angry"), Label(sentiment=0.0)):
        marks.begin(101.0, Label("sad", -1.5))
        marks.end(102.0, label)
    assert [mark[2:] for mark in recorded.marks] == [("sad", -1.5), ("angry", None), (None, 0.0)]


def test_out_of_turn_a_mark_is_refused_and_the_one_under_way_stays(marks: Marks, recorded: Recorded) -> None:
    with pytest.raises(CommandRefused, match="begin one first"):
        marks.end(101.0)
    marks.begin(101.0, Label("sad"))
    with pytest.raises(CommandRefused, match="end it first"):
        marks.begin(102.0, Label("happy"))
    marks.end(103.0)
    assert recorded.marks == [(101.0, 103.0, "sad", None)]


def test_a_recording_takes_what_is_being_marked_to_its_end_unless_it_failed(marks: Marks, recorded: Recorded) -> None:
    marks.close(101.0)
    assert not recorded.marks
    marks.begin(101.0)
    marks.close(102.0)
    assert recorded.marks == [(101.0, 102.0, None, None)]
    marks.begin(103.0)
    recorded.failed = "No space left on device"
    marks.close(104.0)
    for refused in (lambda: marks.begin(105.0), lambda: marks.last(1.0, 105.0, Label("sad"))):
        with pytest.raises(CommandRefused, match="nothing is recorded any more"):
            refused()
    assert len(recorded.marks) == 1
