"""What is put is delivered, dropped and counted, or still waits; nothing else."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.capture.queues import AudioFanOut, AudioRing, LatestFrame
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame


def frame(number: int) -> VideoFrame:
    return VideoFrame(np.zeros((1, 1, 3), np.uint8), captured_s=float(number), arrived_s=float(number))


def block(number: int, samples: int = 512) -> AudioBlock:
    return AudioBlock(np.full(samples, number, np.float32), captured_s=float(number), arrived_s=float(number))


operations = st.lists(st.sampled_from(["put", "put", "get", "close"]), max_size=60)


@given(operations)
def test_latest_frame_adds_up_and_gives_the_newest(steps: list[str]) -> None:
    latest = LatestFrame()
    offered, waiting, closed = 0, None, False
    for step in steps:
        if step == "put":
            latest.put(frame(offered))
            waiting = waiting if closed else offered
            offered += 1
        elif step == "close":
            latest.close()
            closed = True
        else:
            got = latest.get(timeout_s=0)
            assert (None if got is None else got.captured_s) == waiting
            waiting = None
        counts = latest.counts()
        assert counts.put == offered == counts.delivered + counts.dropped + counts.pending
        assert counts.pending == (waiting is not None)
        assert latest.dropped == counts.dropped


@given(
    steps=st.lists(st.one_of(st.integers(1, 4000), st.none(), st.just("close")), max_size=60),
    capacity_s=st.floats(0.01, 1.0),
)
def test_audio_ring_adds_up_keeps_order_and_stays_bounded(steps: list[int | str | None], capacity_s: float) -> None:
    """An int puts that many samples, None takes a block."""
    ring = AudioRing(capacity_s)
    offered, taken = 0, -1.0
    lengths: list[int] = []
    delivered_s = 0.0
    for step in steps:
        if isinstance(step, int):
            ring.put(block(offered, step))
            lengths.append(step)
            offered += 1
        elif step == "close":
            ring.close()
        else:
            got = ring.get(timeout_s=0)
            if got is not None:
                assert got.captured_s > taken
                taken = got.captured_s
                delivered_s += len(got.samples) / SAMPLE_RATE_HZ
        counts = ring.counts()
        assert counts.put == offered == counts.delivered + counts.dropped + counts.pending
        assert sum(lengths) / SAMPLE_RATE_HZ == pytest.approx(delivered_s + counts.dropped_s + ring.pending_s)
        assert ring.pending_s <= capacity_s + 1e-9 or counts.pending == 1
        assert ring.dropped == counts.dropped


def test_audio_ring_drops_the_oldest_and_tells_how_much() -> None:
    ring = AudioRing(capacity_s=0.1)
    for number in range(5):
        ring.put(block(number, samples=800))
    counts = ring.counts()
    assert (counts.dropped, counts.dropped_s) == (3, pytest.approx(0.15))
    assert [ring.get(0).captured_s, ring.get(0).captured_s] == [3, 4]  # type: ignore[union-attr]


def test_each_consumer_of_a_fan_out_gets_everything_at_its_own_pace() -> None:
    quick, slow = AudioRing(1.0), AudioRing(0.05)
    sound = AudioFanOut([quick, slow])
    heard = []
    for number in range(10):
        sound.put(block(number))
        heard.append(quick.get(0).captured_s)  # type: ignore[union-attr]
    sound.close()
    assert heard == list(range(10))
    assert quick.counts().dropped == 0
    assert slow.counts().dropped == 9
    assert quick.closed
    assert slow.closed


@pytest.mark.parametrize("make", [LatestFrame, lambda: AudioRing(1.0)], ids=["frame", "ring"])
def test_close_wakes_every_waiting_thread(make: type[LatestFrame]) -> None:
    hand_over = make()
    answers: list[VideoFrame | None] = []
    threads = [threading.Thread(target=lambda: answers.append(hand_over.get()), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    hand_over.close()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == [None] * 4


def test_counts_add_up_between_threads() -> None:
    latest, ring = LatestFrame(), AudioRing(capacity_s=1.0)
    seen_frames, seen_blocks = [], []

    def look() -> None:
        while (got := latest.get()) is not None:
            seen_frames.append(got.captured_s)

    def listen() -> None:
        while (got := ring.get()) is not None:
            seen_blocks.append(got.captured_s)

    consumers = [threading.Thread(target=look), threading.Thread(target=listen)]
    for consumer in consumers:
        consumer.start()
    for number in range(5000):
        latest.put(frame(number))
        ring.put(block(number))
    latest.close()
    ring.close()
    for consumer in consumers:
        consumer.join()
    for counts, seen in ((latest.counts(), seen_frames), (ring.counts(), seen_blocks)):
        assert seen == sorted(set(seen))
        assert seen[-1] == 4999
        assert counts.put == 5000 == len(seen) + counts.dropped
        assert counts.delivered == len(seen)
