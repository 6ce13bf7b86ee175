"""The types that pass between extractors, window and model: words, timed rows, and the contract of a modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import DHMDError
from dhmd.modality import Modality
from dhmd.untrusted import number, texts, whole

ENGLISH: Final = "en"


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word. Times are seconds on the stream clock; probability is in [0, 1].

    language: its code in ISO 639-1, or 639-3 where there is none. person: who said it, where several are followed and
    it is known. overlapped: others spoke at once, and this is of the loudest.
    """

    text: str
    start_s: float
    end_s: float
    probability: float = 1.0
    language: str = ENGLISH
    person: int | None = None
    overlapped: bool = False


@dataclass(frozen=True, slots=True)
class Language:
    """A language that was found to be spoken, by its code, and how probable it is, 1 where it was given."""

    code: str
    probability: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Feature rows of one modality, oldest first.

    times_s: (N,) float64, capture time of each row (the end of the signal it describes), seconds on the stream clock.
    values: (N, width) float32.
    """

    times_s: NDArray[np.float64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times_s)

    def halved(self) -> Rows:
        """Rounds to the half precision of recordings and messages, so that who reads them sees what was seen live."""
        return Rows(self.times_s, self.values.astype(np.float16).astype(np.float32))

    @classmethod
    def empty(cls, width: int) -> Rows:
        return cls(np.empty(0, np.float64), np.empty((0, width), np.float32))

    @classmethod
    def concatenate(cls, parts: list[Rows], width: int) -> Rows:
        if not parts:
            return cls.empty(width)
        return cls(np.concatenate([p.times_s for p in parts]), np.concatenate([p.values for p in parts]))


class ContractMismatch(DHMDError):
    """A checkpoint expects other features than the extractors at hand produce."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Describes what a model eats from one modality; stored in its checkpoint and checked at start.

    A row that is missing was not perceived (no face, silence, no words): absence is never a zero row.

    extractor, version: name of the extractor and of the form of its rows; `version` changes whenever rows change.
    weights: asset name -> sha256 of every file that shapes the rows.
    width: numbers in a row.
    rate_hz: rows are placed on a grid of this rate; None for rows that come when they come (tokens of words).
    steps: rows in a window.
    window_s: length of the window in seconds.
    absent_after_s: the modality counts as absent when its newest row is older than this.
    """

    modality: Modality
    extractor: str
    version: str
    width: int
    rate_hz: float | None
    steps: int
    window_s: float
    absent_after_s: float
    weights: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"weights": dict(self.weights)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureSpec:
        """Read a spec that others wrote. Raises ValueError, TypeError or KeyError."""
        return cls(
            **{
                **data,
                "modality": Modality(data["modality"]),
                **texts({name: data[name] for name in ("extractor", "version")}),
                "width": whole(data["width"], 1, 2**16),
                "rate_hz": None if data["rate_hz"] is None else number(data["rate_hz"], 0.01, 1000.0),
                "steps": whole(data["steps"], 1, 10_000),
                **{name: number(data[name], 0.0, 600.0) for name in ("window_s", "absent_after_s")},
                "weights": texts(data.get("weights", {})),
            }
        )

    def require(self, produced: FeatureSpec) -> None:
        """Raise ContractMismatch unless `produced` (what an extractor makes) is what this spec asks for."""
        if sides := self.differences(produced, "checkpoint"):
            raise ContractMismatch(f"{self.modality}: the checkpoint was trained on other features ({sides})")

    def differences(self, produced: FeatureSpec, own: str) -> str:
        """Says how `produced` (what an extractor makes) differs from this spec, that of `own`; empty if it does not."""
        wanted, given = self.to_dict(), produced.to_dict()
        differing = [name for name in wanted if wanted[name] != given[name]]
        return "; ".join(f"{name}: {own} {wanted[name]!r}, extractor {given[name]!r}" for name in differing)

    def place(self, times_s: NDArray[np.float64], end_s: float, as_of_s: float | None = None) -> NDArray[np.int64]:
        """Finds which row stands at each step of the window that ends at `end_s`.

        times_s: (N,) ascending capture times. as_of_s: moment at which presence is judged where perception has not
        come as far as `end_s`. Returns (steps,) int64: index into the rows, -1 where there is none; all -1 when the
        modality is absent. Rows from after `end_s` or from before the window are left out; on a grid the newest row of
        a cell wins; rows without a grid stand right-aligned.
        """
        index = np.full(self.steps, -1, np.int64)
        inside = np.flatnonzero((times_s <= end_s) & (times_s > end_s - self.window_s))
        judged_s = end_s if as_of_s is None else as_of_s
        if len(inside) == 0 or judged_s - times_s[inside[-1]] > self.absent_after_s:
            return index
        if self.rate_hz is None:
            newest = inside[-self.steps :]
            index[self.steps - len(newest) :] = newest
        else:
            # The small term puts a row on the edge of two cells always in the older one, whatever the rounding.
            cell = self.steps - 1 - np.floor((end_s - times_s[inside]) * self.rate_hz + 1e-6).astype(np.int64)
            valid = (cell >= 0) & (cell < self.steps)
            index[cell[valid]] = inside[valid]
        return index

    def window(self, rows: Rows, end_s: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (steps, width), zero where nothing stands, and mask (steps,), true where a row stands."""
        index = self.place(rows.times_s, end_s)
        mask = index >= 0
        values = np.zeros((self.steps, self.width), np.float32)
        values[mask] = rows.values[index[mask]]
        return values, mask
