"""A portrait that moves: a photograph on the mesh of its own face, the mouth and the eyes in a layer behind it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.demo.expression import (
    BROWS_LOWER,
    BROWS_UPPER,
    CONTROLS,
    LOWER_LIDS,
    LOWER_LIP_INNER,
    LOWER_LIP_OUTER,
    UPPER_LIDS,
    UPPER_LIP_INNER,
    UPPER_LIP_OUTER,
    Array,
    Expression,
    displacements,
)

Image = NDArray[np.uint8]

MOUTH_COLOUR = (34.0, 26.0, 52.0)
"""BGR of the inside of the mouth, behind the teeth."""

MOUTH = (*UPPER_LIP_INNER, *LOWER_LIP_INNER[-2:0:-1])
HOLES = (MOUTH, *((*upper, *lower[-2:0:-1]) for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True)))
"""Contours of the openings of the mesh."""

FOLDS = ((129, 203, 206, 216, 212), (358, 423, 426, 436, 432))
"""Landmarks from each wing of the nose past the corner of the mouth, where a smile folds the cheek."""

FROWN_LINES = (((107, 9), (55, 8)), ((336, 9), (285, 8)))
"""Pairs of landmarks between which the upper and the lower end of each line between the brows lie."""

FROWN_COLOUR = (20.0, 30.0, 45.0)
"""BGR of the lines of a frown, of its brows, and of the shadow under them."""

SHIFT = 4
"""Fractional bits of the polygon corners given to OpenCV."""


@dataclass(frozen=True, slots=True)
class HeadPose:
    """Angles in radians: `yaw` turns to the viewer's right, `pitch` nods down, `roll` leans clockwise."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def towards(self, other: HeadPose, share: float) -> HeadPose:
        """The pose `share` (0 to 1) of the way from this one to `other`."""
        return HeadPose(
            self.yaw + share * (other.yaw - self.yaw),
            self.pitch + share * (other.pitch - self.pitch),
            self.roll + share * (other.roll - self.roll),
        )


class Puppet:
    """Renders one portrait with any expression and head pose.

    portrait: (H, W, 3) uint8, BGR. landmarks: (478, 3), pixels. triangles: (T, 3) landmark indices with holes at the
    eyes and the mouth. oval: the landmarks around the face in order.
    """

    def __init__(self, portrait: Image, landmarks: Array, triangles: NDArray[np.int32], oval: tuple[int, ...]) -> None:
        self._portrait = portrait
        self._face = landmarks[: triangles.max() + 1]
        right, left = landmarks[33, :2], landmarks[263, :2]
        self._origin = (right + left) / 2
        self._unit = float(np.linalg.norm(left - right))
        along = (left - right) / self._unit
        self._axes = np.array([along, [-along[1], along[0]]])  # rows: along the eyes, down the face

        rings, ring_triangles, grip = self._surroundings(oval)
        self._points = np.concatenate([self._face, rings])
        self._grip = np.concatenate([np.ones(len(self._face)), grip])
        self._triangles = np.concatenate([triangles, ring_triangles])
        self._rest = (self._face[:, :2] - self._origin) @ self._axes.T / self._unit
        self._spread = self._harmonic_spread(len(oval))
        self._smiling = self._layer_in_front().astype(np.float32)
        self._resting = self._without_folds(self._smiling)
        self._frown = self._lines_of_a_frown()
        self._behind = self._layer_behind()

    def _surroundings(self, oval: tuple[int, ...]) -> tuple[Array, NDArray[np.int32], Array]:
        """Rings around the face for hair, neck and background: points, triangles, and how far each follows the head."""
        edge = self._face[list(oval)]
        centre = edge.mean(axis=0)
        down = np.clip((edge[:, 1] - centre[1]) / np.ptp(edge[:, 1]) * 2, 0, 1)
        rings, grips = [], []
        for reach, firm, loose in ((1.35, 1.0, 0.45), (1.75, 1.0, 0.0), (2.25, 0.75, 0.0), (3.4, 0.0, 0.0)):
            ring = centre + reach * (edge - centre)
            ring[:, 2] = edge[:, 2].mean()
            rings.append(ring)
            grips.append(firm + (loose - firm) * down)
        n, base = len(oval), len(self._face)
        indices = [list(oval), *([base + n * k + i for i in range(n)] for k in range(len(rings)))]
        triangles = []
        for inside, outside in pairwise(indices):
            for i in range(n):
                j = (i + 1) % n
                triangles += [(inside[i], inside[j], outside[i]), (inside[j], outside[j], outside[i])]
        return np.concatenate(rings), np.array(triangles, dtype=np.int32), np.concatenate(grips)

    def _harmonic_spread(self, ring_size: int) -> Array:
        """(P, C): how far each of the P points follows each of the C controls; the second ring and beyond stay."""
        count = len(self._points)
        weights = np.zeros((count, count))
        for a, b in ((0, 1), (1, 2), (2, 0)):
            i, j = self._triangles[:, a], self._triangles[:, b]
            close = 1 / np.linalg.norm(self._points[i, :2] - self._points[j, :2], axis=1)
            weights[i, j] = weights[j, i] = close
        laplacian = np.diag(weights.sum(axis=1)) - weights
        held = np.zeros(count, dtype=bool)
        held[list(CONTROLS)] = True
        held[len(self._face) + ring_size :] = True
        spread = np.zeros((count, len(CONTROLS)))
        spread[list(CONTROLS), range(len(CONTROLS))] = 1
        spread[~held] = np.linalg.solve(laplacian[np.ix_(~held, ~held)], -laplacian[np.ix_(~held, held)] @ spread[held])
        return spread

    def _layer_in_front(self) -> Image:
        """The portrait with teeth and dark corners of the mouth overgrown by lip, so that lips show nothing else."""
        import cv2

        inside = np.zeros(self._portrait.shape[:2], dtype=np.uint8)
        cv2.fillPoly(inside, [self._face[list(MOUTH), :2].round().astype(np.int32)], 255)
        grown = cv2.dilate(inside, np.ones((7, 7), dtype=np.uint8))
        for corner in (MOUTH[0], UPPER_LIP_INNER[-1]):
            cv2.circle(grown, self._face[corner, :2].round().astype(int).tolist(), round(0.045 * self._unit), 255, -1)
        return cv2.inpaint(self._portrait, grown, 5, cv2.INPAINT_TELEA).astype(np.uint8, copy=False)

    def _without_folds(self, front: NDArray[np.float32]) -> NDArray[np.float32]:
        """The portrait without the folds of its smile, which would stand there whatever the mouth does: the skin around
        them takes their place."""
        import cv2

        def blurred(image: NDArray[np.floating[Any]], share: float) -> NDArray[np.float32]:
            return np.asarray(cv2.GaussianBlur(image, (0, 0), share * self._unit), np.float32)

        masks: list[NDArray[np.uint8]] = [np.zeros(front.shape[:2], dtype=np.uint8) for _ in range(3)]
        folds, lips, face = masks
        for fold in FOLDS:
            line = self._face[list(fold), :2].round().astype(np.int32)
            cv2.polylines(folds, [line], False, 255, round(0.3 * self._unit), cv2.LINE_AA)
        contour = [*UPPER_LIP_OUTER, *LOWER_LIP_OUTER[-2:0:-1]]
        cv2.fillPoly(lips, [self._face[contour, :2].round().astype(np.int32)], 255)
        cv2.fillConvexPoly(face, cv2.convexHull(self._face[:, :2].round().astype(np.int32)), 255)
        lips = np.asarray(cv2.dilate(lips, np.ones((5, 5), dtype=np.uint8)), np.uint8)
        face = np.asarray(cv2.erode(face, np.ones((25, 25), dtype=np.uint8)), np.uint8)
        folds[(face == 0) | (lips > 0)] = 0
        skin = ((face > 0) & (folds == 0) & (lips == 0)).astype(np.float32)
        smooth = blurred(front * skin[..., None], 0.15) / (blurred(skin, 0.15)[..., None] + 1e-4)
        grain = blurred(np.random.default_rng(0).standard_normal(skin.shape).astype(np.float32), 0.006)
        smooth += 2 * (grain / grain.std())[..., None]
        share = blurred(folds.astype(np.float32) / 255, 0.05) * np.where(mouth, 0.3, 1)
        return np.asarray(front + share[..., None] * (smooth - front), np.float32)

    def _lines_of_a_frown(self) -> NDArray[np.float32]:
        """(H, W, 1), how dark it grows between the brows, in them and under them as they are knitted."""
        import cv2

        dark = np.zeros(self._portrait.shape[:2], dtype=np.float32)

        def shade(strength: float, softness: float, part: NDArray[np.uint8]) -> None:
            soft = cv2.GaussianBlur(part, (0, 0), softness * self._unit).astype(np.float32) / 255
            np.maximum(dark, strength * soft, out=dark)

        for ends in FROWN_LINES:
            line = np.zeros(dark.shape, dtype=np.uint8)
            upper, lower = (0.4 * self._face[a, :2] + 0.6 * self._face[b, :2] for a, b in ends)
            width = round(0.018 * self._unit)
            cv2.line(
                line, upper.round().astype(int).tolist(), lower.round().astype(int).tolist(), 255, width, cv2.LINE_AA
            )
            shade(0.9, 0.012, line)
        for above, below, lids in zip(BROWS_UPPER, BROWS_LOWER, UPPER_LIDS, strict=True):
            for strength, softness, contour in (
                (0.5, 0.012, [*above, *below[::-1]]),
                (0.5, 0.03, [*below[1:], lids[-1], *lids[6:2:-1]]),
            ):
                part = np.zeros(dark.shape, dtype=np.uint8)
                cv2.fillPoly(part, [self._face[contour, :2].round().astype(np.int32)], 255)
                shade(strength, softness, part)
        return dark[..., None]

    def _front(self, expression: Expression) -> Image:
        """The portrait with as much of the folds of a smile and of the lines of a frown as the expression has."""
        smile = float(np.clip(expression.smile, 0, 1))
        face = smile * self._smiling + (1 - smile) * self._resting
        frowned = face + expression.furrow * self._frown * (np.array(FROWN_COLOUR, np.float32) - face)
        return np.asarray(frowned, np.uint8)

    def _layer_behind(self) -> Image:
        """The portrait with everything inside the lips that is not teeth replaced by the dark of a mouth."""
        import cv2

        lips = self._face[list(MOUTH), :2]
        teeth = np.zeros(self._portrait.shape[:2], dtype=np.uint8)
        cv2.fillPoly(teeth, [lips.round().astype(np.int32)], 255)
        inner = cv2.erode(teeth, np.ones((5, 5), dtype=np.uint8))
        share = cv2.GaussianBlur(inner, (0, 0), 2.0)[..., None] / 255.0
        mouth = np.zeros_like(teeth)
        centre = lips.mean(axis=0)
        cv2.fillPoly(mouth, [(centre + (lips - centre) * (1.3, 6.0)).round().astype(np.int32)], 255)
        inside = mouth[..., None] > 0
        dark = share * self._portrait + (1 - share) * np.array(MOUTH_COLOUR)
        return np.where(inside, dark, self._portrait).astype(np.uint8)

    def _turned(self, points: Array, pose: HeadPose) -> Array:
        """(P, 3) points turned about the neck -> (P, 2), pixels."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (pose.yaw, pose.pitch, pose.roll) for f in (np.cos, np.sin))
        turn = (
            np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
            @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
            @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        )
        neck = np.array([self._origin[0], self._face[152, 1], self._face[:, 2].max()])
        turned: Array = ((points - neck) @ turn.T + neck)[:, :2]
        return turned

    def render(self, expression: Expression, pose: HeadPose) -> Image:
        """The portrait, (H, W, 3) uint8, BGR, with this expression and pose."""
        import cv2

        shift = displacements(self._rest, expression)[list(CONTROLS)] @ self._axes * self._unit
        shaped = self._points.copy()
        shaped[:, :2] += self._spread @ shift
        turned = self._turned(self._points, pose)
        grip = self._grip[:, None]
        moved = shaped[:, :2] + grip * (self._turned(shaped, pose) - shaped[:, :2])

        height, width = self._portrait.shape[:2]
        labels = np.full((height, width), len(self._triangles) + len(HOLES), dtype=np.int32)
        backward = np.empty((len(self._triangles) + len(HOLES) + 1, 2, 3))
        backward[-1] = np.eye(2, 3)
        for offset, hole in enumerate(HOLES):
            label = len(self._triangles) + offset
            contour = list(hole)
            cv2.fillPoly(labels, [_fixed_point(moved[contour])], label, shift=SHIFT)
            source = self._points[contour, :2].copy()
            behind = turned[contour]
            if hole is not MOUTH:
                behind = behind.mean(axis=0) + (behind - behind.mean(axis=0)) * (1, 1 + 0.3 * expression.eyes_wide)
            source[:, 1] += height  # the layer behind lies below the portrait in the texture
            backward[label] = np.linalg.lstsq(_homogeneous(behind), source, rcond=None)[0].T
        corners = moved[self._triangles]
        backward[: len(self._triangles)] = np.linalg.solve(
            _homogeneous(corners), self._points[self._triangles, :2]
        ).transpose(0, 2, 1)
        for label, corner in enumerate(_fixed_point(corners)):
            cv2.fillConvexPoly(labels, corner, label, shift=SHIFT)

        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        each = backward.astype(np.float32)[labels]  # (H, W, 2, 3)
        map_x = each[..., 0, 0] * x + each[..., 0, 1] * y + each[..., 0, 2]
        map_y = each[..., 1, 0] * x + each[..., 1, 1] * y + each[..., 1, 2]
        texture = np.concatenate([self._front(expression), self._behind])
        frame = cv2.remap(texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return self._with_seam(frame.astype(np.uint8, copy=False), moved)

    def _with_seam(self, frame: Image, moved: Array) -> Image:
        """The shadow between closed lips; it fades as they part."""
        import cv2

        upper, lower = moved[list(UPPER_LIP_INNER)], moved[list(LOWER_LIP_INNER)]
        parted = float(np.linalg.norm(lower - upper, axis=1).max()) / self._unit
        strength = 0.5 * max(0.0, 1 - parted / 0.05)
        if strength == 0:
            return frame
        seam = np.zeros(frame.shape[:2], dtype=np.uint8)
        cv2.polylines(seam, [_fixed_point((upper + lower) / 2)], False, 255, 4, cv2.LINE_AA, SHIFT)
        shade = 1 - strength * cv2.GaussianBlur(seam, (0, 0), 1.5)[..., None] / 255.0
        return (frame * shade).astype(np.uint8)


def _homogeneous(points: Array) -> Array:
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)


def _fixed_point(points: Array) -> NDArray[np.int32]:
    return (points * (1 << SHIFT)).round().astype(np.int32)
