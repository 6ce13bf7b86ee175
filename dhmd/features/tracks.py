"""Tracks of the faces of one stream: a face keeps its number while it is in sight, and for a moment behind something.

Numbers count up from 1 with the stream. A track knows its face by where it was, how it moved, and, where faces cross,
by the proportions it shows; all of that is forgotten with the track. Nobody is recognised who comes again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""
Shape = NDArray[np.float64]
"""Proportions of a face, see `proportions`."""

HANDOVER_S: Final = 1.0
"""A face may be out of sight this long before its track ends, and the next largest takes its place."""

UNWATCHED_S: Final = 3.0
"""Pictures may be looked at so seldom, by a machine that is busy, without the end of a track whose face is still
there."""

_LEAST_OVERLAP = 0.2
_FARTHEST_STEP = 0.6  # of the face's side
_LARGEST_GROWTH = 1.8  # of the face's side, either way
_VELOCITY_KEPT = 0.6  # of the velocity before, in the mean of it and the newest step
_SHAPE_KEPT = 0.9
_SHAPE_WEIGHT = 20.0
"""Weight of a difference in proportions against one in place: of two people it is 0.02 to 0.06, of one 0.01 to 0.02."""
_ALIKE = 0.02
"""Difference in proportions up to which a newcomer may be who went out of sight a moment before, farther away."""
_SAME = 0.5
"""Overlap from which on two faces of a picture are one."""

_BONES: Final = (10, 168, 6, 4, 2, 33, 133, 362, 263, 127, 356, 234, 454)
"""Landmarks that an expression hardly moves: forehead, nose, corners of the eyes, temples, cheekbones."""
_PAIRS: Final = np.triu_indices(len(_BONES), 1)


@dataclass(slots=True)
class _Track:
    box: Box
    seen_s: float
    velocity: tuple[float, float] = (0.0, 0.0)
    shape: Shape | None = None

    def expected(self, captured_s: float) -> Box:
        """The box as it would have moved on."""
        dx, dy = (speed * (captured_s - self.seen_s) for speed in self.velocity)
        return self.box[0] + dx, self.box[1] + dy, self.box[2] + dx, self.box[3] + dy

    def see(self, box: Box, captured_s: float, shape: Shape | None, *, alone: bool) -> None:
        """Take in where it is now. alone: what it looks like belongs to it for certain."""
        if (passed_s := captured_s - self.seen_s) > 0:
            steps = ((box[i] + box[i + 2] - self.box[i] - self.box[i + 2]) / 2 / passed_s for i in range(2))
            self.velocity = tuple(  # type: ignore[assignment]
                _VELOCITY_KEPT * before + (1 - _VELOCITY_KEPT) * now
                for before, now in zip(self.velocity, steps, strict=True)
            )
        self.box, self.seen_s = box, captured_s
        if shape is not None and (alone or self.shape is None):
            self.shape = shape if self.shape is None else _SHAPE_KEPT * self.shape + (1 - _SHAPE_KEPT) * shape


class Tracks:
    """Follows up to `most` faces from picture to picture: the largest at first, then those that continue them.

    sightings: a newcomer gets a track when seen in so many pictures in a row. Detectors see a face in a cloud now and
        then, but not in the same place for long.
    """

    def __init__(self, most: int = 1, sightings: int = 1) -> None:
        self._most = most
        self._sightings = sightings
        self._newcomers: list[tuple[Box, int]] = []
        """With how often each was seen."""
        self._tracks: dict[int, _Track] = {}
        self._newest_id = 0
        self._newest_s = -math.inf
        self.subject: int | None = None
        """The track of who is read where one person is: the largest, until gone."""

    @property
    def ids(self) -> tuple[int, ...]:
        """All tracks, those out of sight for a moment too."""
        return tuple(self._tracks)

    def among(
        self,
        boxes: Sequence[Box],
        captured_s: float,
        pointed_at: int | None = None,
        shapes: Sequence[Shape] | None = None,
    ) -> Mapping[int, int]:
        """Find the faces that have tracks: by id, which of `boxes` it is. Those out of sight are missing.

        boxes: in a unit that is the same along x and y. pointed_at: the one that somebody chooses as subject now.
        shapes: proportions of each. Time that runs backwards starts anew (a file that loops).
        """
        if captured_s < self._newest_s:
            self._tracks.clear()
        before_s, self._newest_s = self._newest_s, captured_s
        away = {i for i, track in self._tracks.items() if captured_s - track.seen_s >= HANDOVER_S}
        # Nobody looked since it was seen, if that was in the picture before: it may still be there.
        unwatched = {i for i in away if self._tracks[i].seen_s == before_s and captured_s - before_s < UNWATCHED_S}
        self._end(away - unwatched)
        found = self._continued(boxes, captured_s, shapes)
        self._end(unwatched - found.keys())
        if pointed_at is not None:
            self._point_at(pointed_at, found)
        self._arrive(boxes, found, shapes)
        for i, at in found.items():
            self._take_in(i, boxes, at, captured_s, shapes)
        if self.subject not in self._tracks:
            first = largest([boxes[at] for at in found.values()])
            self.subject = None if first is None else list(found)[first]
        return dict(sorted(found.items()))

    def _end(self, ids: AbstractSet[int]) -> None:
        for gone in ids:
            del self._tracks[gone]

    def _continued(self, boxes: Sequence[Box], captured_s: float, shapes: Sequence[Shape] | None) -> dict[int, int]:
        """The tracks that go on, best match first."""
        near: dict[tuple[int, int], float] = {}
        for i, track in self._tracks.items():
            expected = track.expected(captured_s)
            for at, box in enumerate(boxes):
                nearness = max(_nearness(track.box, box), _nearness(expected, box))
                if nearness > 0:
                    near[i, at] = nearness
        if shapes is not None:
            # Where one face could be several tracks', or one track several faces, they are told apart by their looks.
            for (i, at), nearness in list(near.items()):
                shape = self._tracks[i].shape
                crossing = sum(i == j or at == b for j, b in near) > 1
                if crossing and shape is not None:
                    near[i, at] = nearness - _SHAPE_WEIGHT * difference(shape, shapes[at])
        found: dict[int, int] = {}
        for i, at in sorted(near, key=lambda pair: near[pair], reverse=True):
            if i not in found and at not in found.values():
                found[i] = at
        return found

    def _point_at(self, at: int, found: dict[int, int]) -> None:
        """Make who is there the subject; without a track, and without room for one, in place of the subject."""
        tracked = next((i for i, one in found.items() if one == at), None)
        if tracked is None:
            if len(self._tracks) >= self._most:
                given_up = self.subject if self.subject in self._tracks else next(iter(self._tracks))
                del self._tracks[given_up]
                found.pop(given_up, None)
            tracked = self._next_id()
            found[tracked] = at
        self.subject = tracked

    def _arrive(self, boxes: Sequence[Box], found: dict[int, int], shapes: Sequence[Shape] | None) -> None:
        """Give tracks to newcomers that were seen often enough; as many are followed as there is room.

        Of several, one that is out of sight may come back elsewhere; the only one is where it was, or gone.
        """
        room = self._most - len(self._tracks.keys() | found.keys())
        hidden = len(self._tracks.keys() - found.keys()) if self._most > 1 and shapes is not None else 0
        left = [at for at in range(len(boxes)) if at not in found.values()]
        again: list[tuple[int, int]] = []
        for before, seen in self._newcomers:
            at = max(left, key=lambda one: _nearness(before, boxes[one]), default=None)
            if at is not None and _nearness(before, boxes[at]) > 0:
                again.append((at, seen + 1))
                left.remove(at)
        left.sort(key=lambda at: _area(boxes[at]), reverse=True)
        self._newcomers = []
        for at, seen in [*again, *((at, 1) for at in left)][: room + hidden]:
            known = None
            if seen >= self._sightings:
                known = self._returned(boxes[at], found, None if shapes is None else shapes[at])
                if known is None and room > 0:
                    known, room = self._next_id(), room - 1
            if known is not None:
                found[known] = at
            else:
                self._newcomers.append((boxes[at], seen))

    def _returned(self, box: Box, found: Mapping[int, int], shape: Shape | None) -> int | None:
        """The track out of sight that a newcomer's looks continue, if one does."""
        alike = {
            i: difference(track.shape, shape)
            for i, track in self._tracks.items()
            if i not in found and shape is not None and track.shape is not None and _of_one_size(track.box, box)
        }
        nearest = min(alike, key=lambda i: alike[i], default=None)
        return nearest if nearest is not None and alike[nearest] <= _ALIKE else None

    def _take_in(
        self, i: int, boxes: Sequence[Box], at: int, captured_s: float, shapes: Sequence[Shape] | None
    ) -> None:
        shape = None if shapes is None else shapes[at]
        if i not in self._tracks:
            self._tracks[i] = _Track(boxes[at], captured_s, shape=shape)
            return
        others = [box for other, box in enumerate(boxes) if other != at]
        others += [track.expected(captured_s) for j, track in self._tracks.items() if j != i]
        alone = all(overlap(boxes[at], other) <= 0 for other in others)
        self._tracks[i].see(boxes[at], captured_s, shape, alone=alone)

    def _next_id(self) -> int:
        self._newest_id += 1
        return self._newest_id


def largest(boxes: Sequence[Box]) -> int | None:
    """Index of the box with the largest area, None without boxes."""
    return max(range(len(boxes)), key=lambda i: _area(boxes[i]), default=None)


def apart(boxes: Sequence[Box]) -> list[int]:
    """Indices of boxes that are faces of their own: of those that lie on one another, the first."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        if all(overlap(box, boxes[j]) < _SAME for j in kept):
            kept.append(i)
    return kept


def proportions(landmarks: NDArray[np.float32], width: int, height: int) -> Shape:
    """Logarithms of the distances between landmarks on the bones of a face, of mean 0: neither size nor pose counts.

    landmarks: (478, 3) as in Face.landmarks, of a picture of `width` x `height` pixels.
    """
    points = landmarks[np.array(_BONES)].astype(np.float64) * (width, height, width)
    distances = np.linalg.norm(points[_PAIRS[0]] - points[_PAIRS[1]], axis=1)
    logs = np.log(np.maximum(distances, 1e-6))
    centred: Shape = logs - logs.mean()
    return centred


def difference(one: Shape, other: Shape) -> float:
    """Root mean square of how far two faces' proportions are apart."""
    return float(np.sqrt(np.mean(np.square(one - other))))


def _nearness(before: Box, box: Box) -> float:
    """How well `box` continues `before`: above 1 if they overlap, by how much; up to 1 if it is near and of about its
    size; else 0."""
    common = overlap(before, box)
    if common >= _LEAST_OVERLAP:
        return 1 + common
    away = _distance(before, box) / (_FARTHEST_STEP * _area(before) ** 0.5)
    return 1 - away + 1e-9 if away <= 1 and _of_one_size(before, box) else 0.0


def _of_one_size(before: Box, box: Box) -> bool:
    growth = math.sqrt(_area(box) / _area(before))
    return 1 / _LARGEST_GROWTH <= growth <= _LARGEST_GROWTH


def _area(box: Box) -> float:
    return max(box[2] - box[0], 1e-6) * max(box[3] - box[1], 1e-6)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return common / (_area(a) + _area(b) - common)


def _distance(a: Box, b: Box) -> float:
    """Distance between the centres."""
    return float(((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) ** 0.5 / 2)
