"""Weights learned for an extractor, as one small file: half precision, told by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dhmd.errors import DHMDError


class WeightsInvalid(DHMDError):
    """A file of learned weights is missing or damaged. One line: cause and remedy."""


def save_half(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, floating point numbers in half precision."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in halved.items()}))


def load_single(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, floating point numbers in single precision. Raises WeightsInvalid."""
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise WeightsInvalid(f"{path} is missing; train it with `dhmd-train encoder`, or fetch it again") from error
    except SafetensorError as error:
        raise WeightsInvalid(f"{path} is damaged ({error}); fetch it again") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a module the weights of a file, all of them and no others. Raises WeightsInvalid."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsInvalid(f"{path} is of another network: {reason}; take one of this version") from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the weights themselves as single precision, whatever file they came from."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().numpy().astype("<f4").tobytes())
    return found.hexdigest()
