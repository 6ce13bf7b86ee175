"""A server that cannot keep up says so once, and once that it can again."""

from __future__ import annotations

from collections import Counter

from realtime.scale.server import Pressure


def lines(periods: list[tuple[int, int]]) -> list[str | None]:
    """What is told at the end of each period, of the windows that came in it and those that were overtaken."""
    pressure, counts, now_s = Pressure(), Counter[str](), 100.0
    assert pressure.told(now_s, counts) is None
    told = []
    for windows, overtaken in periods:
        counts += Counter(windows=windows, overtaken=overtaken)
        assert pressure.told(now_s + Pressure.EVERY_S / 2, counts) is None
        now_s += Pressure.EVERY_S
        told.append(pressure.told(now_s, counts))
    return told


def test_what_is_overtaken_now_and_then_is_no_news() -> None:
    assert lines([(2000, 0), (2000, 40), (0, 0)]) == [None, None, None]


def test_pressure_is_told_when_it_begins_and_when_it_is_over() -> None:
    first, second, third, fourth = lines([(4000, 1000), (4000, 2000), (2000, 0), (2000, 0)])
    assert first == (
        "400 windows come a second, more than this server can estimate: 25% are overtaken by newer ones, "
        "and the streams have fewer estimates, none later; start another server"
    )
    assert second is None
    assert third == "keeps up again: every stream has an estimate for each of its windows"
    assert fourth is None
