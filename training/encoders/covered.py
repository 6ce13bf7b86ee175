"""Train the reading that tells covered mouths: by logistic regression on faces over which things are drawn.

Masks, hands, cups and other shapes cover the mouth. Sunglasses, hats, beards, hands at the cheek and things below the
chin leave it bare: not all that lies on a face is a cover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.features.covered import CoveredMouth
from dhmd.features.expression import ExpressionNet, aligned_crop
from dhmd.features.landmarks import Face, FaceLandmarks
from training.encoders.lips import separated
from training.features.face_images import largest_face

HIDDEN: Final = 0.8
"""Share of the lips that a cover hides at least, to be learned from."""
EACH: Final = 2
"""Covers of each face, which is also learned from as it is, and with something that leaves the mouth open."""
DECAY: Final = 0.03

Image = NDArray[np.uint8]
Layer = NDArray[np.float32]
"""(H, W): shares of a thing in a picture, in [0, 1], or levels of its surface, in [0, 255]."""
Point = NDArray[np.float64]
"""x, y in pixels."""
Pattern = Literal["plain", "pleats", "blotches", "grain", "stripes", "checks", "dots"]

_NASION, _CHIN, _FOREHEAD, _BELOW_NOSE = 168, 152, 9, 2
_UPPER_LIP, _LOWER_LIP, _MOUTH_LEFT, _MOUTH_RIGHT = 0, 17, 61, 291
_EYES: Final = ((33, 133), (263, 362))
"""Corners, the outer one first."""
_LIPS: Final = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_JAW: Final = (93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323)
_MASK_LEFT, _MASK_RIGHT, _MASK_TOP = (93, 116, 117), (323, 345, 346), (197, 195, 5)
"""Where a mask may end."""
_CHEEKS: Final = (50, 280, 117, 346)


def train(network: ExpressionNet, images: Iterable[Image], landmarks: FaceLandmarks, seed: int = 1) -> CoveredMouth:
    """The reading of this network. images: (H, W, 3) BGR, stills of people with nothing over the mouth; those without
    a face are left out. landmarks: in image mode, with DETECTION_CONFIDENCE."""
    random = np.random.default_rng(seed)
    seen, labels = [], []
    for image in images:
        for picture, label in _pictures(*largest_face(image, landmarks), random):
            face = largest_face(picture, landmarks)[1]
            if face is not None:
                with torch.inference_mode():
                    lower = network.see(torch.from_numpy(aligned_crop(picture, face.landmarks))[None]).lower
                seen.append(lower[0].numpy())
                labels.append(label)
    weight, bias = separated(np.stack(seen).astype(np.float64), np.array(labels, np.float64), DECAY)
    mouth = CoveredMouth()
    with torch.no_grad():
        mouth.reading.weight.copy_(torch.from_numpy(weight)[None])
        mouth.reading.bias.fill_(bias)
        mouth.network.copy_(torch.tensor(list(bytes.fromhex(network.sha256()))))
    return mouth.eval()


def _pictures(picture: Image, face: Face | None, random: np.random.Generator) -> Iterator[tuple[Image, bool]]:
    """What is learned from a picture of a face: it and others that are made of it, and whether the mouth is covered."""
    if face is not None:
        yield picture, False
        yield drawn(BESIDE[random.integers(len(BESIDE))], picture, face, random)[0], False
        for _ in range(EACH):
            covered, hidden = drawn(COVERS[random.integers(len(COVERS))], picture, face, random)
            if hidden >= HIDDEN:
                yield covered, True


def drawn(thing: Thing, picture: Image, face: Face, random: np.random.Generator) -> tuple[Image, float]:
    """The picture with a thing on its face, and the share of the lips that it hides. picture: (H, W, 3) BGR."""
    import cv2

    on = Canvas(picture, face, random)
    layer, surface = thing(on)
    layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), random.uniform(0.5, 1.5)), np.float32)
    lips = on.polygon(on.at[list(_LIPS)]) > 0
    noise = random.normal(0, random.uniform(0, 4), picture.shape)
    mixed = picture * (1 - layer[..., None]) + (surface * layer)[..., None] + noise
    return np.clip(mixed, 0, 255).astype(np.uint8), float(layer[lips].mean()) if lips.any() else 0.0


class Canvas:
    """A picture of a face to draw on, in the measures of the face.

    at: (478, 2) pixels, its landmarks. unit: pixels between the outer corners of its eyes.
    across, down: vectors of that length. mouth: its centre.
    """

    def __init__(self, picture: Image, face: Face, random: np.random.Generator) -> None:
        self.picture, self.random = picture, random
        self.size = picture.shape[1], picture.shape[0]
        self.at: NDArray[np.float64] = face.landmarks[:, :2].astype(np.float64) * self.size
        self.unit = float(np.linalg.norm(self.at[_EYES[1][0]] - self.at[_EYES[0][0]]))
        down = self.at[_CHIN] - self.at[_NASION]
        self.down: Point = down * (self.unit / np.linalg.norm(down))
        self.across: Point = np.array([self.down[1], -self.down[0]])
        self.mouth: Point = (self.at[_UPPER_LIP] + self.at[_LOWER_LIP]) / 2

    def about(self, place: Point, spread: float) -> Point:
        return place + self.random.normal(0, spread * self.unit, 2)

    def turned(self, degrees: float) -> tuple[Point, Point]:
        """across and down, turned by at most so much."""
        angle = np.radians(self.random.uniform(-degrees, degrees))
        cosine, sine = np.cos(angle), np.sin(angle)
        return cosine * self.across + sine * self.down, cosine * self.down - sine * self.across

    def polygon(self, points: Sequence[Point] | NDArray[np.float64]) -> Layer:
        import cv2

        layer = np.zeros(self.size[::-1], np.float32)
        cv2.fillPoly(layer, [np.round(np.array(points)).astype(np.int32)], 1.0)
        return layer

    def ellipse(self, centre: Point, along: Point, aside: Point) -> Layer:
        """along, aside: its half axes."""
        angles = np.linspace(0, 2 * np.pi, 48)
        return self.polygon(centre + np.outer(np.cos(angles), along) + np.outer(np.sin(angles), aside))

    def line(self, begin: Point, end: Point, width: float) -> Layer:
        """width: in units."""
        import cv2

        layer = np.zeros(self.size[::-1], np.float32)
        first, last = np.round((begin, end)).astype(int).tolist()
        cv2.line(layer, first, last, 1.0, max(1, round(width * self.unit)))
        return layer

    def skin(self) -> float:
        """A level near that of the cheeks."""
        x, y = np.clip(self.at[list(_CHEEKS)].astype(int), 0, np.array(self.size) - 1).T
        return float(np.median(self.picture[y, x])) * self.random.uniform(0.75, 1.2)

    def surface(self, level: float, *patterns: Pattern) -> Layer:
        """Levels of something in uneven light, with one of the patterns."""
        random, (width, height) = self.random, self.size
        y, x = np.mgrid[:height, :width]
        angle, turn = random.uniform(0, np.pi), 2 * np.pi / random.uniform(6, 30)
        u = np.sin(turn * (x * np.cos(angle) + y * np.sin(angle)))
        v = np.sin(turn * (y * np.cos(angle) - x * np.sin(angle)))
        pattern: NDArray[np.float64] = np.zeros((height, width))
        match patterns[random.integers(len(patterns))]:
            case "pleats":
                fold = np.sin(turn * y / 2)
                pattern = 0.5 * np.sign(fold) * (np.abs(fold) > 0.8)
            case "blotches":
                pattern = self._random(8, 8)
            case "grain":
                pattern = self._random(width // 3, height // 3)
            case "stripes":
                pattern = u
            case "checks":
                pattern = np.sign(u * v)
            case "dots":
                pattern = np.where(u + v > 1.2, 1.7, -0.3)
        light = random.uniform(-0.35, 0.35) * (2 * x / width - 1) + random.uniform(-0.35, 0.35) * (2 * y / height - 1)
        levels: Layer = np.float32((level + random.uniform(10, 60) * pattern) * (1 + light)).clip(0, 255)
        return levels

    def _random(self, width: int, height: int) -> NDArray[np.float64]:
        import cv2

        coarse = self.random.normal(0, 0.5, (height, width))
        return np.asarray(cv2.resize(coarse, self.size, interpolation=cv2.INTER_CUBIC), np.float64)


Thing = Callable[[Canvas], tuple[Layer, Layer]]
"""Draws something: its shares, and its surface."""


def mask(on: Canvas) -> tuple[Layer, Layer]:
    jaw, sides = on.at[list(_JAW)], [on.at[on.random.choice(side)] for side in (_MASK_LEFT, _MASK_RIGHT)]
    edge = jaw.mean(axis=0) + (jaw - jaw.mean(axis=0)) * on.random.uniform(0.95, 1.12)
    left, right = (0.35 * end + 0.65 * side for end, side in zip((edge[0], edge[-1]), sides, strict=True))
    top = on.about(on.at[on.random.choice(_MASK_TOP)], 0.02) + 0.02 * on.down
    outline = [left, *edge[1:-1], right, top + 0.12 * on.across, top - 0.12 * on.across]
    return on.polygon(outline), on.surface(on.random.uniform(15, 250), "plain", "pleats", "blotches")


def hand(on: Canvas) -> tuple[Layer, Layer]:
    centre, (along, aside) = on.about(on.mouth, 0.06), on.turned(50)
    along = along * on.random.choice((-1, 1))
    layer = on.ellipse(centre, on.random.uniform(0.5, 0.75) * along, on.random.uniform(0.28, 0.42) * aside)
    surface = on.surface(on.skin(), "blotches")
    for finger in range(4):
        root = centre + (finger - 1.5) * 0.17 * aside
        layer = np.maximum(layer, on.line(root, root + on.random.uniform(0.55, 1) * along, 0.16))
        surface *= 1 - 0.3 * on.line(root + 0.085 * aside, root + 0.085 * aside + 0.7 * along, 0.02)
    return layer, surface


def cup(on: Canvas) -> tuple[Layer, Layer]:
    above, below = on.mouth - on.random.uniform(0.15, 0.3) * on.down, on.mouth + on.random.uniform(0.6, 1) * on.down
    wide = on.random.uniform(0.35, 0.6) * on.across
    narrow = on.random.uniform(0.7, 0.95) * wide
    surface = on.surface(on.random.uniform(20, 250), "plain", "stripes", "checks")
    return on.polygon([above - wide, above + wide, below + narrow, below - narrow]), surface


def shape(on: Canvas) -> tuple[Layer, Layer]:
    centre, (along, aside) = on.about(on.mouth, 0.08), on.turned(40)
    along, aside = on.random.uniform(0.45, 0.9) * along, on.random.uniform(0.3, 0.6) * aside
    corners = centre + np.array([(-1, -0.8), (1, -0.8), (1, 0.8), (-1, 0.8)]) @ (along, aside)
    layer = on.ellipse(centre, along, aside) if on.random.random() < 0.5 else on.polygon(corners)
    level = on.random.uniform(10, 250)
    return layer, on.surface(level, "plain", "blotches", "grain", "stripes", "checks", "dots")


def sunglasses(on: Canvas) -> tuple[Layer, Layer]:
    layer = on.line(on.at[_EYES[0][0]], on.at[_EYES[1][0]], 0.06)
    for corners in _EYES:
        layer = np.maximum(layer, on.ellipse(on.at[list(corners)].mean(axis=0), 0.27 * on.across, 0.2 * on.down))
    return layer, on.surface(on.random.uniform(5, 60), "plain")


def hat(on: Canvas) -> tuple[Layer, Layer]:
    left, right = (on.at[_FOREHEAD] + side * on.across for side in (-2, 2))
    surface = on.surface(on.random.uniform(10, 240), "plain", "blotches", "stripes", "dots")
    return on.polygon([left, right, right - 3 * on.down, left - 3 * on.down]), surface


def beard(on: Canvas) -> tuple[Layer, Layer]:
    import cv2

    jaw, nose = on.at[list(_JAW)], on.at[_BELOW_NOSE]
    outer = jaw.mean(axis=0) + (jaw - jaw.mean(axis=0)) * 1.06
    inner = on.mouth + (jaw - on.mouth) * on.random.uniform(0.45, 0.75)
    layer = on.polygon([*outer, *inner[::-1]])
    if on.random.random() < 0.7:
        lip = on.at[[_MOUTH_RIGHT, _UPPER_LIP, _MOUTH_LEFT]]
        layer = np.maximum(layer, on.polygon([nose - 0.32 * on.across, nose + 0.32 * on.across, *lip]))
    layer = np.asarray(cv2.GaussianBlur(on.random.uniform(0.5, 0.95) * layer, (0, 0), 0.04 * on.unit), np.float32)
    level = on.random.uniform(10, 90) if on.random.random() < 0.8 else on.random.uniform(150, 220)
    return layer * (1 - on.polygon(on.at[list(_LIPS)])), on.surface(level, "grain")


def hand_at_cheek(on: Canvas) -> tuple[Layer, Layer]:
    side, (along, aside) = on.random.choice((-1, 1)), on.turned(30)
    centre = on.mouth + side * on.random.uniform(0.75, 1) * on.across + on.random.uniform(-0.1, 0.3) * on.down
    return on.ellipse(centre, 0.3 * along, 0.45 * aside), on.surface(on.skin(), "blotches")


def below_chin(on: Canvas) -> tuple[Layer, Layer]:
    centre = on.at[_CHIN] + on.random.uniform(0, 0.3) * on.down
    layer = on.ellipse(centre, on.random.uniform(0.3, 0.8) * on.across, 0.3 * on.down)
    return layer, on.surface(on.random.uniform(10, 240), "plain", "blotches", "stripes")


COVERS: Final[tuple[Thing, ...]] = (mask, mask, hand, cup, shape)
BESIDE: Final[tuple[Thing, ...]] = (sunglasses, hat, beard, hand_at_cheek, below_chin)
