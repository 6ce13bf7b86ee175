"""Arithmetic of the accuracy tables, on readings whose answer is known."""

from __future__ import annotations

import math

import pytest

from dhmd.labels import EMOTIONS
from realtime.bench.readings import Kept, Reading, changes_a_minute, kept, shares

HOP_S = 0.1


def reading(*labels: str | None, sure: float = 1.0) -> Reading:
    """A tick a label, of that probability; the rest is `surprise`."""
    rest = 1 - sure
    emotions = [
        None
        if label is None
        else tuple(sure if name == label else rest if name == "surprise" else 0.0 for name in EMOTIONS)
        for label in labels
    ]
    return Reading(HOP_S, [HOP_S * (i + 1) for i in range(len(labels))], emotions)


def test_changes_are_those_between_neighbours_that_have_a_label() -> None:
    flickering = reading("neutral", "sad", "neutral", None, "sad", "sad")
    # Two changes in five ticks that have a label; none over the gap, nor from one clip to the next.
    assert changes_a_minute([flickering], 0.0) == pytest.approx(60 * 2 / 0.5)
    assert changes_a_minute([flickering, reading("angry")], 0.0) == pytest.approx(60 * 2 / 0.6)
    assert changes_a_minute([reading(None, None)], 0.0) == 0.0


def test_a_margin_keeps_what_changes_by_less() -> None:
    close = Reading(HOP_S, [0.1, 0.2], [(0.5, 0.4, 0.1, 0, 0, 0, 0), (0.4, 0.5, 0.1, 0, 0, 0, 0)])
    assert changes_a_minute([close], 0.0) == pytest.approx(60 / 0.2)
    assert changes_a_minute([close], 0.02) == 0.0


def test_shares_are_of_the_ticks_that_have_a_label() -> None:
    found = shares([reading("sad", None, "neutral"), reading("neutral", "neutral")], 0.0)
    assert list(found.items()) == [("neutral", 0.75), ("sad", 0.25)]
    assert shares([reading(None)], 0.0) == {}


def test_ticks_are_set_beside_the_same_moment_of_the_original() -> None:
    original = reading(*["happy"] * 10, *["sad"] * 10)
    assert kept(original, original, 1.0, 0.0) == Kept(20, 20)
    # Twice as fast, the change comes after half the time, and each tick is beside every second one of the original.
    assert kept(original, reading(*["happy"] * 5, *["sad"] * 5), 2.0, 0.0) == Kept(10, 10)
    assert kept(original, reading(*["happy"] * 20, *["sad"] * 20), 0.5, 0.0).share > 0.95
    assert kept(original, reading(*["happy"] * 10), 2.0, 0.0) == Kept(5, 10)


def test_ticks_without_a_label_before_do_not_count_and_those_that_lose_it_do() -> None:
    assert kept(reading(None, "sad", "sad"), reading("sad", "sad", None), 1.0, 0.0) == Kept(1, 2)
    # What lasts longer than the original has no tick beside it.
    assert kept(reading("sad"), reading("sad", "sad", "sad"), 1.0, 0.0) == Kept(1, 1)


def test_what_was_kept_adds_up() -> None:
    assert (Kept(1, 2) + Kept(3, 4)).share == pytest.approx(4 / 6)
    assert math.isnan(Kept().share)
