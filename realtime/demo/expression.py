"""Facial expressions as displacements of landmarks, starting from a portrait that smiles with open lips.

Coordinates are those of the face itself: the middle between the eyes is the origin, x runs along the line through the
outer corners of the eyes, y runs down the face, and the unit is the distance between these corners.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Landmarks of the face mesh, each contour from one corner to the other; entry i of an upper contour lies opposite to
# entry i of the lower.
UPPER_LIP_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
UPPER_LIP_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
LOWER_LIP_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (263, 249, 390, 373, 374, 380, 381, 382, 362))
BROWS_UPPER = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
BROWS_LOWER = ((46, 53, 52, 65, 55), (276, 283, 282, 295, 285))
JAW = (172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397)
CHEEKS = (50, 205, 280, 425)
NOSE = (1, 2, 4, 5, 6, 64, 98, 168, 195, 197, 294, 327)

CONTROLS: tuple[int, ...] = tuple(
    sorted(
        {
            *UPPER_LIP_OUTER, *UPPER_LIP_INNER, *LOWER_LIP_INNER, *LOWER_LIP_OUTER, *JAW, *CHEEKS, *NOSE,
            *(index for contour in (*UPPER_LIDS, *LOWER_LIDS, *BROWS_UPPER, *BROWS_LOWER) for index in contour),
        }
    )
)  # fmt: skip
"""Landmarks whose displacement an expression decides; the rest of the mesh follows them."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Expression of a face: all zero is a face at rest with closed lips. `smile` 1 is the portrait as it was taken.

    `round` draws the corners of the mouth together; `furrow` is what `brow_down` does to the skin between the brows.
    """

    smile: float = 0.0
    corners_down: float = 0.0
    jaw_open: float = 0.0
    press: float = 0.0
    round: float = 0.0
    brow_inner_up: float = 0.0
    brow_outer_up: float = 0.0
    brow_down: float = 0.0
    furrow: float = 0.0
    eyes_wide: float = 0.0
    squint: float = 0.0
    blink: float = 0.0

    def towards(self, other: Expression, share: float) -> Expression:
        """The expression `share` (0 to 1) of the way from this one to `other`."""
        names = [field.name for field in fields(self)]
        return Expression(**{n: (1 - share) * getattr(self, n) + share * getattr(other, n) for n in names})


def displacements(rest: Array, expression: Expression) -> Array:
    """rest: (N, 2) landmarks of the portrait in face coordinates -> (N, 2) displacements, zero outside CONTROLS."""
    moved = rest.copy()
    _mouth(rest, moved, expression)
    for side in (0, 1):
        _brow(moved, side, expression)
        _eye(rest, moved, side, expression)
    return moved - rest


def _mouth(rest: Array, moved: Array, e: Expression) -> None:
    outer_up, inner_up = rest[list(UPPER_LIP_OUTER)], rest[list(UPPER_LIP_INNER)]
    inner_low, outer_low = rest[list(LOWER_LIP_INNER)], rest[list(LOWER_LIP_OUTER)]
    centre, half_width = inner_up[5, 0], (inner_up[-1, 0] - inner_up[0, 0]) / 2
    away = (inner_up[:, 0] - centre) / half_width  # -1 at one corner, 1 at the other

    # Lips at rest: narrower than the smile, meeting between the two inner contours, fuller than when stretched.
    line = inner_up[5, 1] + 0.55 * (inner_low[5, 1] - inner_up[5, 1]) + 0.015 * away**2
    line = line + e.corners_down * (0.12 * away**2 - 0.035) - e.press * 0.01
    fullness = 1.15 - 0.45 * e.press
    closed_up, closed_low = inner_up.copy(), inner_low.copy()
    closed_up[:, 1] = closed_low[:, 1] = line
    closed_outer_up, closed_outer_low = outer_up.copy(), outer_low.copy()
    closed_outer_up[:, 1] = line - fullness * (inner_up[:, 1] - outer_up[:, 1])
    closed_outer_low[:, 1] = line + fullness * (outer_low[:, 1] - inner_low[:, 1])
    narrow = 0.80 + 0.21 * e.corners_down

    gap = 0.30 * e.jaw_open * np.sqrt(np.clip(1 - away**2, 0, 1))
    narrow_open = 1 - 0.10 * e.jaw_open - 0.30 * e.round
    for contour, start, closed, share in (
        (UPPER_LIP_OUTER, outer_up, closed_outer_up, -0.12 - 0.15 * e.round),
        (UPPER_LIP_INNER, inner_up, closed_up, -0.15 - 0.15 * e.round),
        (LOWER_LIP_INNER, inner_low, closed_low, 0.85),
        (LOWER_LIP_OUTER, outer_low, closed_outer_low, 0.85),
    ):
        closed[:, 0] = centre + narrow * (closed[:, 0] - centre)
        lips = closed + e.smile * (start - closed)
        lips[:, 0] = centre + narrow_open * (lips[:, 0] - centre)
        lips[:, 1] += share * gap
        moved[list(contour)] = lips

    jaw = list(JAW)
    middle = np.cos(np.linspace(-np.pi / 2, np.pi / 2, len(jaw)))
    moved[jaw, 1] += 0.26 * e.jaw_open * middle
    cheeks = list(CHEEKS)
    moved[cheeks, 1] += 0.035 * (1 - e.smile)


def _brow(moved: Array, side: int, e: Expression) -> None:
    inwards = 1.0 if side == 0 else -1.0
    inner = np.array([0.0, 0.1, 0.35, 0.75, 1.0])  # contours run from the temple to the nose
    outer = 1 - inner
    for contour in (BROWS_UPPER[side], BROWS_LOWER[side]):
        brow = list(contour)
        up = e.brow_inner_up * (0.11 * inner - 0.02 * outer) + e.brow_outer_up * (0.11 * outer + 0.05 * inner)
        down = e.brow_down * 0.11 * np.array([0.4, 0.7, 1.0, 1.0, 1.0])
        moved[brow, 1] += down - up
        moved[brow, 0] += inwards * (0.06 * e.brow_down + 0.02 * e.brow_inner_up) * inner


def _eye(rest: Array, moved: Array, side: int, e: Expression) -> None:
    upper, lower = list(UPPER_LIDS[side]), list(LOWER_LIDS[side])
    opening = rest[lower, 1] - rest[upper, 1]
    moved[upper, 1] += opening * (-0.30 * e.eyes_wide + 0.22 * e.squint)
    moved[lower, 1] += opening * (0.10 * e.eyes_wide - 0.18 * e.squint)
    meeting = rest[upper, 1] + 0.85 * opening
    moved[upper, 1] += e.blink * (meeting - moved[upper, 1])
    moved[lower, 1] += e.blink * (meeting - moved[lower, 1])
