"""Playback against a clock that the test moves: release times and lateness are exact, whatever the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from realtime.capture.media import LATE_S, SKIP_S, MediaFile
from realtime.capture.playback import MediaPlayer
from realtime.clock import MediaClock


class Stop(threading.Event):
    """Waiting for it passes time on the clock instead."""

    def __init__(self, clock: MediaClock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert timeout > 0
        self.clock.advance(self.clock.now() + timeout)
        return self.is_set()


@pytest.fixture(scope="session")
def clip(make_media: Callable[..., Path]) -> Path:
    """10 s, 25 pictures a second, a key picture every second."""
    pictures, tone = "testsrc=s=64x64:r=25:d=10", "sine=440:d=10"
    coded = ("-c:v", "libx264", "-g", "25", "-pix_fmt", "yuv420p")
    return make_media("playback.mp4", "-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", tone, *coded)


@pytest.fixture
def clock() -> MediaClock:
    clock = MediaClock()
    clock.advance(100.0)
    return clock


def test_each_sample_is_released_at_its_time(clip: Path, clock: MediaClock) -> None:
    player = MediaPlayer(MediaFile(clip), clock)
    frames = list(player.frames(Stop(clock)))
    assert player.start_s == 100.0
    assert [f.captured_s for f in frames] == pytest.approx([100 + i / 25 for i in range(250)])
    assert all(f.arrived_s == pytest.approx(f.captured_s, abs=1e-9) for f in frames)


def test_sound_is_released_when_it_ends(clip: Path, clock: MediaClock) -> None:
    blocks = list(MediaPlayer(MediaFile(clip), clock).blocks(Stop(clock)))
    assert all(b.arrived_s == pytest.approx(b.end_s, abs=1e-9) for b in blocks)
    assert blocks[0].captured_s == 100.0
    assert blocks[-1].end_s == pytest.approx(110.0, abs=0.1)


def test_both_share_one_start(clip: Path, clock: MediaClock) -> None:
    player = MediaPlayer(MediaFile(clip), clock)
    next(player.frames(Stop(clock)))
    clock.advance(103.0)
    assert next(player.blocks(Stop(clock))).captured_s == 100.0


@pytest.mark.parametrize("handling_s", [0.05, 0.2, 0.6])
def test_a_slow_consumer_never_falls_behind_without_limit(clip: Path, clock: MediaClock, handling_s: float) -> None:
    """Handling takes longer than the 40 ms between pictures: some are left out and counted, the newest still come."""
    media = MediaFile(clip)
    player = MediaPlayer(media, clock)
    late_s = []
    for frame in player.frames(Stop(clock)):
        late_s.append(frame.arrived_s - frame.captured_s)
        clock.advance(clock.now() + handling_s)
    assert max(late_s) <= max(LATE_S, SKIP_S) + handling_s
    assert len(late_s) + media.skipped == 250
    assert media.skipped > 0
    assert len(late_s) >= 10 / handling_s * 0.2


def test_after_a_long_halt_playback_goes_on_at_a_key_picture(clip: Path, clock: MediaClock) -> None:
    media = MediaFile(clip)
    frames = MediaPlayer(media, clock).frames(Stop(clock))
    list(islice(frames, 25))
    clock.advance(105.5)
    caught_up = [f for f in frames if f.arrived_s - f.captured_s < 1e-6]
    assert caught_up[0].captured_s == pytest.approx(106.0)
    assert len(caught_up) == 100


def test_sound_is_never_left_out_however_late(clip: Path, clock: MediaClock) -> None:
    media = MediaFile(clip)
    complete = sum(len(b.samples) for b in media.blocks())
    blocks = MediaPlayer(media, clock).blocks(Stop(clock))
    heard = len(next(blocks).samples)
    clock.advance(107.0)
    heard += sum(len(b.samples) for b in blocks)
    assert heard == complete


def test_iterating_again_goes_on_where_it_broke_off(clip: Path, clock: MediaClock) -> None:
    player = MediaPlayer(MediaFile(clip), clock)
    stop = Stop(clock)
    seen = list(islice(player.frames(stop), 3))
    assert next(player.frames(stop)).captured_s == pytest.approx(seen[-1].captured_s + 1 / 25)
    heard = list(islice(player.blocks(stop), 20))
    assert next(player.blocks(stop)).captured_s == pytest.approx(heard[-1].end_s)


def test_stopping_ends_both(clip: Path, clock: MediaClock) -> None:
    player = MediaPlayer(MediaFile(clip), clock)
    stop = Stop(clock)
    frames, blocks = player.frames(stop), player.blocks(stop)
    next(frames)
    next(blocks)
    stop.set()
    assert list(frames) == []
    assert list(blocks) == []
