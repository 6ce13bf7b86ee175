"""The sliding window: a ring of rows per modality, on the compute device, cut by capture time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhmd.contract import FeatureSpec, Language, Rows
from dhmd.modality import Modality
from realtime.perception.attention import WHOLE, Attention


@dataclass(frozen=True, slots=True)
class WindowCut:
    """Inputs of the model at one moment.

    start_s, end_s: stream clock. inputs: (1, steps, width) float32; masks: (1, steps) bool, both on the device.
    newest_s: capture time of the newest row not after `end_s`, absent modalities included; None if there was none.
    present: modalities with a row in the window: its contract leaves out all rows when the newest is not fresh enough.
    revision: of the window, see SlidingWindow. attention: how far perception had come.
    """

    start_s: float
    end_s: float
    inputs: Mapping[Modality, Tensor]
    masks: Mapping[Modality, Tensor]
    newest_s: Mapping[Modality, float | None]
    present: frozenset[Modality]
    revision: int = 0
    attention: Attention = WHOLE

    @property
    def late(self) -> frozenset[Modality]:
        """Modalities that are not present because nobody has looked yet."""
        return self.attention.late - self.present

    @property
    def far(self) -> frozenset[Modality]:
        """Modalities that are not present because the subject is too far away."""
        return frozenset({Modality.VISION} if self.attention.far else ()) - self.present

    @property
    def covered(self) -> frozenset[Modality]:
        """Modalities that are present, and half hidden: the face, when its mouth is covered."""
        return frozenset({Modality.VISION} if self.attention.covered else ()) & self.present

    @property
    def unread(self) -> frozenset[Modality]:
        """Modalities that are not present because what is said is not read."""
        return frozenset({Modality.TEXT} if self.attention.unread else ()) - self.present

    @property
    def language(self) -> Language | None:
        """The language that was found to be spoken."""
        return self.attention.language

    @property
    def newest_present_s(self) -> float | None:
        """Capture time of the newest row of the modalities that are present."""
        return max((t for m in self.present if (t := self.newest_s[m]) is not None), default=None)


class RowRing:
    """The newest rows of one modality. Times stay on the host, values on the device; only new rows cross over."""

    SPARE = 4

    def __init__(self, spec: FeatureSpec, device: torch.device) -> None:
        self.spec = spec
        self.capacity = self.SPARE * spec.steps
        self._times_s = np.empty(self.capacity, np.float64)
        # The last row stays zero: it stands where there is none.
        self._values = torch.zeros(self.capacity + 1, spec.width, device=device)
        self._first = 0
        self._count = 0

    def append(self, rows: Rows) -> None:
        """Add rows; they must not be older than those that are here. The oldest make room."""
        self._check(rows)
        if not len(rows):
            return
        if self._count and rows.times_s[0] < self.times_s[-1]:
            raise ValueError(
                f"{self.spec.modality}: a row of {rows.times_s[0]:.3f} s came after one of {self.times_s[-1]:.3f} s"
            )
        times_s, values = rows.times_s[-self.capacity :], rows.values[-self.capacity :]
        slots = (self._first + self._count + np.arange(len(times_s))) % self.capacity
        self._times_s[slots] = times_s
        device = self._values.device
        new = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        self._values.index_copy_(0, torch.from_numpy(slots).to(device), new)
        overflow = max(0, self._count + len(times_s) - self.capacity)
        self._first = (self._first + overflow) % self.capacity
        self._count += len(times_s) - overflow

    def replace(self, rows: Rows) -> None:
        """Put these rows in place of all others: words are revised until they are final."""
        self._check(rows)
        self._first = self._count = 0
        self.append(rows)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(N,) capture times, oldest first."""
        return self._times_s[self._slots()]

    def since(self, start_s: float) -> Rows:
        """The rows captured after `start_s`."""
        times_s = self.times_s
        slots = torch.from_numpy(self._slots()[times_s > start_s]).to(self._values.device)
        return Rows(times_s[times_s > start_s], self._values[slots].cpu().numpy())

    def newest_s(self, end_s: float) -> float | None:
        """Capture time of the newest row not after `end_s`."""
        past = self.times_s[self.times_s <= end_s]
        return float(past[-1]) if len(past) else None

    def cut(self, end_s: float, as_of_s: float | None = None) -> tuple[Tensor, Tensor, bool]:
        """Values (1, steps, width) and mask (1, steps) of the window that ends at `end_s`; whether any row is in it."""
        index = self.spec.place(self.times_s, end_s, as_of_s)
        standing = index >= 0
        slots = np.where(standing, (self._first + index) % self.capacity, self.capacity)
        device = self._values.device
        values = self._values.index_select(0, torch.from_numpy(slots).to(device))
        return values[None], torch.from_numpy(standing).to(device)[None], bool(standing.any())

    def _slots(self) -> NDArray[np.int64]:
        return (self._first + np.arange(self._count)) % self.capacity

    def _check(self, rows: Rows) -> None:
        if rows.values.shape != (len(rows.times_s), self.spec.width):
            raise ValueError(
                f"{self.spec.modality}: expected rows ({len(rows.times_s)}, {self.spec.width}), got {rows.values.shape}"
            )
        if not np.isfinite(rows.times_s).all():
            raise ValueError(f"{self.spec.modality}: a row's time is NaN or infinite")
        if np.any(np.diff(rows.times_s) < 0):
            raise ValueError(f"{self.spec.modality}: rows are not in the order of their times")
        if not np.isfinite(rows.values).all():
            raise ValueError(f"{self.spec.modality}: a row at {rows.times_s[0]:.3f} s or later holds NaN or infinity")


class SlidingWindow:
    """One ring a modality, fed by the extractors' threads and cut by the engine's.

    Its revision counts what has entered: with it, a replay puts the same rows in before the same cut.
    """

    def __init__(self, features: Mapping[Modality, FeatureSpec], device: torch.device) -> None:
        self._rings = {m: RowRing(spec, device) for m, spec in features.items()}
        self._lock = threading.Lock()
        self._revision = 0
        self.window_s = max(spec.window_s for spec in features.values())

    def append(self, modality: Modality, rows: Rows) -> int:
        """Returns the revision from now on; without rows it is the one before."""
        with self._lock:
            self._rings[modality].append(rows)
            self._revision += len(rows) > 0
            return self._revision

    def replace(self, modality: Modality, rows: Rows) -> int:
        """Returns the revision from now on."""
        with self._lock:
            self._rings[modality].replace(rows)
            self._revision += 1
            return self._revision

    def since(self, modality: Modality, start_s: float) -> Rows:
        """The rows of a modality captured after `start_s` that are still here."""
        with self._lock:
            return self._rings[modality].since(start_s)

    def width(self, modality: Modality) -> int:
        """Width of the rows of a modality."""
        return self._rings[modality].spec.width

    @property
    def revision(self) -> int:
        with self._lock:
            return self._revision

    def cut(self, end_s: float, attention: Attention = WHOLE) -> WindowCut:
        """The window that ends at `end_s`, from what has arrived by now."""
        with self._lock:
            cuts = {m: ring.cut(end_s, attention.as_of_s.get(m)) for m, ring in self._rings.items()}
            newest_s = {m: ring.newest_s(end_s) for m, ring in self._rings.items()}
            revision = self._revision
        return WindowCut(
            start_s=end_s - self.window_s,
            end_s=end_s,
            inputs={m: values for m, (values, _, _) in cuts.items()},
            masks={m: mask for m, (_, mask, _) in cuts.items()},
            newest_s=newest_s,
            present=frozenset(m for m, (_, _, present) in cuts.items() if present),
            revision=revision,
            attention=attention,
        )
