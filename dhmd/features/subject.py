"""The subject, whose face counts: one person stays the subject until gone for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

HANDOVER_S: Final = 1.0
"""The subject may be out of sight this long before the largest face takes its place."""

_LEAST_OVERLAP = 0.2
_FARTHEST_STEP = 0.6  # of the face's side
_LARGEST_GROWTH = 1.8  # of the face's side, either way


class Subject:
    """Follows one face from frame to frame: the largest at first, then the one that continues it.

    sightings: a newcomer becomes the subject when seen in so many frames in a row. Detectors see a face in a cloud now
        and then, but not in the same place for long.
    """

    def __init__(self, sightings: int = 1) -> None:
        self._sightings = sightings
        self._newcomer: Box | None = None
        self._seen = 0
        self._box: Box | None = None
        self._seen_s = 0.0
        self._newest_s = float("-inf")

    def among(self, boxes: Sequence[Box], captured_s: float, pointed_at: int | None = None) -> int | None:
        """Finds which of `boxes` is the subject; None while it is out of sight, even if others are there.

        boxes: in a unit that is the same along x and y. pointed_at: the one that somebody chooses now. Time that runs
        backwards starts anew (a file that loops).
        """
        if captured_s < self._newest_s:
            self._box = None
        self._newest_s = captured_s
        if self._box is not None and captured_s - self._seen_s >= HANDOVER_S:
            self._box = None
        if pointed_at is not None:
            chosen: int | None = pointed_at
        else:
            chosen = self._arriving(boxes) if self._box is None else _continuing(self._box, boxes)
        if chosen is not None:
            self._box, self._seen_s = boxes[chosen], captured_s
            self._newcomer = None
        return chosen

    def _arriving(self, boxes: Sequence[Box]) -> int | None:
        """The newcomer, once it was seen often enough: whoever is largest, then the one that continues it."""
        again = None if self._newcomer is None else _continuing(self._newcomer, boxes)
        self._seen = 1 if again is None else self._seen + 1
        candidate = largest(boxes) if again is None else again
        self._newcomer = None if candidate is None else boxes[candidate]
        return candidate if self._seen >= self._sightings else None


def largest(boxes: Sequence[Box]) -> int | None:
    """Index of the box with the largest area, None without boxes."""
    return max(range(len(boxes)), key=lambda i: _area(boxes[i]), default=None)


def _continuing(before: Box, boxes: Sequence[Box]) -> int | None:
    """The box that overlaps `before` most, or else the nearest of about its size; None when none is near."""
    if not boxes:
        return None
    overlapping = max(range(len(boxes)), key=lambda i: _overlap(before, boxes[i]))
    if _overlap(before, boxes[overlapping]) >= _LEAST_OVERLAP:
        return overlapping
    side = _area(before) ** 0.5
    nearest = min(range(len(boxes)), key=lambda i: _distance(before, boxes[i]))
    growth = _area(boxes[nearest]) ** 0.5 / side
    near = _distance(before, boxes[nearest]) <= _FARTHEST_STEP * side
    return nearest if near and 1 / _LARGEST_GROWTH <= growth <= _LARGEST_GROWTH else None


def _area(box: Box) -> float:
    return max(box[2] - box[0], 1e-6) * max(box[3] - box[1], 1e-6)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / (_area(a) + _area(b) - common)


def _distance(a: Box, b: Box) -> float:
    """Distance between the centres."""
    return float(((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) ** 0.5 / 2)
