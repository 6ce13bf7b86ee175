"""FeatureSpec: which row stands at which step, against a model that asks each step which rows it may hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmd.contract import ContractMismatch, FeatureSpec, Rows
from dhmd.modality import Modality

WIDTH = 3

specs = st.builds(
    lambda grid, window_s, absent_part: FeatureSpec(
        modality=Modality.AUDIO,
        extractor="test",
        version="1",
        width=WIDTH,
        rate_hz=grid,
        steps=7 if grid is None else int(grid * window_s),
        window_s=window_s,
        absent_after_s=absent_part * window_s,
    ),
    st.sampled_from([None, 4.0, 12.5, 15.0]),
    st.sampled_from([1.0, 2.0, 5.0]),
    st.sampled_from([0.1, 0.5, 1.0]),
)
# Fractions of a second that binary numbers cannot hold, so that rows meet the edges of cells with rounding errors.
times = st.lists(st.integers(0, 900).map(lambda n: n / 60), max_size=120).map(sorted)
ends = st.integers(0, 1000).map(lambda n: n / 60)

EDGE_S = 1e-5
"""Closer than this to an edge between cells, or to the age of absence, either side is right."""


def rows_at(times_s: list[float]) -> Rows:
    """Rows whose values tell their number."""
    numbers = np.arange(1, len(times_s) + 1, dtype=np.float32)
    return Rows(np.array(times_s, np.float64), numbers[:, None].repeat(WIDTH, 1))


@given(specs, times, ends)
def test_each_step_holds_the_newest_row_of_its_cell(spec: FeatureSpec, times_s: list[float], end_s: float) -> None:
    index = spec.place(np.array(times_s, np.float64), end_s)
    assert index.shape == (spec.steps,)
    inside = [i for i, t in enumerate(times_s) if end_s - spec.window_s < t <= end_s]
    age_s = end_s - times_s[inside[-1]] if inside else np.inf
    if abs(age_s - spec.absent_after_s) < EDGE_S:
        return
    if age_s > spec.absent_after_s:
        assert (index == -1).all()
        return
    if spec.rate_hz is None:
        newest = inside[-spec.steps :]
        assert index.tolist() == [-1] * (spec.steps - len(newest)) + newest
        return
    cell_s = 1 / spec.rate_hz
    for step, found in enumerate(index):
        newest_end_s = end_s - (spec.steps - 1 - step) * cell_s
        surely = [i for i in inside if newest_end_s - cell_s + EDGE_S < times_s[i] < newest_end_s - EDGE_S]
        perhaps = [i for i in inside if newest_end_s - cell_s - EDGE_S < times_s[i] < newest_end_s + EDGE_S]
        assert found in ({-1} if not surely else set()) | set(perhaps)
        assert not surely or found >= surely[-1]


@given(specs, times, ends)
def test_no_row_stands_twice_and_their_order_is_kept(spec: FeatureSpec, times_s: list[float], end_s: float) -> None:
    index = spec.place(np.array(times_s, np.float64), end_s)
    standing = index[index >= 0]
    assert (np.diff(standing) > 0).all()


@given(specs, times, ends, st.integers(1, 600))
def test_rows_from_after_the_end_or_before_the_window_change_nothing(
    spec: FeatureSpec, times_s: list[float], end_s: float, later: int
) -> None:
    inside = [t for t in times_s if end_s - spec.window_s < t <= end_s]
    around = [t for t in times_s if t <= end_s - spec.window_s]
    after = [end_s + later / 60]
    alone = spec.window(rows_at(inside), end_s)
    among = spec.window(
        Rows(
            np.array(around + inside + after),
            np.concatenate(
                [
                    np.full((len(around), WIDTH), 77, np.float32),
                    rows_at(inside).values,
                    np.full((1, WIDTH), 88, np.float32),
                ]
            ),
        ),
        end_s,
    )
    assert np.array_equal(alone[0], among[0])
    assert np.array_equal(alone[1], among[1])


@given(specs, times, ends)
def test_a_window_holds_the_rows_where_they_stand_and_zero_elsewhere(
    spec: FeatureSpec, times_s: list[float], end_s: float
) -> None:
    rows = rows_at(times_s)
    values, mask = spec.window(rows, end_s)
    assert values.shape == (spec.steps, WIDTH)
    assert values.dtype == np.float32
    for step, found in enumerate(spec.place(rows.times_s, end_s)):
        assert mask[step] == (found >= 0)
        assert (values[step] == (found + 1 if found >= 0 else 0)).all()


@given(specs, st.integers(0, 400))
def test_a_stream_at_the_rate_of_its_grid_fills_every_step(spec: FeatureSpec, ticks: int) -> None:
    if spec.rate_hz is None:
        return
    start_s = ticks / 60
    times_s = start_s + np.arange(2 * spec.steps) / spec.rate_hz
    index = spec.place(times_s, float(times_s[-1]))
    assert index.tolist() == list(range(spec.steps, 2 * spec.steps))


def test_a_row_on_the_edge_of_two_cells_stands_in_the_older_one_whatever_the_rounding() -> None:
    spec = FeatureSpec(Modality.VISION, "test", "1", WIDTH, 15.0, 75, 5.0, 0.5)
    for tick in range(1, 2000):
        end_s = tick / 10
        index = spec.place(np.array([end_s - 3 / 15, end_s - 2 / 15, end_s - 1 / 15]), end_s)
        assert index[-4:].tolist() == [0, 1, 2, -1]


def test_a_spec_survives_being_written_down() -> None:
    spec = FeatureSpec(Modality.TEXT, "token-vectors", "1", 384, None, 40, 5.0, 5.0, {"model.safetensors": "ab" * 32})
    assert FeatureSpec.from_dict(spec.to_dict()) == spec


def test_other_features_are_refused_naming_both_sides() -> None:
    trained = FeatureSpec(Modality.TEXT, "token-vectors", "1", 384, None, 40, 5.0, 5.0)
    trained.require(dataclasses.replace(trained))
    with pytest.raises(ContractMismatch) as refused:
        trained.require(dataclasses.replace(trained, version="2", width=768))
    message = str(refused.value)
    assert message.startswith("text: ")
    assert "version: checkpoint '1', extractor '2'" in message
    assert "width: checkpoint 384, extractor 768" in message
    assert "steps" not in message
    assert "\n" not in message
