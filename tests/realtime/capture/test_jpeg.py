"""A picture's size is that of the frame which the decoder will find, whatever stands around it."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.capture.jpeg import baseline_size

FRAME, SCAN = b"\xff\xc0", b"\xff\xda"


def jpeg(width: int = 64, height: int = 48, **how: int) -> bytes:
    """how: flags of OpenCV by the ends of their names."""
    flags = [number for name, value in how.items() for number in (getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value)]
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", image, flags)[1])


def resized(data: bytes, side: int) -> bytes:
    """The same picture, which claims to be as wide and as high as `side`."""
    at = data.index(FRAME) + 5
    return data[:at] + 2 * side.to_bytes(2, "big") + data[at + 4 :]


def decoded_size(data: bytes) -> tuple[int, int] | None:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else (image.shape[1], image.shape[0])


@pytest.mark.parametrize("flags", [{}, {"quality": 10}, {"optimize": 1}, {"rst_interval": 2}])
def test_the_size_is_read_from_the_header(flags: dict[str, int]) -> None:
    assert baseline_size(jpeg(640, 480, **flags)) == (640, 480)


def test_what_ends_too_early_has_none() -> None:
    whole = jpeg()
    assert all(baseline_size(whole[:length]) is None for length in range(whole.index(SCAN)))


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xff\xff", b"\xff\x01", b"\xff\x01\xff\xff"])
def test_fill_bytes_and_markers_without_a_length_hide_nothing(filling: bytes) -> None:
    small, large = jpeg(), resized(jpeg(), 16_000)
    # Read as a segment with a length, what stands before the first one would reach as far as the false frame.
    false_frame = b"\x00" * 0xE000 + small[small.index(FRAME) :]
    hidden = large[:2] + filling + large[2:-2] + false_frame + large[-2:]
    assert baseline_size(hidden) in {None, (16_000, 16_000)}
    assert baseline_size(small[:2] + filling + small[2:]) == decoded_size(small[:2] + filling + small[2:]) == (64, 48)


def test_a_second_frame_is_refused() -> None:
    whole = jpeg()
    at, end = whole.index(FRAME), whole.index(b"\xff\xc4")
    assert baseline_size(whole[:end] + resized(whole, 9000)[at:end] + whole[end:]) is None


def test_more_than_one_scan_is_refused_and_so_is_a_progressive_picture() -> None:
    whole = jpeg()
    again = whole[whole.index(SCAN) : -2]
    assert baseline_size(whole[:-2] + 100 * again + whole[-2:]) is None
    assert baseline_size(jpeg(progressive=1)) is None
    assert baseline_size(whole.replace(FRAME, b"\xff\xc2", 1)) is None, "one scan of a progressive picture"


@given(st.data())
def test_changed_bytes_never_make_the_size_another_than_the_decoders(data: st.DataObject) -> None:
    changed = bytearray(jpeg())
    for at in data.draw(st.lists(st.integers(2, 400), min_size=1, max_size=4)):
        changed[at] = data.draw(st.integers(0, 255))
    size = baseline_size(bytes(changed))
    if size is not None and max(size) <= 1920:
        assert decoded_size(bytes(changed)) in {None, size}


def test_the_decoder_has_a_limit_of_its_own() -> None:
    program = (
        "import realtime, cv2, numpy as np, sys\n"
        "try: image = cv2.imdecode(np.frombuffer(sys.stdin.buffer.read(), np.uint8), cv2.IMREAD_COLOR)\n"
        "except cv2.error: image = None\n"
        "print(image is None)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], input=resized(jpeg(), 16_000), capture_output=True, check=True
    )
    assert ran.stdout.split() == [b"True"]
