"""DHMD: decoupled hierarchical multimodal distillation, the features it eats, and its checkpoints.

import dhmd
checkpoint = dhmd.load("base")
out = checkpoint.model(inputs, masks)          # inputs: {Modality: (B, T, width)}, masks: {Modality: (B, T)}
checkpoint.model.split(out.output)["emotion"]  # (B, 7) scores in the order of EMOTIONS
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Edge, Modality

if TYPE_CHECKING:
    from dhmd.checkpoint import Checkpoint, load
    from dhmd.model import DHMD, DHMDConfig, DHMDOutput

_LATE = {
    "Checkpoint": "dhmd.checkpoint",
    "load": "dhmd.checkpoint",
    "DHMD": "dhmd.model",
    "DHMDConfig": "dhmd.model",
    "DHMDOutput": "dhmd.model",
}
"""What needs torch, imported when first asked for: a command's --help should not wait for it."""

__all__ = [
    "DHMD",
    "EDGES",
    "EMOTIONS",
    "Checkpoint",
    "DHMDConfig",
    "DHMDOutput",
    "Edge",
    "FeatureSpec",
    "Modality",
    "Rows",
    "Word",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
