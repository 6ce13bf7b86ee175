"""Placement of the rows of an utterance in a window: as recorded, or as a live window would have cut them, varied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import FeatureSpec, Rows
from dhmd.features.landmarks import BLENDSHAPES
from dhmd.features.prosody import PROSODY_WIDTH
from dhmd.modality import Modality

SPEAKING: Final = np.array(
    [
        BLENDSHAPES.index(name)
        for name in ("jawOpen", "mouthFunnel", "mouthPucker", "mouthLowerDownLeft", "mouthLowerDownRight")
    ]
)
"""Blendshapes that speech moves, whatever emotion the face shows."""

_POSE: Final = slice(len(BLENDSHAPES), len(BLENDSHAPES) + 3)


def whole(rows: Rows, spec: FeatureSpec, *, still: bool) -> tuple[Rows, float]:
    """The rows as recorded, and the end of a window that holds them: a still image fills the window, words that took
    longer than the window are read faster, and of a longer clip the last part is seen.

    still: whether vision rows are variants of one still, and not pictures over time.
    """
    if spec.modality is Modality.VISION and still:
        held = Rows(_grid(spec), np.repeat(rows.values[:1], spec.steps, axis=0))
        return held, spec.window_s
    if spec.modality is Modality.TEXT:
        return _read_at_once(rows, spec)
    return rows, float(rows.times_s[-1])


def arrived(
    rows: Rows, spec: FeatureSpec, scale: NDArray[np.float32], draw: np.random.Generator, *, still: bool
) -> tuple[Rows, float]:
    """The rows as a live window might hold them, and its end: perhaps only a part has arrived, or the end is past.

    scale: (width,) standard deviations, the unit of the variations. still: see `whole`.
    """
    if spec.modality is Modality.VISION and still:
        placed, end_s = _face(rows, spec, scale, draw)
    elif spec.modality is Modality.TEXT:
        placed, end_s = _words(rows, spec, scale, draw)
    else:
        end_s = _end(rows, 0.9 * spec.absent_after_s, draw)
        placed = _varied(rows, spec, scale, end_s, draw)
    # A pause longer than the window may leave it empty.
    return (placed, end_s) if _present(placed, spec, end_s) else whole(rows, spec, still=still)


def whole_together(rows: Mapping[Modality, Rows], specs: Mapping[Modality, FeatureSpec]) -> float:
    """The end of a window for modalities on one clock: of the windows in which most of them are present the last."""
    newest = max(float(one.times_s[-1]) for one in rows.values())
    ends = [float(one.times_s[-1]) for one in rows.values()]
    ends += [min(newest, end_s + 0.9 * specs[m].absent_after_s) for m, end_s in zip(rows, ends, strict=True)]
    return max(ends, key=lambda end_s: (sum(_present(one, specs[m], end_s) for m, one in rows.items()), end_s))


def arrived_together(
    rows: Mapping[Modality, Rows],
    specs: Mapping[Modality, FeatureSpec],
    scale: Mapping[Modality, NDArray[np.float32]],
    draw: np.random.Generator,
) -> tuple[dict[Modality, Rows], float]:
    """Does as `arrived` for modalities on one clock: what each holds at one moment. At least one holds something."""
    every = Rows(np.sort(np.concatenate([one.times_s for one in rows.values()])), np.empty((0, 0), np.float32))
    end_s = _end(every, 0.45, draw)
    placed = {m: _varied(one, specs[m], scale[m], end_s, draw) for m, one in rows.items()}
    if any(_present(one, specs[m], end_s) for m, one in placed.items()):
        return placed, end_s
    return dict(rows), whole_together(rows, specs)


def _present(rows: Rows, spec: FeatureSpec, end_s: float) -> bool:
    return bool((spec.place(rows.times_s, end_s) >= 0).any())


def _face(
    variants: Rows, spec: FeatureSpec, scale: NDArray[np.float32], draw: np.random.Generator
) -> tuple[Rows, float]:
    """A still image held over the window: it drifts between its variants, turns a little, and may speak.

    variants: rows of one image: as seen, mirrored, then jittered ones.
    """
    steps = spec.steps
    values: NDArray[np.floating[Any]]
    if len(variants) == 1 or draw.random() < 0.3:
        values = np.repeat(variants.values[-1:] if len(variants) == 1 else variants.values[1:2], steps, axis=0)
    else:
        pool = np.array([0, *range(2, len(variants))])
        a, b = draw.choice(pool, 2)
        share = 1 / (1 + np.exp(-2 * _drift(steps, 1, 0.95, draw)))
        values = (1 - share) * variants.values[a] + share * variants.values[b]
    # A person's constant difference from the picture, a slow change, and the noise of the landmarks.
    width = spec.width
    noise = 0.25 * draw.standard_normal(width) + 0.15 * _drift(steps, width, 0.9, draw)
    values = values + scale * draw.uniform(0, 1.5) * (noise + 0.08 * draw.standard_normal((steps, width)))
    values[:, _POSE] += draw.normal(0, (0.15, 0.12, 0.08)) + 0.05 * _drift(steps, 3, 0.97, draw)
    if draw.random() < 0.4:
        opening = np.abs(_drift(steps, 1, 0.6, draw)) * draw.uniform(0, 1, len(SPEAKING)) * (0.25, 0.1, 0.1, 0.2, 0.2)
        values[:, SPEAKING] += opening
        values[:, _POSE.stop :] += 0.3 * scale[_POSE.stop :] * _drift(steps, width - _POSE.stop, 0.6, draw)
    values[:, : len(BLENDSHAPES)] = values[:, : len(BLENDSHAPES)].clip(0, 1)
    times = _grid(spec)
    kept = draw.random(steps) > draw.choice([0.0, 0.05, 0.3])
    if draw.random() < 0.4:
        kept &= np.arange(steps) >= steps - draw.integers(3, steps)
    kept[-1] = True
    end_s = spec.window_s + (draw.uniform(0, 0.9 * spec.absent_after_s) if draw.random() < 0.15 else 0.0)
    return Rows(times[kept], values[kept].astype(np.float32)), end_s


def _end(rows: Rows, past_s: float, draw: np.random.Generator) -> float:
    """The window ends within the clip, at least 0.8 s after its first row, or up to `past_s` after its last."""
    times = rows.times_s
    last = float(times[-1])
    earliest = min(last, float(times[0]) + 0.8)
    end_s = draw.uniform(earliest, last) if draw.random() < 0.5 else last + draw.uniform(0, past_s)
    return max(end_s, float(times[times <= end_s][-1]))


def _varied(rows: Rows, spec: FeatureSpec, scale: NDArray[np.float32], end_s: float, draw: np.random.Generator) -> Rows:
    """Rows of a recording that a window that ends at `end_s` may hold: noise, and a stretch of it missing."""
    if spec.modality is Modality.TEXT:
        return _missed(rows, scale, end_s, draw)
    if spec.modality is Modality.VISION:
        lasting, passing, most_missing = 0.25, 0.08, 0.2
    else:
        lasting, passing, most_missing = 0.15, 0.2, 1 / 3
    values = rows.values + scale * draw.uniform(0, 1) * (
        lasting * draw.standard_normal(spec.width) + passing * draw.standard_normal(rows.values.shape)
    )
    if spec.modality is Modality.VISION:
        values[:, _POSE] += draw.normal(0, (0.15, 0.12, 0.08))
        values[:, : len(BLENDSHAPES)] = values[:, : len(BLENDSHAPES)].clip(0, 1)
    else:
        values[:, -PROSODY_WIDTH] += draw.normal(0, 0.7)  # another microphone, nearer or farther
    kept = np.ones(len(rows), np.bool_)
    if len(rows) > 8 and draw.random() < 0.5:
        length = draw.integers(1, 1 + int(len(rows) * most_missing))
        start = draw.integers(0, len(rows) - length + 1)
        kept[start : start + length] = False
    kept[_newest(rows, end_s)] = True
    return Rows(rows.times_s[kept], values[kept].astype(np.float32))


def _newest(rows: Rows, end_s: float) -> NDArray[np.int64]:
    """(1,) or (0,): the last row that is there by `end_s`."""
    return np.flatnonzero(rows.times_s <= end_s)[-1:]


def _words(rows: Rows, spec: FeatureSpec, scale: NDArray[np.float32], draw: np.random.Generator) -> tuple[Rows, float]:
    """The whole text, or what of it a window at spoken speed holds; a word may have been missed."""
    if draw.random() < 0.6:
        rows, end_s = _read_at_once(rows, spec)
    else:
        last = float(rows.times_s[-1])
        first = float(rows.times_s[min(2, len(rows) - 1)])
        end_s = draw.uniform(first, last) if draw.random() < 0.4 else last + draw.uniform(0, 2.0)
    return _missed(rows, scale, end_s, draw), end_s


def _missed(rows: Rows, scale: NDArray[np.float32], end_s: float, draw: np.random.Generator) -> Rows:
    """Words of which some were not recognised."""
    kept = draw.random(len(rows)) > 0.08
    kept[_newest(rows, end_s)] = True
    values = rows.values + scale * 0.1 * draw.standard_normal(rows.values.shape)
    return Rows(rows.times_s[kept], values[kept].astype(np.float32))


def _read_at_once(rows: Rows, spec: FeatureSpec) -> tuple[Rows, float]:
    last = float(rows.times_s[-1])
    faster = min(1.0, 0.98 * spec.window_s / last) if last > 0 else 1.0
    return Rows(rows.times_s * faster, rows.values), last * faster


def _grid(spec: FeatureSpec) -> NDArray[np.float64]:
    """(steps,) the middles of the cells of a window from 0 to `window_s`."""
    return (np.arange(spec.steps) + 0.5) * spec.window_s / spec.steps


def _drift(steps: int, width: int, memory: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """(steps, width) of unit variance, each step resembling the one before by `memory`."""
    fresh = draw.standard_normal((steps, width))
    out = np.empty_like(fresh)
    out[0] = fresh[0]
    step = np.sqrt(1 - memory**2)
    for i in range(1, steps):
        out[i] = memory * out[i - 1] + step * fresh[i]
    return out
