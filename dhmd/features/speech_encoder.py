"""The encoder of the speech model in torch, read from the same file that CTranslate2 runs, so that it can be adapted.

Whisper (Radford et al. 2022): two convolutions over log-mel frames, fixed positions, pre-norm transformer layers.
Shapes: B batch, T mel frames of 10 ms, U = ceil(T / 2) encoder frames of 20 ms, d width, H heads.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.errors import DHMDError

HEAD_WIDTH: Final = 64
"""Width of a head in Whisper of every size."""

_VERSION: Final = 6
_TYPES: Final = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class SpeechWeightsInvalid(DHMDError):
    """The file of the speech model is not of the kind that this version reads."""


def read_ctranslate2(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a CTranslate2 `model.bin` by name (binary version 6)."""
    with path.open("rb") as file:
        version = _number(file, "<I")
        if version != _VERSION:
            raise SpeechWeightsInvalid(
                f"{path}: CTranslate2 binary version {version}, this version reads {_VERSION}; take weights of that one"
            )
        _text(file)  # the kind of model
        _number(file, "<I")  # its revision
        arrays: dict[str, NDArray[np.generic]] = {}
        for _ in range(_number(file, "<I")):
            name = _text(file)
            shape = [_number(file, "<I") for _ in range(_number(file, "<B"))]
            kind, size = _number(file, "<B"), _number(file, "<I")
            arrays[name] = np.frombuffer(file.read(size), _TYPES[kind]).reshape(shape)
        for _ in range(_number(file, "<I")):
            alias, name = _text(file), _text(file)
            arrays[alias] = arrays[name]
    return arrays


def _number(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "<H"))[:-1].decode()


class _Layer(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.heads = d // HEAD_WIDTH
        self.attention_norm = nn.LayerNorm(d)
        self.attention_in = nn.Linear(d, 3 * d)
        self.attention_out = nn.Linear(d, d)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.expand = nn.Linear(d, 4 * d)
        self.contract = nn.Linear(4 * d, d)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, U, d); mask: (B, 1, 1, U) bool over the keys, or None."""
        queried = self.attention_in(self.attention_norm(x))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in queried.chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(-2))
        out: Tensor = x + self.contract(F.gelu(self.expand(self.feed_forward_norm(x))))
        return out


class SpeechEncoder(nn.Module):
    """Whisper's encoder for sound of any length up to 30 s, without padding it to 30 s."""

    positions: Tensor

    def __init__(self, mels: int, d: int, layers: int, longest: int) -> None:
        super().__init__()
        self.width = d
        self.conv1 = nn.Conv1d(mels, d, 3, padding=1)
        self.conv2 = nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(longest, d))
        self.layers = nn.ModuleList(_Layer(d) for _ in range(layers))
        self.norm: nn.Module = nn.LayerNorm(d)

    def keep(self, layers: int) -> None:
        """Forget the layers above the first so many, and with them the norm of the last state."""
        self.layers = self.layers[:layers]
        self.norm = nn.Identity()

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> list[Tensor]:
        """mel: (B, mels, T) log-mel; frames: (B,) encoder frames that count, the others are padding.

        Returns the hidden states (B, U, d): after the convolutions and after each layer; the last one normalised,
        where all layers were kept.
        """
        x = F.gelu(self.conv1(mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        mask = None
        if frames is not None:
            mask = (torch.arange(x.shape[1], device=x.device) < frames[:, None])[:, None, None]
        states = [x]
        for layer in self.layers:
            x = layer(x, mask)
            states.append(x)
        states[-1] = self.norm(x)
        return states

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the encoder out of a CTranslate2 `model.bin`; in evaluation mode, single precision."""
        prefix = "encoder/"
        arrays = {k.removeprefix(prefix): v for k, v in read_ctranslate2(path).items() if k.startswith(prefix)}
        d, mels, _ = arrays["conv1/weight"].shape
        longest = len(arrays["position_encodings/encodings"])
        encoder = cls(mels, d, sum(name.endswith("ffn/linear_0/bias") for name in arrays), longest)
        encoder.load_state_dict(
            {name: torch.from_numpy(arrays[_stored(name)].astype(np.float32)) for name in encoder.state_dict()}
        )
        return encoder.eval()


_STORED: Final = {
    "attention_norm": "self_attention/layer_norm",
    "attention_in": "self_attention/linear_0",
    "attention_out": "self_attention/linear_1",
    "feed_forward_norm": "ffn/layer_norm",
    "expand": "ffn/linear_0",
    "contract": "ffn/linear_1",
}


def _stored(name: str) -> str:
    """The name under which the file keeps a parameter."""
    if name == "positions":
        return "position_encodings/encodings"
    module, _, kind = name.rpartition(".")
    norm = module.endswith("norm")
    kind = {"weight": "gamma", "bias": "beta"}[kind] if norm else kind
    if not module.startswith("layers."):
        return f"{'layer_norm' if norm else module}/{kind}"
    _, index, part = module.split(".")
    return f"layer_{index}/{_STORED[part]}/{kind}"
