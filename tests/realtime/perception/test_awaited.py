"""Ticks find their place behind the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.perception.awaited import AwaitedPicture


class Ticks:
    """Ticks beside pictures, on a clock of their own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.picture = AwaitedPicture(lambda: self.now_s)

    def shift_s(self, age_s: float | None) -> float:
        """By how much a tick moves that comes so long after a picture was taken up; None: there was none yet."""
        if age_s is not None:
            with self.picture.looked_at(0.0):
                self.now_s += age_s
        return self.picture.shift_s(0.1)


def waits_s(every_s: float, hop_s: float, first_s: float, ticks: int = 300, jitter_s: float = 0.0) -> list[float]:
    """How long the newest picture has been taken up at each tick, pictures coming every `every_s`."""
    chance = np.random.default_rng(1)
    taken_s = np.arange(0, ticks * hop_s * 1.2, every_s)
    taken_s = taken_s + chance.uniform(0, 1, len(taken_s)) * jitter_s
    beside, due_s, waits = Ticks(), 1.0 + first_s, []
    for _ in range(ticks):
        due_s += hop_s
        waits.append(due_s - taken_s[taken_s <= due_s].max())
        due_s += beside.shift_s(waits[-1])
    return waits


@pytest.mark.parametrize("first_s", [0.0, 0.011, 0.03, 0.052])
@pytest.mark.parametrize(
    ("every_s", "hop_s"),
    [(1 / 15, 0.1), (1 / 15 * 1.0005, 0.1), (1 / 15, 0.2), (1 / 10, 0.05), (1 / 7, 0.1)],
    ids=["10 Hz of 15", "a clock that runs otherwise", "5 Hz of 15", "20 Hz of 10", "10 Hz of 7"],
)
def test_the_best_of_the_ticks_falls_right_behind_a_picture(every_s: float, hop_s: float, first_s: float) -> None:
    settled = waits_s(every_s, hop_s, first_s)[100:]
    least = [min(settled[i : i + 12]) for i in range(len(settled) - 11)]
    assert max(least) < AwaitedPicture.BEHIND_S + 0.004
    assert min(least) > 0.0


def test_pictures_that_come_unevenly_are_not_missed() -> None:
    settled = waits_s(1 / 15, 0.1, 0.02, jitter_s=0.006)[100:]
    # Of three ticks in a row one or two are right behind a picture.
    assert all(min(settled[i : i + 3]) < 0.02 for i in range(len(settled) - 2))


def test_without_pictures_the_ticks_stay_where_they_are() -> None:
    beside = Ticks()
    assert {beside.shift_s(None) for _ in range(20)} == {0.0}
    assert Ticks().shift_s(30.0) == 0.0


def test_no_tick_is_moved_by_more_than_a_millisecond() -> None:
    beside = Ticks()
    shifts = [beside.shift_s(wait_s) for wait_s in np.random.default_rng(0).uniform(0, 0.2, 500)]
    assert max(map(abs, shifts)) <= 0.001


@pytest.mark.parametrize(("hop_s", "longest_s"), [(0.02, 0.016), (0.1, 0.08), (1.0, 0.16)])
def test_an_estimate_waits_for_the_picture_of_its_window_and_its_tick_is_not_missed(
    hop_s: float, longest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, waited = AwaitedPicture(), list[float]()
    monkeypatch.setattr(picture._seen, "wait", waited.append)
    picture.shift_s(hop_s)
    with picture.looked_at(3.0):
        picture.wait(2.9)
        assert waited == []
        picture.wait(3.1)
    assert waited == pytest.approx([longest_s])
