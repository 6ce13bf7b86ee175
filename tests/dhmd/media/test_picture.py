"""Stills as they are to be shown, and files that are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dhmd.errors import MediaUnreadable
from dhmd.media.picture import read_image

TURNED = (1, 6, 3, 8)
"""EXIF's orientations of a picture that is stored turned by 0, 90, 180 and 270 degrees, counterclockwise."""


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF segment of that one tag (0x0112)."""
    tag = b"\x01\x12\x00\x03" + (1).to_bytes(4) + orientation.to_bytes(2) + bytes(2)
    body = b"Exif\x00\x00" + b"MM\x00\x2a" + (8).to_bytes(4) + (1).to_bytes(2) + tag + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + jpeg[2:]


@pytest.mark.parametrize("turns", range(4))
def test_a_photo_of_a_phone_held_sideways_is_turned_upright(turns: int, tmp_path: Path) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :, 0] = upright[:, :16, 2] = 255  # blue above, red on the left
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(np.rot90(upright, turns)))[1].tobytes()
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(with_orientation(jpeg, TURNED[turns]))
    image = read_image(photo)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 8


def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.png").write_text("these are words")
    for name, cause in [
        ("missing.png", "no such file"),
        (".", "is a directory"),
        ("empty.png", "is empty"),
        ("words.png", "is not an image"),
    ]:
        path = tmp_path / name
        with pytest.raises(MediaUnreadable) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: {cause}")
        assert "\n" not in str(caught.value)
