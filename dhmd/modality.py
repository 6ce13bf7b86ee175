"""The three modalities, in the paper's order (language, vision, audio), and the edges between them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Modality(StrEnum):
    """One of the three channels a person is perceived through."""

    TEXT = "text"
    VISION = "vision"
    AUDIO = "audio"


class Edge(NamedTuple):
    """A directed edge of a distillation graph: `source` teaches `target`."""

    target: Modality
    source: Modality

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"


EDGES: tuple[Edge, ...] = tuple(
    Edge(target, source) for target in Modality for source in Modality if source is not target
)
"""The six edges: targets in modality order, and for each target its sources in modality order."""
