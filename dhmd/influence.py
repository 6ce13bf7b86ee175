"""How much of an answer hangs on one modality."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def influence(whole: ArrayLike, without: ArrayLike) -> NDArray[np.float64]:
    """Half of the lead that the likeliest emotion loses over the best of the others; 0 where it loses none.

    A modality without which another emotion is the likeliest costs the whole lead and more, and one without which the
    same stays likeliest costs less: the largest influence belongs to one that changes the answer, if there is one.
    whole, without: probabilities (..., emotions) with the modality and without it, of the same window. Returns (...),
    in [0, 1].
    """
    with_it, without_it = np.asarray(whole, np.float64), np.asarray(without, np.float64)
    named = np.broadcast_to(with_it, without_it.shape).argmax(axis=-1)[..., None]
    lost = _lead(with_it, named) - _lead(without_it, named)
    return np.clip(lost / 2, 0.0, 1.0)


def _lead(probabilities: NDArray[np.float64], named: NDArray[np.intp]) -> NDArray[np.float64]:
    """Returns how far the named ones are ahead of the best of the others (behind: negative)."""
    spread = np.broadcast_to(probabilities, (*named.shape[:-1], probabilities.shape[-1]))
    others = spread.copy()
    np.put_along_axis(others, named, -np.inf, axis=-1)
    leads: NDArray[np.float64] = np.take_along_axis(spread, named, axis=-1)[..., 0] - others.max(axis=-1)
    return leads
