"""Faces near and far: in the whole picture, and where that shows none, in parts of it at full resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.features.landmarks import Face, FaceLandmarks, RunningMode, within_max_side
from dhmd.features.tracks import Box, apart, overlap

KNOWN_S: Final = 1.0
"""Where a face was seen is looked at again for so long; only after that everywhere else."""
WHOLE_EVERY_S: Final = 1.0
"""While a far face is followed, the whole picture is looked at this often: whoever is nearer goes before."""
SMALL: Final = 0.2
"""Longer side of a face by that of the picture, below which the whole picture may not show it at every moment: it shows
none below 0.17, where the eyes are 0.055 apart."""
ROOM: Final = 2.5
"""Side of the region in which a face is followed, in longer sides of the face."""
FINER: Final = 2.2
"""Side of a tile by that of the next smaller ones."""
OVERLAP: Final = 0.36
"""Of neighbouring tiles: a face that the tiles above just miss lies in one of them whole."""
SMALLEST_TILE: Final = 192
"""Side in pixels: it shows eyes that are 10 pixels apart. Fewer tell of nobody."""
TILES_AT_ONCE: Final = 2
"""Tiles a picture: as much work as a face that is followed."""
FINEST_AT_ONCE: Final = 30
"""Of the smallest tiles, which are many, between two turns of all others."""
SEARCHED_EVERY: Final = 2
"""Pictures from one tile to the next while there is room for more people beside those in sight."""
SHOWN: Final = 0.2
"""Overlap of a face with where one was, from which on it is that one."""

Region = tuple[int, int, int]
"""x, y of the upper left corner and side, in pixels."""


class FaceFinder:
    """Finds the faces of the successive pictures of one stream ("video"), or of unrelated stills ("image").

    Stills are looked at as a whole alone. A second landmarker is loaded when parts are first looked at.

    people: how many are to be found at most. One is looked for in parts where the whole picture shows nobody; of
    several, each that the whole picture does not show, and with room for more, others beside them.
    """

    def __init__(
        self, model: Path, running_mode: RunningMode, min_detection_confidence: float, people: int = 1
    ) -> None:
        self._model = model
        self._confidence = min_detection_confidence
        self._people = people
        self._whole = FaceLandmarks(model, running_mode, min_detection_confidence, people)
        self._part: FaceLandmarks | None = None
        self._searches = running_mode == "video"
        self._known: Box | None = None
        """Of the face that is followed, as fractions of the picture."""
        self._known_s = -math.inf
        self._others: list[tuple[Box, float]] = []
        """Of all that are followed where several are, with when each was seen."""
        self._pictures = 0
        self._whole_due_s = -math.inf
        self._shape: tuple[int, ...] = ()
        self._tiles: Iterator[Region] = iter(())

    def find(self, image: NDArray[np.uint8], captured_s: float) -> list[Face]:
        """Faces of a picture (H, W, 3) uint8 BGR of any size, in fractions of it."""
        if image.shape != self._shape or captured_s < self._known_s:
            self._shape, self._tiles = image.shape, iter(tiles(image.shape[1], image.shape[0]))
            self._known, self._known_s, self._whole_due_s = None, captured_s, -math.inf
            self._others = []
        if self._people > 1 and self._searches:
            return self._find_several(image, captured_s)
        if captured_s >= self._whole_due_s:
            faces = self._whole.find(within_max_side(image), captured_s)
            if faces or not self._searches:
                return faces
        if self._known is not None and captured_s - self._known_s < KNOWN_S:
            faces = self._look(image, around(self._known, image.shape[1], image.shape[0])) if self._is_small else []
            if faces and captured_s >= self._whole_due_s:
                self._whole_due_s = captured_s + WHOLE_EVERY_S
            return faces
        self._whole_due_s = -math.inf
        if captured_s - self._known_s < KNOWN_S:
            return []
        searched = (self._look(image, tile) for tile in itertools.islice(self._tiles, TILES_AT_ONCE))
        return next((faces for faces in searched if faces), [])

    def _find_several(self, image: NDArray[np.uint8], captured_s: float) -> list[Face]:
        faces = self._whole.find(within_max_side(image), captured_s)
        for box, _ in self._others:
            if self._small(box) and all(overlap(box, face.box) < SHOWN for face in faces):
                faces += self._look(image, around(box, image.shape[1], image.shape[0]))
        self._pictures += 1
        if len(faces) < self._people and self._pictures % SEARCHED_EVERY == 0:
            faces += (face for tile in itertools.islice(self._tiles, 1) for face in self._look(image, tile))
        return [faces[i] for i in apart([face.box for face in faces])]

    def follow(self, face: Face | None, people: Sequence[Face], captured_s: float) -> None:
        """Tell which of the faces found is to be followed where one is; and those of several."""
        if face is not None:
            self._known, self._known_s = face.box, captured_s
        if self._people > 1:
            seen = [(one.box, captured_s) for one in people]
            hidden = [
                (box, seen_s)
                for box, seen_s in self._others
                if captured_s - seen_s < KNOWN_S and all(overlap(box, one.box) < SHOWN for one in people)
            ]
            self._others = seen + hidden

    @property
    def _is_small(self) -> bool:
        return self._known is not None and self._small(self._known)

    def _small(self, box: Box) -> bool:
        x0, y0, x1, y1 = box
        height, width = self._shape[:2]
        return max((x1 - x0) * width, (y1 - y0) * height) < SMALL * max(width, height)

    def _look(self, image: NDArray[np.uint8], region: Region) -> list[Face]:
        if self._part is None:
            self._part = FaceLandmarks(self._model, "image", self._confidence, self._people)
        x, y, side = region
        part = image[y : y + side, x : x + side]
        return [_placed(face, region, part.shape, image.shape) for face in self._part.find(np.ascontiguousarray(part))]

    def close(self) -> None:
        self._whole.close()
        if self._part is not None:
            self._part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def around(box: Box, width: int, height: int) -> Region:
    """The region in which a face is followed. box: as fractions of the picture."""
    x0, y0, x1, y1 = box
    side = math.ceil(max((x1 - x0) * width, (y1 - y0) * height) * ROOM)
    x, y = ((x0 + x1) * width - side) / 2, ((y0 + y1) * height - side) / 2
    return max(0, min(round(x), width - side)), max(0, min(round(y), height - side)), side


def tiles(width: int, height: int) -> Iterator[Region]:
    """Overlapping tiles of a picture, for ever: from large to small, the smallest only some a turn."""
    sides = []
    side = max(width, height) / FINER
    while side > SMALLEST_TILE:
        sides.append(round(side))
        side /= FINER
    coarse = [tile for side in sides for tile in _level(width, height, side)]
    finest = itertools.cycle(_level(width, height, SMALLEST_TILE)) if max(width, height) > SMALLEST_TILE else iter(())
    while True:
        turn = [*coarse, *itertools.islice(finest, FINEST_AT_ONCE)]
        if not turn:
            return
        yield from turn


def _level(width: int, height: int, side: int) -> list[Region]:
    return [(x, y, side) for y in _steps(height, side) for x in _steps(width, side)]


def _steps(length: int, side: int) -> list[int]:
    """Beginnings of tiles that cover a length."""
    rest = max(0, length - side)
    count = math.ceil(rest / (side * (1 - OVERLAP))) + 1
    return [round(rest * number / max(1, count - 1)) for number in range(count)]


def _placed(face: Face, region: Region, part: Sequence[int], whole: Sequence[int]) -> Face:
    """A face of a part in fractions of the whole."""
    x, y, _ = region
    scale = np.array([part[1] / whole[1], part[0] / whole[0], part[1] / whole[1]], np.float32)
    shift = np.array([x / whole[1], y / whole[0], 0], np.float32)
    return Face(face.landmarks * scale + shift, face.blendshapes, face.pose)
