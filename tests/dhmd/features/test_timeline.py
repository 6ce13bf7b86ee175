"""Capture times of samples: exact while continuous, following drift, starting afresh at a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmd.features.timeline import SampleTimeline


@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=30), start_s=st.floats(0, 1e6))
def test_times_do_not_depend_on_the_blocks(sizes: list[int], start_s: float) -> None:
    timeline, done = SampleTimeline(), 0
    for size in sizes:
        assert timeline.append(size, start_s + done / 16_000) is (done == 0)
        done += size
    assert timeline.time_of(done) == start_s + done / 16_000


def test_drift_of_the_sound_card_is_followed() -> None:
    timeline = SampleTimeline()
    for block in range(2000):  # 100 ms blocks that each take 0.02 ms longer: 40 ms in all
        assert timeline.append(1600, 5.0 + block * 0.10002) is (block == 0)
    assert timeline.time_of(2000 * 1600) == pytest.approx(5.0 + 2000 * 0.10002, abs=0.0015)


@pytest.mark.parametrize("jump_s", [0.03, -0.03, 4.0])
def test_a_gap_begins_a_new_stream(jump_s: float) -> None:
    timeline = SampleTimeline()
    timeline.append(16_000, 1.0)
    assert timeline.append(800, 2.0 + jump_s)
    assert timeline.time_of(0) == 2.0 + jump_s
    assert not timeline.append(800, 2.05 + jump_s)
    assert timeline.time_of(800) == pytest.approx(2.05 + jump_s)


def test_no_times_before_the_first_block() -> None:
    with pytest.raises(ValueError, match="first block"):
        SampleTimeline().time_of(0)
