"""The files of a run in its folder. Each is replaced in one step, so that a cut or a full disk leaves the last whole
one."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dhmd.checkpoint import write_atomically
from training.errors import RunDamaged, RunUnwritable
from training.rivals import Learnable

CONFIG: Final = "config.json"
LOG: Final = "log.json"
STATE: Final = "state.pt"
BEST: Final = "best.safetensors"
RESULTS: Final = "results.json"


def keep(path: Path, content: str | bytes) -> None:
    """Raises RunUnwritable, with the old file still there."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> RunUnwritable:
    return RunUnwritable(
        f"{path}: {error.strerror or error}; what was written before is intact: free some space, and the same command "
        "(fit: with --resume) resumes from there"
    )


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """All that a cut run needs to go on. Raises RunUnwritable."""
    content = io.BytesIO()
    torch.save(state, content)
    keep(path, content.getvalue())


def read_state(path: Path) -> dict[str, Any] | None:
    """Reads a state onto the CPU; None where there is none. Raises RunDamaged."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise damaged(path) from error
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Raises RunDamaged when what is done inside with the state of that file shows that it does not fit."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> RunDamaged:
    return RunDamaged(
        f"{path} is damaged, or another version wrote it: delete it, and the same command starts over from the first "
        "epoch"
    )


def write_best(run: Path, model: Learnable) -> None:
    """The weights of the best epoch so far."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    keep(run / BEST, safetensors.torch.save(weights))


def read_best(run: Path) -> dict[str, Tensor]:
    """Raises RunDamaged."""
    path = run / BEST
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunDamaged(f"{path} is damaged or missing ({error}); delete the folder and train again") from error
