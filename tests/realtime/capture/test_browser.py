"""A visitor's pictures and sound, as their browser sends them: in order, on the stream clock, bounded, not trusted."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime.capture.browser import LARGEST_SIDE, BrowserCapture
from realtime.capture.delivery import TRANSCRIPT_RING_S, VOICE_RING_S, Delivery
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.clock import MediaClock

Capture = tuple[BrowserCapture, Delivery, list[str]]


@pytest.fixture
def browser() -> Capture:
    """A capture, the queues it fills, and what it refused."""
    delivery, refused = Delivery(), list[str]()
    return BrowserCapture(MediaClock(), delivery, refused.append), delivery, refused


def heard(delivery: Delivery) -> list[AudioBlock]:
    """The sound that waits."""
    return list(iter(delivery.transcript.take, None))


def jpeg(height: int = 48, width: int = 64, grey: int = 128) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), grey, np.uint8))[1])


def tone(seconds: float, rate_hz: int) -> NDArray[np.int16]:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.round(8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)


def test_the_newest_picture_counts_and_the_others_are_counted(browser: Capture) -> None:
    capture, delivery, refused = browser
    for i in range(3):
        capture.put_picture(jpeg(grey=40 * i), 1.0 + i)
    picture = delivery.frames.take()
    frame = picture.decoded() if picture else None
    assert frame is not None
    assert frame.captured_s == 3.0
    assert frame.image.shape == (48, 64, 3)
    assert abs(int(frame.image.mean()) - 80) < 3
    assert delivery.dropped().video == 2
    assert refused == []


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"not a picture",
        jpeg()[:40],
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50,
        jpeg().replace(b"\x00\x30\x00\x40", b"\xff\xff\xff\xff"),  # claims 65535 x 65535
        jpeg(8, LARGEST_SIDE + 8),
        bytes(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1]),
    ],
    ids=["nothing", "text", "cut", "segments without length", "enormous", "too wide", "no JPEG"],
)
def test_what_is_no_picture_is_told(sent: bytes, browser: Capture) -> None:
    capture, delivery, refused = browser
    capture.put_picture(sent, 1.0)
    picture = delivery.frames.take()
    assert picture is not None
    assert picture.decoded() is None
    assert refused == ["not a baseline JPEG picture"]


def test_a_picture_that_is_not_newer_is_refused(browser: Capture) -> None:
    capture, delivery, refused = browser
    for captured_s in (2.0, 2.0, 1.0):
        capture.put_picture(jpeg(), captured_s)
    picture = delivery.frames.take()
    assert picture is not None
    assert picture.captured_s == 2.0
    assert refused == ["not newer than the one before"] * 2
    assert delivery.dropped().video == 0


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_sound_comes_whole_in_order_and_at_its_time(rate_hz: int, browser: Capture) -> None:
    capture, delivery, _ = browser
    capture.begin_sound(rate_hz)
    signal, block = tone(4.0, rate_hz), round(0.04 * rate_hz)
    noise = np.random.default_rng(1).exponential(0.01, 200)
    for i, late_s in zip(range(0, len(signal), block), noise, strict=False):
        capture.put_sound(signal[i : i + block], 10.0 + i / rate_hz + late_s)
    blocks = heard(delivery)
    assert 3.9 < sum(len(one.samples) for one in blocks) / SAMPLE_RATE_HZ <= 4.0
    assert all(np.isclose(a.end_s, b.captured_s, atol=0.003) for a, b in itertools.pairwise(blocks))
    assert blocks[-1].captured_s - 10.0 == pytest.approx(4.0 - len(blocks[-1].samples) / SAMPLE_RATE_HZ, abs=0.03)
    samples = np.concatenate([one.samples for one in blocks])
    assert np.abs(samples).max() == pytest.approx(8000 / 32768, abs=0.01)


def test_sound_that_nobody_takes_is_bounded_and_counted(browser: Capture) -> None:
    capture, delivery, _ = browser
    capture.begin_sound(16_000)
    for i in range(30):
        capture.put_sound(tone(1.0, 16_000), float(i))
    assert [len(one.samples) for one in heard(delivery)] == [SAMPLE_RATE_HZ] * round(TRANSCRIPT_RING_S)
    assert delivery.dropped().audio == 30 - VOICE_RING_S


def test_times_never_run_backwards_where_sound_begins_anew(browser: Capture) -> None:
    capture, delivery, _ = browser
    for start_s in (100.0, 3.0):
        capture.begin_sound(16_000)
        capture.put_sound(tone(0.5, 16_000), start_s)
    first, second = heard(delivery)
    assert second.captured_s == first.end_s == 100.5


def test_sound_without_a_rate_is_an_error(browser: Capture) -> None:
    with pytest.raises(ValueError, match="rate"):
        browser[0].put_sound(tone(0.1, 16_000), 1.0)
