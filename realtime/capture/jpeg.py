"""What a JPEG says of itself, read before it is decoded: a picture of a few bytes may claim to be gigabytes wide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
BASELINE, START_OF_SCAN, END_OF_IMAGE = 0xC0, 0xDA, 0xD9
STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length: TEM, restarts, start of image."""
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_AFTER_SCAN: Final = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""Within a scan, FF 00 is a byte of it, and restarts belong to it."""


def baseline_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a baseline JPEG of one frame and one scan (ITU-T T.81, B.1.1, B.2); None for anything else.

    Browsers make no other. A progressive one may hold thousands of scans, each as much work as a picture.
    """
    if data[:2] != b"\xff\xd8":
        return None
    size: tuple[int, int] | None = None
    for marker, at in _segments(data):
        if marker in START_OF_FRAME:
            if marker != BASELINE or size is not None:
                return None
            size = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        elif marker == START_OF_SCAN:
            follows = _AFTER_SCAN.search(data, at)
            return size if follows is None or follows[1][0] == END_OF_IMAGE else None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields each marker that has a length, and where that stands. Any number of FF may come before a marker."""
    at = 2
    while (found := _MARKER.match(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker in STANDALONE:
            continue
        yield marker, at
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2:
            return
        at += length
