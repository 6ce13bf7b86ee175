"""Record that every run keeps of itself, so that its numbers can be traced and made again."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from training.config import FitConfig, SequenceConfig
from training.learning.device import fabric
from training.learning.loop import Trained


def run_record(config: FitConfig | SequenceConfig, data: Mapping[str, Any], trained: Trained) -> dict[str, Any]:
    """JSON of a run, to which its measures are added.

    data: sha256 and sizes of what was read. `seconds` is the wall time of training with
    its validation, parts before a cut included.
    """
    device = fabric().device
    return {
        "name": config.name,
        "seed": config.seed,
        "epochs": len(trained.log),
        "best_epoch": trained.best_epoch,
        "seconds": round(trained.seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": fabric().world_size,
        "versions": versions(),
        "data": dict(data),
        "config": config.model_dump(mode="json"),
    }


def versions() -> dict[str, str]:
    return {
        "dhmd": importlib.metadata.version("dhmd"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
