"""The sliding window against a model that keeps every row in a list and asks the contract what stands where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dhmd.contract import FeatureSpec, Rows
from dhmd.modality import Modality
from realtime.perception.window import RowRing, SlidingWindow

WIDTH = 2
CPU = torch.device("cpu")
SPECS = {
    Modality.TEXT: FeatureSpec(Modality.TEXT, "test", "1", WIDTH, None, 4, 2.0, 2.0),
    Modality.VISION: FeatureSpec(Modality.VISION, "test", "1", WIDTH, 5.0, 10, 2.0, 0.5),
    Modality.AUDIO: FeatureSpec(Modality.AUDIO, "test", "1", WIDTH, 2.5, 5, 2.0, 1.0),
}
modalities = st.sampled_from(list(Modality))
gaps = st.lists(st.integers(0, 30).map(lambda n: n / 20), max_size=25)
moments = st.integers(0, 1200).map(lambda n: n / 20)


class EverySlidingWindow(RuleBasedStateMachine):
    """Rows come in bursts, by far more than a ring holds; words are replaced; windows are cut at any time."""

    @initialize()
    def start(self) -> None:
        self.window = SlidingWindow(SPECS, CPU)
        self.kept: dict[Modality, list[tuple[float, float]]] = {m: [] for m in Modality}
        self.number = 0

    def _rows(self, first_s: float, between: list[float]) -> Rows:
        times_s = first_s + np.cumsum(np.array(between, np.float64))
        self.number += len(between)
        numbers = np.arange(self.number - len(between), self.number, dtype=np.float32) + 1
        return Rows(times_s, np.stack([numbers, -numbers], axis=1).reshape(-1, WIDTH))

    def _keep(self, modality: Modality, rows: Rows) -> None:
        self.kept[modality] += zip(rows.times_s.tolist(), rows.values[:, 0].tolist(), strict=True)
        self.kept[modality] = self.kept[modality][-RowRing.SPARE * SPECS[modality].steps :]

    @rule(modality=modalities, between=gaps)
    def append(self, modality: Modality, between: list[float]) -> None:
        newest_s = self.kept[modality][-1][0] if self.kept[modality] else 0.0
        rows = self._rows(newest_s, between)
        self.window.append(modality, rows)
        self._keep(modality, rows)

    @rule(modality=modalities, first_s=moments, between=gaps)
    def replace(self, modality: Modality, first_s: float, between: list[float]) -> None:
        rows = self._rows(first_s, between)
        self.window.replace(modality, rows)
        self.kept[modality] = []
        self._keep(modality, rows)

    @rule(modality=modalities, back_s=st.integers(1, 40), between=gaps.filter(bool))
    def late_rows_are_refused_and_change_nothing(self, modality: Modality, back_s: int, between: list[float]) -> None:
        if not self.kept[modality]:
            return
        rows = self._rows(self.kept[modality][-1][0] - back_s - between[0], between)
        with pytest.raises(ValueError, match="came after"):
            self.window.append(modality, rows)

    @rule(end_s=moments)
    def cut(self, end_s: float) -> None:
        self._compare(end_s)

    @invariant()
    def newest_window_is_right(self) -> None:
        for kept in self.kept.values():
            if kept:
                self._compare(kept[-1][0] + 0.05)

    def _compare(self, end_s: float) -> None:
        cut = self.window.cut(end_s)
        assert (cut.start_s, cut.end_s) == (end_s - 2.0, end_s)
        for m, kept in self.kept.items():
            times_s = np.array([t for t, _ in kept], np.float64)
            index = SPECS[m].place(times_s, end_s)
            expected = [[kept[i][1], -kept[i][1]] if i >= 0 else [0.0, 0.0] for i in index]
            assert cut.inputs[m].shape == (1, SPECS[m].steps, WIDTH)
            assert cut.inputs[m][0].tolist() == expected
            assert cut.masks[m][0].tolist() == (index >= 0).tolist()
            past = [t for t, _ in kept if t <= end_s]
            assert cut.newest_s[m] == (past[-1] if past else None)
            assert (m in cut.present) == bool((index >= 0).any())


TestEverySlidingWindow: Any = EverySlidingWindow.TestCase
TestEverySlidingWindow.settings = settings(max_examples=40)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_modality_is_present_until_its_newest_row_is_too_old(modality: Modality) -> None:
    window = SlidingWindow(SPECS, CPU)
    window.append(modality, Rows(np.array([10.0]), np.ones((1, WIDTH), np.float32)))
    limit_s = SPECS[modality].absent_after_s
    assert window.cut(9.99).present == frozenset()
    assert window.cut(10.0).present == {modality}
    assert window.cut(10.0 + limit_s - 0.01).present == {modality}
    late = window.cut(10.0 + limit_s + 0.01)
    assert late.present == frozenset()
    assert not late.masks[modality].any()
    # It was perceived once, and that is still known.
    assert late.newest_s[modality] == 10.0


@given(st.floats(0.0, 5.0))
def test_who_counts_as_present_has_a_row_in_the_window(age_s: float) -> None:
    """Also where a row is exactly as old as the window is long."""
    window = SlidingWindow(SPECS, CPU)
    for m in Modality:
        window.append(m, Rows(np.array([100.0]), np.ones((1, WIDTH), np.float32)))
    for end_s in (100.0 + age_s, 102.0):
        cut = window.cut(end_s)
        assert cut.present == {m for m in Modality if cut.masks[m].any()}


def test_words_that_come_late_stand_where_they_were_spoken() -> None:
    window = SlidingWindow(SPECS, CPU)
    window.append(Modality.VISION, Rows(np.array([9.9]), np.ones((1, WIDTH), np.float32)))
    assert Modality.TEXT not in window.cut(10.0).present
    window.replace(Modality.TEXT, Rows(np.array([8.5, 9.0]), np.ones((2, WIDTH), np.float32)))
    cut = window.cut(10.0)
    assert cut.masks[Modality.TEXT][0].tolist() == [False, False, True, True]
    assert cut.newest_s[Modality.TEXT] == 9.0
    assert window.cut(8.6).masks[Modality.TEXT][0].tolist() == [False, False, False, True]


def test_revised_words_take_the_place_of_the_old_ones_even_if_earlier() -> None:
    ring = RowRing(SPECS[Modality.TEXT], CPU)
    ring.append(Rows(np.array([1.0, 2.0, 3.0]), np.full((3, WIDTH), 1, np.float32)))
    ring.replace(Rows(np.array([1.5]), np.full((1, WIDTH), 2, np.float32)))
    assert ring.times_s.tolist() == [1.5]
    ring.replace(Rows.empty(WIDTH))
    assert not ring.cut(3.0)[2]


def test_a_cut_does_not_change_when_more_rows_come() -> None:
    window = SlidingWindow(SPECS, CPU)
    window.append(Modality.AUDIO, Rows(np.arange(20) * 0.4, np.ones((20, WIDTH), np.float32)))
    before = window.cut(7.6)
    held = before.inputs[Modality.AUDIO].clone()
    window.append(Modality.AUDIO, Rows(8 + np.arange(20) * 0.4, np.full((20, WIDTH), 9, np.float32)))
    assert torch.equal(before.inputs[Modality.AUDIO], held)


VALUES = np.ones((2, WIDTH), np.float32)
BAD_VALUES = VALUES.copy()
BAD_VALUES[1, 0] = np.nan


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (Rows(np.array([1.0, 2.0]), np.ones((2, WIDTH + 1), np.float32)), r"expected rows \(2, 2\), got \(2, 3\)"),
        (Rows(np.array([1.0]), VALUES), r"expected rows \(1, 2\), got \(2, 2\)"),
        (Rows(np.empty(0), np.empty((0, WIDTH + 1), np.float32)), r"expected rows \(0, 2\), got \(0, 3\)"),
        (Rows(np.array([2.0, 1.0]), VALUES), "not in the order of their times"),
        (Rows(np.array([1.0, 2.0]), BAD_VALUES), "NaN or infinity"),
        (Rows(np.array([1.0, 2.0]), VALUES * np.float32(np.inf)), "NaN or infinity"),
        (Rows(np.array([1.0, np.nan]), VALUES), "time is NaN or infinite"),
        (Rows(np.array([1.0, np.inf]), VALUES), "time is NaN or infinite"),
    ],
    ids=["width", "length", "width of none", "order", "NaN", "infinity", "NaN time", "infinite time"],
)
def test_wrong_rows_are_refused_naming_the_modality_and_change_nothing(rows: Rows, complaint: str) -> None:
    window = SlidingWindow(SPECS, CPU)
    window.append(Modality.VISION, Rows(np.array([0.5]), np.ones((1, WIDTH), np.float32)))
    for give in (window.append, window.replace):
        with pytest.raises(ValueError, match=f"vision: .*{complaint}"):
            give(Modality.VISION, rows)
    cut = window.cut(0.6)
    assert cut.newest_s[Modality.VISION] == 0.5
    assert cut.masks[Modality.VISION].sum() == 1


def test_rows_from_before_are_refused_even_when_they_overfill_the_ring() -> None:
    ring = RowRing(SPECS[Modality.TEXT], CPU)
    ring.append(Rows(np.array([5.0]), np.ones((1, WIDTH), np.float32)))
    many = Rows(np.arange(3, 3 + 2 * ring.capacity, dtype=np.float64), np.ones((2 * ring.capacity, WIDTH), np.float32))
    with pytest.raises(ValueError, match=r"a row of 3\.000 s came after one of 5\.000 s"):
        ring.append(many)
