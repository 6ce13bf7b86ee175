"""The face extractor: from pictures to rows of the vision modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.assets.store import fetch, sha256_of
from dhmd.contract import FeatureSpec, Rows
from dhmd.features.covered import COVERED, CoveredMouth
from dhmd.features.expression import EMBEDDING_WIDTH, ExpressionNet, aligned_crop, eye_centres
from dhmd.features.finder import FaceFinder
from dhmd.features.landmarks import BLENDSHAPES, POSE, Face, RunningMode, pixel_boxes
from dhmd.features.timeline import PICTURES_HZ, picture_cell
from dhmd.features.tracks import Box, Tracks, largest, proportions
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality

RATE_HZ: Final = PICTURES_HZ
WINDOW_S: Final = 5.0
SIGHTINGS: Final = 3
"""Pictures in a row, 0.2 s at the full rate, in which a new face must be seen before it counts."""
WIDTH: Final = len(BLENDSHAPES) + len(POSE) + EMBEDDING_WIDTH + len(EMOTIONS)
"""Numbers in a row: 52 blendshapes, yaw, pitch and roll in radians, expression embedding, emotion logits."""

READABLE_PX: Final = 12.0
"""Distance of the eyes below which faces of a stream are not read. Made smaller from 55, faces keep their emotion to a
tenth at 20, to a quarter at 12."""

NEWEST: Final = 0.2
"""Weight of the newest picture in whether a mouth is covered: the mean is of about a third of a second."""

_ASSET, _WEIGHTS = "face-landmarker", "face_landmarker.task"
_NETWORK = "vision.safetensors"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One person in one picture.

    person: number of the track. rows: one row (see WIDTH), none of a face too far away. box, landmarks, emotions,
    too_far, covered: as in FaceObservation. blendshapes: (52,), order of BLENDSHAPES.
    """

    person: int
    rows: Rows
    box: Box
    landmarks: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    emotions: NDArray[np.float32] | None = None
    too_far: bool = False
    covered: bool = False


@dataclass(frozen=True, slots=True)
class FaceObservation:
    """Holds what one picture shows.

    captured_s: capture time of the picture, seconds on the stream clock.
    rows: one row (see WIDTH) when the subject is in sight, else none.
    faces: how many faces there are, the subject's included, counted up to MAX_FACES, or all people that are read.
    others: boxes of those that are not read.
    people: where several are read, all that are in sight, by number; the subject is one of them.
    tracked: numbers of these and of those out of sight for a moment.
    Of the subject, or None:
    box: x0, y0, x1, y1 as fractions of the picture.
    landmarks: (478, 3) float32; x and y as fractions of the picture, z in the scale of x.
    emotions: (7,) float32, probabilities by the expression network, order of EMOTIONS.
    too_far: whether it is in sight with too few pixels to be read; then there is no row.
    covered: whether the mouth has been covered in the newest pictures; never where the expression network is another
        than that of which this was learned.
    """

    captured_s: float
    rows: Rows
    faces: int
    box: Box | None = None
    landmarks: NDArray[np.float32] | None = None
    emotions: NDArray[np.float32] | None = None
    too_far: bool = False
    others: tuple[Box, ...] = ()
    people: tuple[Sighting, ...] = ()
    tracked: tuple[int, ...] = ()
    covered: bool = False

    @property
    def blendshapes(self) -> dict[str, float]:
        """Blendshape scores in [0, 1] by name; empty without a subject."""
        return {name: float(score) for row in self.rows.values for name, score in zip(BLENDSHAPES, row, strict=False)}


class FaceExtractor:
    """Rows of the vision modality from the pictures of one stream, or of unrelated stills.

    expression: the trained network; its embedding is part of the row.
    running_mode: "video" follows people through a stream; "image" takes the largest face of each still.
    min_detection_confidence: in [0, 1]; lower it for tiny or cut-off faces.
    people: how many are read at most.
    Not for use from several threads at once.
    """

    def __init__(
        self,
        expression: ExpressionNet,
        running_mode: RunningMode = "video",
        min_detection_confidence: float = 0.5,
        people: int = 1,
    ) -> None:
        self.expression = expression.eval()
        self.people = people
        self._covered: dict[int, float] = {}
        """How likely the mouth of each person has been covered, as a logit, in the mean of the newest pictures."""
        self._finder = FaceFinder(fetch(_ASSET) / _WEIGHTS, running_mode, min_detection_confidence, people)
        self._tracks = Tracks(people, SIGHTINGS) if running_mode == "video" else None
        self._looked_s: float | None = None
        self._asked: tuple[float, float] | None = None
        self.spec = face_spec(expression)
        self._mouth = CoveredMouth.of(self.spec.weights[_NETWORK])

    def due(self, captured_s: float, pictures_hz: float = PICTURES_HZ) -> bool:
        """Tells whether a picture of this time falls into another cell of the grid than the last one pushed.

        Live and offline keep the same pictures of a stream when both push only those that are due on one grid.
        """
        last_s = self._looked_s
        return last_s is None or picture_cell(captured_s, pictures_hz) != picture_cell(last_s, pictures_hz)

    def push(self, image: NDArray[np.uint8], captured_s: float) -> FaceObservation:
        """Observe one picture. image: (H, W, 3) uint8, BGR, any size."""
        self._looked_s = captured_s
        faces = self._finder.find(image, captured_s)
        found, subject = self._found(image, faces, captured_s)
        chosen = found.get(subject) if subject is not None else None
        followed = largest(pixel_boxes(faces, image)) if chosen is None else chosen
        self._finder.follow(
            None if followed is None else faces[followed], [faces[at] for at in found.values()], captured_s
        )
        people = self._sighted(image, faces, found, captured_s)
        others = tuple(face.box for i, face in enumerate(faces) if i not in found.values())
        one = next((person for person in people if person.person == subject), None)
        several = people if self.people > 1 else ()
        tracked = self._tracks.ids if self._tracks is not None and self.people > 1 else ()
        if one is None:
            return FaceObservation(
                captured_s, Rows.empty(WIDTH), len(faces), others=others, people=several, tracked=tracked
            )
        return FaceObservation(
            captured_s,
            one.rows,
            len(faces),
            one.box,
            one.landmarks,
            one.emotions,
            one.too_far,
            others,
            several,
            tracked,
            one.covered,
        )

    def choose(self, x: float, y: float) -> None:
        """Read the person at a place of the next picture, fractions of it, if a face is there. For any thread.

        Where several are read, that one is the subject from then on.
        """
        self._asked = (x, y)

    def _found(
        self, image: NDArray[np.uint8], faces: Sequence[Face], captured_s: float
    ) -> tuple[Mapping[int, int], int | None]:
        """Which face each person is that is read, by number; and the number of the subject."""
        boxes = pixel_boxes(faces, image)
        asked, self._asked = self._asked, None
        if self._tracks is None:
            first = largest(boxes)
            return ({} if first is None else {1: first}), 1
        pointed_at = None if asked is None else _around(asked, [face.box for face in faces])
        height, width = image.shape[:2]
        shapes = [proportions(face.landmarks, width, height) for face in faces]
        return self._tracks.among(boxes, captured_s, pointed_at, shapes), self._tracks.subject

    def _sighted(
        self, image: NDArray[np.uint8], faces: Sequence[Face], found: Mapping[int, int], captured_s: float
    ) -> tuple[Sighting, ...]:
        """Those that are read, their crops in one pass through the network."""
        far = {
            person
            for person, at in found.items()
            if self._tracks is not None and _eye_distance(faces[at], image) < READABLE_PX
        }
        near = [(person, at) for person, at in found.items() if person not in far]
        made: dict[int, tuple[Rows, NDArray[np.float32]]] = {}
        if near:
            crops = torch.from_numpy(np.stack([aligned_crop(image, faces[at].landmarks) for _, at in near]))
            with torch.inference_mode():
                embeddings, logits, lower = self.expression.see(crops, self.expression.fused())
                covered = self._mouth(lower) if self._mouth is not None else torch.full((len(near),), -1e3)
            of_each = dict(zip((person for person, _ in near), covered.tolist(), strict=True))
            self._covered = {
                person: (before := self._covered.get(person, logit)) + NEWEST * (logit - before)
                for person, logit in of_each.items()
            }
            shares = logits.softmax(dim=1).numpy()
            for i, (person, at) in enumerate(near):
                parts = [faces[at].blendshapes, faces[at].pose, embeddings[i].numpy(), logits[i].numpy()]
                made[person] = Rows(np.array([captured_s]), np.concatenate(parts)[None]), shares[i]
        return tuple(
            Sighting(
                person,
                made[person][0] if person in made else Rows.empty(WIDTH),
                faces[at].box,
                faces[at].landmarks,
                faces[at].blendshapes,
                made[person][1] if person in made else None,
                too_far=person in far,
                covered=person in made and self._covered[person] > COVERED,
            )
            for person, at in found.items()
        )

    def close(self) -> None:
        self._finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _around(point: tuple[float, float], boxes: Sequence[Box]) -> int | None:
    """The box with a point in it; of several, the one whose centre is nearest."""
    x, y = point
    holding = [i for i, (x0, y0, x1, y1) in enumerate(boxes) if x0 <= x <= x1 and y0 <= y <= y1]
    return min(
        holding,
        key=lambda i: (boxes[i][0] + boxes[i][2] - 2 * x) ** 2 + (boxes[i][1] + boxes[i][3] - 2 * y) ** 2,
        default=None,
    )


def face_spec(expression: ExpressionNet) -> FeatureSpec:
    """The contract of the rows made with this network."""
    return FeatureSpec(
        modality=Modality.VISION,
        extractor="mediapipe-face-landmarker+expression-net",
        version="2",
        width=WIDTH,
        rate_hz=RATE_HZ,
        steps=round(RATE_HZ * WINDOW_S),
        window_s=WINDOW_S,
        absent_after_s=0.5,
        weights={
            _WEIGHTS: sha256_of(_ASSET, _WEIGHTS),
            _NETWORK: expression.sha256(),
        },
    )


def _eye_distance(face: Face, image: NDArray[np.uint8]) -> float:
    """In pixels, in space: a turned face is no smaller."""
    left, right = eye_centres(face.landmarks, image.shape[1], image.shape[0])
    return float(np.linalg.norm(right - left))
