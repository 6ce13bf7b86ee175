"""Stream time is monotonic whatever happens to the wall clock, and samples are placed on it without running back."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime import clock as clock_module
from realtime.clock import MediaClock, SampleClock, StreamClock

RATE_HZ = 16_000
BLOCK = 512
BLOCK_S = BLOCK / RATE_HZ


def test_session_time_starts_at_zero_and_unix_time_is_anchored_there() -> None:
    before = time.time()
    clock = StreamClock()
    after = time.time()
    assert before <= clock.epoch_unix <= after
    assert clock.unix(2.5) == clock.epoch_unix + 2.5
    first, second = clock.now(), clock.now()
    assert 0 <= first <= second


@given(jumps_s=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_wall_clock_jumps_move_neither_session_nor_unix_time(jumps_s: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1e9)
        clock = StreamClock()
        times = [clock.now()]
        for jump_s in jumps_s:
            patch.setattr(time, "time", lambda jump_s=jump_s: 1e9 + jump_s)
            times.append(clock.now())
            assert clock.unix(1.0) == 1e9 + 1.0
    assert times == sorted(times)
    assert times[-1] <= 60


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="the system has no clock of its own for it")
def test_an_hour_of_sleep_is_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a laptop's lid was closed: Linux stops its monotonic clock meanwhile."""
    clock, read, slept_s = StreamClock(), time.clock_gettime, 3600.0
    monkeypatch.setattr(
        time, "clock_gettime", lambda which: read(which) + (slept_s if which == time.CLOCK_BOOTTIME else 0.0)
    )
    assert clock.now() == pytest.approx(slept_s, abs=60)


@given(age_s=st.floats(0, 100), foreign_now_s=st.floats(-1e6, 1e6))
def test_an_instant_of_another_clock_keeps_its_age(age_s: float, foreign_now_s: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_module, "running_s", lambda: 500.0)
        clock = StreamClock()
        patch.setattr(clock_module, "running_s", lambda: 507.0)
        assert clock.from_foreign(foreign_now_s - age_s, foreign_now_s) == pytest.approx(7.0 - age_s, abs=1e-6)


@given(times_s=st.lists(st.floats(0, 1e5), max_size=50))
def test_media_time_is_what_the_driver_says_and_never_runs_back(times_s: list[float]) -> None:
    clock = MediaClock()
    assert clock.now() == 0
    assert clock.unix(3.0) == 3.0
    reached = 0.0
    for t_s in times_s:
        clock.advance(t_s)
        reached = max(reached, t_s)
        assert clock.now() == reached


@given(late_s=st.lists(st.floats(-0.5, 2.0), min_size=2, max_size=400))
def test_sample_times_always_advance(late_s: list[float]) -> None:
    clock = SampleClock(RATE_HZ)
    placed = [clock.place(BLOCK, i * BLOCK_S + late) for i, late in enumerate(late_s)]
    assert all(later - earlier >= 0.95 * BLOCK_S - 1e-9 for earlier, later in pairwise(placed))


@given(late_s=st.lists(st.floats(0, 0.2), min_size=200, max_size=400), drift=st.floats(-3e-4, 3e-4))
def test_sample_times_follow_a_drifting_device_and_not_the_jitter(late_s: list[float], drift: float) -> None:
    """Every tenth measurement is on time, the others are up to 0.2 s late; the device runs up to 300 ppm off."""
    clock = SampleClock(RATE_HZ)
    spans_s = []
    for i, late in enumerate(late_s):
        true_s = 10.0 + i * BLOCK_S * (1 + drift)
        placed_s = clock.place(BLOCK, true_s + (0.0 if i % 10 == 0 else late))
        assert placed_s == pytest.approx(true_s, abs=0.003)
        spans_s.append(placed_s)
    assert max(abs(b - a - BLOCK_S) for a, b in pairwise(spans_s)) < BLOCK_S / 15


@given(lost_s=st.floats(0.15, 60))
def test_lost_samples_move_time_on(lost_s: float) -> None:
    clock = SampleClock(RATE_HZ)
    for i in range(100):
        clock.place(BLOCK, i * BLOCK_S)
    after = [clock.place(BLOCK, (100 + i) * BLOCK_S + lost_s) for i in range(100)]
    assert after[0] == pytest.approx(100 * BLOCK_S, abs=BLOCK_S)
    assert after[-1] == pytest.approx(199 * BLOCK_S + lost_s, abs=1e-6)


def test_one_late_thread_does_not_look_like_lost_samples() -> None:
    clock = SampleClock(RATE_HZ)
    placed = [clock.place(BLOCK, i * BLOCK_S + (0.7 if 50 <= i < 60 else 0.0)) for i in range(100)]
    assert placed == pytest.approx([i * BLOCK_S for i in range(100)], abs=1e-9)
