"""DHMD: decoupled hierarchical multimodal distillation, the features it eats, and its checkpoints.

import dhmd
checkpoint = dhmd.load("base")
out = checkpoint.model(inputs, masks)          # inputs: {Modality: (B, T, width)}, masks: {Modality: (B, T)}
checkpoint.model.split(out.output)["emotion"]  # (B, 7) scores in the order of EMOTIONS
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Edge, Modality

if TYPE_CHECKING:
    from dhmd.checkpoint import Checkpoint, load
    from dhmd.contract import FeatureSpec, Rows, Word
    from dhmd.model import DHMD, DHMDConfig, DHMDOutput

# Nothing phones home. ONNX Runtime from 1.29 on keeps a device's id on disk and sends usage to its maker unless this is
# set before it loads; the others ask alike. They stand here because everything that loads them imports dhmd first.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

_LATE = {
    "Checkpoint": "dhmd.checkpoint",
    "load": "dhmd.checkpoint",
    "FeatureSpec": "dhmd.contract",
    "Rows": "dhmd.contract",
    "Word": "dhmd.contract",
    "DHMD": "dhmd.model",
    "DHMDConfig": "dhmd.model",
    "DHMDOutput": "dhmd.model",
}
"""What needs numpy or torch, imported when first asked for: a command's --help should not wait for them, and a
command may set their numbers of threads before they load."""

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
