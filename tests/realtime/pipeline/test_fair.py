from __future__ import annotations

from collections import Counter

import pytest

from realtime.pipeline.fair import SHARE, FairTurns

HOP_S = 0.1


def chosen(turns: FairTurns, people: list[int], ticks: int, window_s: float) -> list[list[int]]:
    """Whose turn it is at each of so many ticks, where a window takes so long."""
    told = []
    for tick in range(ticks):
        told.append(turns.at(tick * HOP_S, people))
        turns.took(1 + len(told[-1]), (1 + len(told[-1])) * window_s)
    return told


def test_all_are_estimated_at_each_tick_where_there_is_time() -> None:
    turns = FairTurns()
    assert chosen(turns, [1, 2, 3, 4], 20, 0.005) == [[1, 2, 3, 4]] * 20
    assert turns.rate_hz(4) == pytest.approx(1 / HOP_S)


def test_with_too_many_each_has_as_many_turns_as_the_others() -> None:
    turns = FairTurns()
    window_s = SHARE * HOP_S / 3.5
    told = chosen(turns, list(range(1, 9)), 2 + 80, window_s)[2:]
    assert {len(people) for people in told} == {3}
    counted = Counter(person for people in told for person in people)
    assert max(counted.values()) - min(counted.values()) <= 1
    assert turns.rate_hz(8) == pytest.approx(3 / 8 / HOP_S)


def test_one_has_a_turn_however_slow_the_machine_is_and_who_comes_has_the_next() -> None:
    turns = FairTurns()
    chosen(turns, [1, 2], 10, 1.0)
    assert len(turns.at(10 * HOP_S, [1, 2])) == 1
    assert turns.at(11 * HOP_S, [1, 2, 3]) == [3]
