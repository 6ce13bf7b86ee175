"""What each modality says alone, and how far it moves the estimate: measured, by leaving the others or it out."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from dhmd.influence import influence
from dhmd.modality import Modality
from realtime.perception.window import WindowCut
from realtime.recognition.engine import Inference, Share

KEPT: Final = 12
"""Estimates for which a share counts without being measured anew: two rounds."""


class Infers(Protocol):
    def infer(self, cut: WindowCut, /) -> Inference | None: ...


class InfersMany(Protocol):
    def infer_many(self, cuts: Sequence[WindowCut], /) -> list[Inference | None]: ...


class Attribution:
    """Measures the shares of the modalities in the inferences of one stream, in one thread.

    Each measurement infers one window more, of a part of the modalities; with three of them each share is measured anew
    at every sixth, and a newcomer's first.
    """

    def __init__(self) -> None:
        self._turns: deque[frozenset[Modality]] = deque()
        self._alone: dict[Modality, tuple[float, ...]] = {}
        self._influence: dict[Modality, float] = {}
        self._unmeasured = 0
        """Estimates since anything was measured."""

    def known(self, cut: WindowCut, inference: Inference | None) -> Inference | None:
        """Returns the inference of this window with the shares that were measured before it."""
        present = cut.present
        self._unmeasured += 1
        for known in (self._alone, self._influence):
            for gone in known.keys() - (present if self._unmeasured <= KEPT else frozenset()):
                del known[gone]
        if inference is None:
            return None
        if len(present) == 1:
            return replace(inference, shares={m: Share(inference.emotions, 1.0) for m in present})
        return replace(inference, shares={m: Share(self._alone.get(m), self._influence.get(m)) for m in present})

    def measure(self, engine: Infers, cut: WindowCut, inference: Inference | None) -> None:
        """Measure on this window what is measured next; it can wait until the estimate is on its way."""
        if inference is None or len(cut.present) == 1:
            return
        part = self.next_part(cut.present)
        if (found := engine.infer(replace(cut, present=part))) is not None:
            self.learn(cut.present, inference, part, found)

    def next_part(self, present: frozenset[Modality]) -> frozenset[Modality]:
        """Return the part of a window, with two modalities or more, that is to be inferred next."""
        if set(self._turns) != set(parts_of(present)):
            self._turns = deque(sorted(parts_of(present), key=self._is_known))
        part = self._turns.popleft()
        self._turns.append(part)
        return part

    def learn(
        self, present: frozenset[Modality], inference: Inference, part: frozenset[Modality], found: Inference
    ) -> None:
        """Take in what was found of a part of the window."""
        self._unmeasured = 0
        if len(part) == 1:
            self._alone[next(iter(part))] = found.emotions
        if len(left_out := present - part) == 1:
            self._influence[next(iter(left_out))] = float(influence(inference.emotions, found.emotions))

    def _is_known(self, part: frozenset[Modality]) -> bool:
        """Returns whether nothing new is learned from a part; those that tell of a newcomer are inferred first."""
        if len(part) == 1:
            return next(iter(part)) in self._alone
        return not any(m not in part for m in Modality if m not in self._influence)


def measure(engine: InfersMany, estimated: Sequence[tuple[Attribution, WindowCut, Inference | None]]) -> None:
    """Measure on several windows, in one batch, as Attribution.measure does on one."""
    asked = [
        (attribution, cut, inference, attribution.next_part(cut.present))
        for attribution, cut, inference in estimated
        if inference is not None and len(cut.present) > 1
    ]
    found = engine.infer_many([replace(cut, present=part) for _, cut, _, part in asked])
    for (attribution, cut, inference, part), of_part in zip(asked, found, strict=True):
        if of_part is not None:
            attribution.learn(cut.present, inference, part, of_part)


def parts_of(present: frozenset[Modality]) -> list[frozenset[Modality]]:
    """Returns each modality alone and each left out, without doubles."""
    single = [frozenset({m}) for m in Modality if m in present]
    return [*single, *(present - one for one in single if len(present) > 2)]
