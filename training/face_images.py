"""Labelled face images of FER2013 and CK+, each seen once through the face landmarker and kept as an aligned crop."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from dhmd.assets import fetch
from dhmd.features.expression import CROP_SIDE, EYE_DISTANCE, EYE_HEIGHT, aligned_crop
from dhmd.features.landmarks import BLENDSHAPES, POSE, FaceLandmarks
from dhmd.features.subject import largest
from dhmd.labels import EMOTIONS

MARGIN: Final = 8
"""Pixels of surroundings kept around every crop, so that shifts and turns need invent nothing."""

DETECTION_CONFIDENCE: Final = 0.2
"""FER2013's faces fill their 48 pixels, often cut off: the detector needs to be generous."""

SPLITS: Final = ("train", "validation", "test")

_CLASSES: Final = {name: name for name in EMOTIONS} | {"anger": "angry", "sadness": "sad"}
_PART: Final = 2000
_FER2013, _CK = "fer2013.zip", "ck48.zip"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of a corpus. `label` is its index in EMOTIONS."""

    archive: str
    member: str
    label: int
    split: str
    pixels_sha256: str


@dataclass(frozen=True, slots=True)
class FaceImages:
    """N images as the landmarker saw them, in the order of the corpora.

    split: (N,) index into SPLITS. label: (N,) index into EMOTIONS. ck: (N,) bool, of CK+ and not of FER2013.
    crops: (N, S, S) uint8 aligned crops with MARGIN; where no face was found the plain image, which frames alike.
    found: (N,) bool. measures: (N, 55) float32, blendshapes and pose; zero where no face was found.
    """

    split: NDArray[np.int64]
    label: NDArray[np.int64]
    ck: NDArray[np.bool_]
    crops: NDArray[np.uint8]
    found: NDArray[np.bool_]
    measures: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


def labelled_images(corpora: Path) -> list[LabelledImage]:
    """The images of FER2013 and CK+ with their splits; contempt, which we do not have, is left out.

    FER2013: its test folder is the test set; a tenth of its train folder is validation. CK+: a fifth of the subjects
    is validation. Both are chosen by hash, so copies of one image fall on the same side; training images that
    also stand in the test folder are dropped.
    """
    fer = list(_fer2013(corpora / _FER2013))
    tested = {image.pixels_sha256 for image in fer if image.split == "test"}
    kept = [image for image in fer if image.split == "test" or image.pixels_sha256 not in tested]
    return kept + list(_ck(corpora / _CK))


def face_images(corpora: Path, cache: Path, jobs: int = 1) -> FaceImages:
    """See every image through the landmarker, or read what an earlier call left in `cache`.

    Takes about 12 ms of one core an image. When cut off it goes on where it was. `jobs`: processes.
    """
    images = labelled_images(corpora)
    contents = repr((images, CROP_SIDE, EYE_DISTANCE, EYE_HEIGHT, MARGIN, DETECTION_CONFIDENCE))
    folder = cache / f"faces-{hashlib.sha256(contents.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [(folder / f"{start:06d}.npz", images[start : start + _PART]) for start in range(0, len(images), _PART)]
    missing = [(corpora, path, part) for path, part in parts if not path.exists()]
    if missing:
        model = fetch("face-landmarker") / "face_landmarker.task"
        # Spawned, not forked: native libraries with threads do not survive a fork.
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            work = pool.map(_see_part, [(model, *job) for job in missing])
            for _ in track(work, "Faces of FER2013 and CK+", total=len(missing)):
                pass
    seen = []
    for path, _ in parts:
        with np.load(path) as part:
            seen.append({name: part[name] for name in ("crops", "found", "measures")})
    return FaceImages(
        split=np.array([SPLITS.index(image.split) for image in images]),
        label=np.array([image.label for image in images]),
        ck=np.array([image.archive == _CK for image in images]),
        **{name: np.concatenate([part[name] for part in seen]) for name in ("crops", "found", "measures")},
    )


def enlarged(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tight (48, 48) face as a picture the detector can work on: (320, 320, 3), edges repeated around it."""
    import cv2

    large = cv2.resize(grey, (192, 192), interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(large, 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(framed, cv2.COLOR_GRAY2BGR), np.uint8)


def _see_part(job: tuple[Path, Path, Path, Sequence[LabelledImage]]) -> None:
    """See one part of the images and write it; the file appears only when it is whole."""
    import cv2

    model, corpora, path, images = job
    cv2.setNumThreads(1)
    crops = np.empty((len(images), CROP_SIDE + 2 * MARGIN, CROP_SIDE + 2 * MARGIN), np.uint8)
    found = np.zeros(len(images), np.bool_)
    measures = np.zeros((len(images), len(BLENDSHAPES) + len(POSE)), np.float32)
    archives = {name: zipfile.ZipFile(corpora / name) for name in {image.archive for image in images}}
    with FaceLandmarks(model, "image", DETECTION_CONFIDENCE) as landmarks:
        for i, image in enumerate(images):
            grey = _grey(archives[image.archive].read(image.member))
            picture = enlarged(grey)
            faces = landmarks.find(picture, 0.0)
            chosen = largest([face.box for face in faces])
            if chosen is None:
                crops[i] = cv2.copyMakeBorder(grey, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
            else:
                face = faces[chosen]
                crops[i] = aligned_crop(picture, face.landmarks, MARGIN)
                found[i] = True
                measures[i] = np.concatenate([face.blendshapes, face.pose])
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, crops=crops, found=found, measures=measures)
    unfinished.rename(path)


def _fer2013(path: Path) -> Iterator[LabelledImage]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.namelist()):
            folder, _, rest = member.partition("/")
            emotion, _, name = rest.partition("/")
            if not name.endswith(".jpg"):
                continue
            digest = hashlib.sha256(_grey(archive.read(member)).tobytes()).hexdigest()
            held_out = int(digest[:8], 16) % 10 == 0
            split = "test" if folder == "test" else "validation" if held_out else "train"
            yield LabelledImage(path.name, member, EMOTIONS.index(_CLASSES[emotion]), split, digest)


def _ck(path: Path) -> Iterator[LabelledImage]:
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.namelist()):
            match = re.fullmatch(r"(\w+)/(S\d+)_\w+\.png", member)
            if match is None or match[1] not in _CLASSES:
                continue
            held_out = hashlib.sha256(match[2].encode()).digest()[0] % 5 == 0
            digest = hashlib.sha256(_grey(archive.read(member)).tobytes()).hexdigest()
            split = "validation" if held_out else "train"
            yield LabelledImage(path.name, member, EMOTIONS.index(_CLASSES[match[1]]), split, digest)


def _grey(encoded: bytes) -> NDArray[np.uint8]:
    """Decode an image file to (48, 48) uint8."""
    import cv2

    grey = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None or grey.shape != (CROP_SIDE, CROP_SIDE):
        raise ValueError("an image of FER2013 or CK+ is damaged or not 48 x 48 pixels: fetch the corpus again")
    return np.asarray(grey, np.uint8)
