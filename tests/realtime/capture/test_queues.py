"""What is put is delivered, dropped and counted, or still waits; nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.capture.queues import AudioFanOut, AudioRing, HandOver, LatestFrame
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame


def frame(number: int) -> VideoFrame:
    return VideoFrame(np.zeros((1, 1, 3), np.uint8), captured_s=float(number), arrived_s=float(number))


def block(number: int, samples: int = 512) -> AudioBlock:
    return AudioBlock(np.full(samples, number, np.float32), captured_s=float(number), arrived_s=float(number))


operations = st.lists(st.sampled_from(["put", "put", "get", "close"]), max_size=60)


@given(operations)
def test_latest_frame_adds_up_and_gives_the_newest(steps: list[str]) -> None:
    latest = LatestFrame()
    offered, taken, waiting, closed = 0, 0, None, False
    for step in steps:
        if step == "put":
            latest.put(frame(offered))
            waiting = waiting if closed else offered
            offered += 1
        elif step == "close":
            latest.close()
            closed = True
        else:
            got = latest.take()
            assert (None if got is None else got.captured_s) == waiting
            taken += got is not None
            waiting = None
        assert latest.wait(0) is (waiting is not None)
        assert offered == taken + latest.dropped + (waiting is not None)


def test_a_picture_that_would_not_be_looked_at_is_not_dropped() -> None:
    """Of 25 pictures a second, 15 are, or fewer: one of each cell of the grid, whichever comes through."""
    latest, seldom = LatestFrame(), LatestFrame(5.0)

    def put(*numbers: int) -> tuple[int, int]:
        for number in numbers:
            for queue in (latest, seldom):
                queue.put(VideoFrame(np.zeros((1, 1, 3), np.uint8), number / 25, number / 25))
        return latest.dropped, seldom.dropped

    put(0)
    latest.take(), seldom.take()
    assert put(1, 2, 3) == (0, 0)  # 1 is of the cell of 0, 3 of that of 2
    latest.take(), seldom.take()
    assert put(5, 6, 7) == (1, 0)  # 5 and 6 are of one cell, 7 is of another
    assert put(10) == (2, 1)  # the last picture of the cell from 5 to 9 was not taken


@given(
    steps=st.lists(st.one_of(st.integers(1, 4000), st.none(), st.just("close")), max_size=60),
    capacity_s=st.floats(0.01, 1.0),
)
def test_audio_ring_adds_up_keeps_order_and_stays_bounded(steps: list[int | str | None], capacity_s: float) -> None:
    """An int puts that many samples, None takes a block."""
    ring = AudioRing(capacity_s)
    offered, taken, newest = 0, 0, -1.0
    for step in steps:
        if isinstance(step, int):
            ring.put(block(offered, step))
            offered += 1
        elif step == "close":
            ring.close()
        elif (got := ring.take()) is not None:
            assert got.captured_s > newest
            newest = got.captured_s
            taken += 1
    waiting = []
    while (got := ring.take()) is not None:
        waiting.append(got)
    assert offered == taken + ring.dropped + len(waiting)
    waiting_s = sum(len(one.samples) for one in waiting) / SAMPLE_RATE_HZ
    assert waiting_s <= capacity_s + 1e-9 or len(waiting) == 1


def test_audio_ring_drops_the_oldest() -> None:
    ring = AudioRing(capacity_s=0.1)
    for number in range(5):
        ring.put(block(number, samples=800))
    assert ring.dropped == 3
    assert [ring.take().captured_s, ring.take().captured_s] == [3, 4]  # type: ignore[union-attr]


def test_each_consumer_of_a_fan_out_gets_everything_at_its_own_pace() -> None:
    quick, slow = AudioRing(1.0), AudioRing(0.05)
    sound = AudioFanOut([quick, slow])
    heard = []
    for number in range(10):
        sound.put(block(number))
        heard.append(quick.take().captured_s)  # type: ignore[union-attr]
    sound.close()
    assert heard == list(range(10))
    assert quick.dropped == 0
    assert slow.dropped == 9
    assert quick.closed
    assert slow.closed


@pytest.mark.parametrize("make", [LatestFrame, lambda: AudioRing(1.0)], ids=["frame", "ring"])
def test_close_wakes_every_waiting_thread(make: Callable[[], HandOver[Any]]) -> None:
    hand_over = make()
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(hand_over.wait()), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    hand_over.close()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == [False] * 4


def test_all_is_taken_or_counted_between_threads() -> None:
    latest, ring = LatestFrame(), AudioRing(capacity_s=1.0)
    seen_frames, seen_blocks = list[float](), list[float]()

    def drain(queue: LatestFrame | AudioRing, seen: list[float]) -> None:
        while queue.wait():
            if (got := queue.take()) is not None:
                seen.append(got.captured_s)

    consumers = [
        threading.Thread(target=drain, args=(latest, seen_frames)),
        threading.Thread(target=drain, args=(ring, seen_blocks)),
    ]
    for consumer in consumers:
        consumer.start()
    for number in range(5000):
        latest.put(frame(number))
        ring.put(block(number))
    latest.close()
    ring.close()
    for consumer in consumers:
        consumer.join()
    for dropped, seen in ((latest.dropped, seen_frames), (ring.dropped, seen_blocks)):
        assert seen == sorted(set(seen))
        assert seen[-1] == 4999
        assert len(seen) + dropped == 5000


@pytest.mark.parametrize("period_s", [0.5, 1.0, 2.0])
def test_of_few_pictures_a_second_the_last_stands_until_the_next_is_overdue(period_s: float) -> None:
    latest = LatestFrame()
    for number in range(2):
        latest.put(VideoFrame(np.full((1, 1, 3), number, np.uint8), number * period_s, number * period_s))
        latest.take()
    times_s = np.arange(0.05, 4, 0.05)
    stood = [frame for time_s in times_s if (frame := latest.standing(period_s + time_s)) is not None]
    assert {int(frame.image[0, 0, 0]) for frame in stood} == {1}
    ages_s = np.array([frame.captured_s - period_s for frame in stood])
    assert np.diff(ages_s) == pytest.approx(0.25, abs=0.051)
    assert ages_s[-1] == pytest.approx(min(1.5 * period_s, 3.0), abs=0.26)


def test_a_camera_of_the_usual_rate_that_halts_stands_for_nothing() -> None:
    latest = LatestFrame()
    assert latest.standing(0.0) is None
    for number in range(3):
        latest.put(VideoFrame(np.zeros((1, 1, 3), np.uint8), number / 15, number / 15))
    assert [latest.standing(time_s) for time_s in np.arange(0.2, 3, 0.1)] == [None] * 28
