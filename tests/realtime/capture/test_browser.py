"""A visitor's pictures and sound, as their browser sends them: in order, on the session clock, bounded, not trusted."""

from __future__ import annotations

import itertools
import threading

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime.capture.browser import BACKLOG_S, BrowserCapture, jpeg_size
from realtime.capture.samples import SAMPLE_RATE_HZ
from realtime.clock import MediaClock

STOP = threading.Event()


def jpeg(height: int = 48, width: int = 64, grey: int = 128) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), grey, np.uint8))[1])


def tone(seconds: float, rate_hz: int) -> NDArray[np.int16]:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.round(8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)


def test_the_newest_picture_counts_and_the_others_are_counted() -> None:
    capture = BrowserCapture(MediaClock())
    for i in range(3):
        capture.picture(jpeg(grey=40 * i), 1.0 + i)
    frame = next(capture.frames(STOP))
    assert frame.captured_s == 3.0
    assert frame.image.shape == (48, 64, 3)
    assert abs(int(frame.image.mean()) - 80) < 3
    assert capture.lost().video == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"not a picture",
        jpeg()[:40],
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50,
        jpeg().replace(b"\x00\x30\x00\x40", b"\xff\xff\xff\xff"),  # claims 65535 x 65535
    ],
    ids=["nothing", "text", "cut", "segments without length", "enormous"],
)
def test_what_is_no_picture_is_told_and_passed_over(sent: bytes) -> None:
    told = list[str]()
    capture = BrowserCapture(MediaClock(), told.append)
    frames = capture.frames(STOP)
    capture.picture(sent, 1.0)
    threading.Timer(0.2, lambda: capture.picture(jpeg(), 2.0)).start()
    assert next(frames).captured_s == 2.0
    assert told == ["not a JPEG picture"]


def test_the_size_is_read_from_the_header() -> None:
    assert jpeg_size(jpeg(480, 640)) == (640, 480)
    assert jpeg_size(jpeg(480, 640)[:150]) is None


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_sound_comes_whole_in_order_and_at_its_time(rate_hz: int) -> None:
    capture = BrowserCapture(MediaClock())
    capture.listen(rate_hz)
    signal, block = tone(4.0, rate_hz), round(0.04 * rate_hz)
    noise = np.random.default_rng(1).exponential(0.01, 200)
    for i, late_s in zip(range(0, len(signal), block), noise, strict=False):
        capture.sound(signal[i : i + block], 10.0 + i / rate_hz + late_s)
    # The sound of another life: where it begins, all of this one has come.
    capture.listen(rate_hz)
    capture.sound(tone(1.0, rate_hz), 20.0)
    blocks = list(itertools.takewhile(lambda one: one.captured_s < 19.0, capture.blocks(STOP)))
    assert 3.9 < sum(len(one.samples) for one in blocks) / SAMPLE_RATE_HZ <= 4.0
    assert all(np.isclose(a.end_s, b.captured_s, atol=0.003) for a, b in itertools.pairwise(blocks))
    assert blocks[-1].captured_s - 10.0 == pytest.approx(4.0 - len(blocks[-1].samples) / SAMPLE_RATE_HZ, abs=0.03)
    heard = np.concatenate([one.samples for one in blocks])
    assert np.abs(heard).max() == pytest.approx(8000 / 32768, abs=0.01)


def test_sound_that_nobody_takes_is_bounded_and_counted() -> None:
    capture = BrowserCapture(MediaClock())
    capture.listen(16_000)
    for i in range(30):
        capture.sound(tone(1.0, 16_000), float(i))
    assert capture.lost().audio == 30 - BACKLOG_S
    kept = itertools.islice(capture.blocks(STOP), round(BACKLOG_S))
    assert [len(one.samples) for one in kept] == [SAMPLE_RATE_HZ] * round(BACKLOG_S)


def test_times_never_run_backwards_from_one_life_to_the_next() -> None:
    capture = BrowserCapture(MediaClock())
    for start_s in (100.0, 3.0):
        capture.listen(16_000)
        capture.sound(tone(0.5, 16_000), start_s)
    first, second = itertools.islice(capture.blocks(STOP), 2)
    assert second.captured_s == first.end_s == 100.5
