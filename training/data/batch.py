"""Samples side by side, as the network takes them, with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dhmd.modality import Modality
from dhmd.model import Head


@dataclass(frozen=True, slots=True)
class Labels:
    """Holds what is known of a batch.

    values: head name -> (B,) class index (int64, -1 unknown) or (B,) real number (float, NaN unknown).
    weights: head name -> (B,) weight of each sample in that head's loss; 1 where a head is not named.
    """

    values: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def known(self, head: Head) -> Tensor:
        """(B,) bool."""
        value = self.values[head.name]
        return value >= 0 if head.kind == "classification" else ~value.isnan()


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as tensors: (B, steps, width) and (B, steps) by modality.

    said: (R, O) what the network said of the last R samples before this run; the labels are of the others alone.
    """

    inputs: Mapping[Modality, Tensor]
    masks: Mapping[Modality, Tensor]
    labels: Labels
    said: Tensor | None = None
