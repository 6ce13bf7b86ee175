"""Faces in a picture: MediaPipe's Face Landmarker behind plain arrays."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import LibraryMissing
from dhmd.features.tracks import Box
from dhmd.machine import native_stderr_to

RunningMode = Literal["video", "image"]

MAX_FACES: Final = 4
"""Faces found in one picture at most, unless more people are to be read. Looking for more than one costs about 2 ms a
frame, each face found 7 ms more."""
MOST_PEOPLE: Final = 16
"""People that are read at most: with more, a picture takes longer to look at than a face may be old."""

MAX_SIDE: Final = 1920
"""Larger pictures are shrunk to this longest side in pixels; below it shrinking costs more than it saves."""

BLENDSHAPES: Final = (
    "_neutral",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
)
"""The model's own names in its own order; checked against what it delivers."""

POSE: Final = ("yaw", "pitch", "roll")

_STARTUP_CHATTER = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog|INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|W0000 .*face_landmarker_graph\.cc.*acceleration to xnnpack by default"
    rb"|W0000 .*inference_feedback_manager\.cc.*Disabling support for feedback tensors)"
)
_stderr_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one picture.

    landmarks: (478, 3) float32; x and y as fractions of the picture's width and height, z in the scale of x,
        smaller nearer to the camera.
    blendshapes: (52,) float32 in [0, 1], order of BLENDSHAPES.
    pose: (3,) float32 yaw, pitch, roll in radians: positive when the face is turned to the right edge of the picture,
        up, and tilted counter-clockwise.
    """

    landmarks: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    pose: NDArray[np.float32]

    @property
    def box(self) -> Box:
        """x0, y0, x1, y1 around the landmarks, clipped to the picture, as fractions of it."""
        x0, y0 = self.landmarks[:, :2].min(axis=0).clip(0, 1)
        x1, y1 = self.landmarks[:, :2].max(axis=0).clip(0, 1)
        return float(x0), float(y0), float(x1), float(y1)


class FaceLandmarks:
    """Finds the faces of a picture (IMAGE mode) or of the successive pictures of one stream (VIDEO mode).

    model: the file face_landmarker.task.
    min_detection_confidence: in [0, 1]; lower it for tiny or cut-off faces.
    people: how many are to be found at least; MAX_FACES are, in any case.
    """

    def __init__(
        self,
        model: Path,
        running_mode: RunningMode = "video",
        min_detection_confidence: float = 0.5,
        people: int = 1,
    ) -> None:
        self._mediapipe, self._cv2 = _libraries()
        vision = self._mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_buffer=model.read_bytes()),
            running_mode=vision.RunningMode.VIDEO if running_mode == "video" else vision.RunningMode.IMAGE,
            num_faces=max(MAX_FACES, people),
            min_face_detection_confidence=min_detection_confidence,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        self._video = running_mode == "video"
        self._timestamp_ms = -1
        with _without_startup_chatter():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
            # The graph opens its models, and logs about it, with the first picture.
            self.find(np.zeros((64, 64, 3), np.uint8), 0.0)

    def find(self, image_bgr: NDArray[np.uint8], captured_s: float = 0.0) -> list[Face]:
        """Faces of `image_bgr` ((H, W, 3) uint8), at most MAX_FACES or as many as `people`.

        In VIDEO mode the task demands strictly rising milliseconds, so equal or rewinding times are moved to the next
        one. Nothing else depends on them: it smooths over time only when it looks for a single face.
        """
        rgb = self._cv2.cvtColor(image_bgr, self._cv2.COLOR_BGR2RGB)
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=rgb)
        if self._video:
            self._timestamp_ms = max(self._timestamp_ms + 1, int(captured_s * 1000))
            found = self._landmarker.detect_for_video(image, self._timestamp_ms)
        else:
            found = self._landmarker.detect(image)
        return [
            Face(np.array([(p.x, p.y, p.z) for p in points], np.float32), _blendshapes(categories), head_pose(matrix))
            for points, categories, matrix in zip(
                found.face_landmarks, found.face_blendshapes, found.facial_transformation_matrixes, strict=True
            )
        ]

    def close(self) -> None:
        self._landmarker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def within_max_side(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, shrunk so that its longest side is at most MAX_SIDE."""
    longest = max(image.shape[:2])
    if longest <= MAX_SIDE:
        return image
    import cv2

    height, width = (max(1, round(length * MAX_SIDE / longest)) for length in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def pixel_boxes(faces: Sequence[Face], image: NDArray[np.uint8]) -> list[Box]:
    """The box of each face in pixels of its picture."""
    height, width = image.shape[:2]
    return [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in (face.box for face in faces)]


def head_pose(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Yaw, pitch, roll in radians, signs as in Face.pose, of a (4, 4) face-to-camera matrix.

    The matrix's axes: x to the right of the picture, y up, z towards the camera.
    """
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return np.array([yaw, pitch, roll], np.float32)


def _blendshapes(categories: list[Any]) -> NDArray[np.float32]:
    names = tuple(category.category_name for category in categories)
    if names != BLENDSHAPES:
        raise ValueError("face_landmarker.task gives other blendshapes than expected: fetch the pinned file again")
    return np.array([category.score for category in categories], np.float32)


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import cv2
        import mediapipe
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "mediapipe" and platform.machine() == "aarch64":
            remedy = "there is no build of it for Linux on ARM, which can serve what other machines capture (serve)"
        else:
            remedy = "pip install mediapipe==0.10.31 opencv-python-headless"
        raise LibraryMissing(f"face features need {error.name}: {remedy}") from error
    return mediapipe, cv2


def _scratch() -> AbstractContextManager[IO[bytes] | None]:
    """A file in memory, else in a folder for such files; None where neither can be had."""
    try:
        if hasattr(os, "memfd_create"):
            return os.fdopen(os.memfd_create("startup"), "w+b")
        return tempfile.TemporaryFile()
    except OSError:
        return nullcontext()


@contextmanager
def _without_startup_chatter() -> Iterator[None]:
    """Hold back what native code writes to stderr, then pass on every line but the known start-up notices.

    The library has no switch for them. Only start-up is covered: later messages go straight to stderr. So do all where
    there is nothing to hold them in.
    """
    with _stderr_lock, _scratch() as held:
        if held is None:
            yield
            return
        try:
            with native_stderr_to(held.fileno()):
                yield
        finally:
            held.seek(0)
            for line in held:
                if not _STARTUP_CHATTER.match(line):
                    os.write(2, line)
