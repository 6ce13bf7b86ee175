"""What a voice expresses: statistics of the lower layers of the adapted speech encoder, read linearly.

The lower layers hold more of how something is said, the last one holds what is said; those above LAYERS do not run.
Shapes: B batch, U encoder frames of 20 ms, S numbers of a frame in all layers, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.assets.store import fetch
from dhmd.features.low_rank import adapter_of, merge
from dhmd.features.speech import SPEECH_ASSET
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.weights import WeightsInvalid, digest, load_single
from dhmd.labels import EMOTIONS

EMBEDDING_WIDTH: Final = 64
FRAME_WIDTH: Final = EMBEDDING_WIDTH
LAYERS: Final = 3
"""Layers of the speech encoder that are read, from the first on."""
ADAPTED: Final = ("attention_in", "attention_out", "expand", "contract")
"""The linear maps of the speech encoder that are adapted."""

_ENCODER = "encoder."
_LOUDEST: Final = 1.0
"""What the loudest band of the loudest frame is brought to: how far the microphone stands off says nothing."""
_AUDIBLE: Final = 0.75
"""30 dB as the speech model scales log-mel: a frame so far below the loudest is a pause."""


class Heard(NamedTuple):
    """frames: (B, U, E), what each frame adds to the embedding; embedding: (B, E) of all frames together; logits:
    (B, 7), order of EMOTIONS."""

    frames: Tensor
    embedding: Tensor
    logits: Tensor


class VoiceNetwork(nn.Module):
    """Mean and deviation of every layer over the frames that are no pause, standardised, and a linear embedding."""

    centre: Tensor
    spread: Tensor
    learned_sha256 = ""
    """Digest of what was learned, where it was loaded."""
    adapted = False
    """Whether the encoder is another than that of the speech model, where it was loaded."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        encoder.keep(LAYERS)
        self.encoder = encoder
        width = len(encoder.layers) * encoder.width
        self.register_buffer("centre", torch.zeros(2 * width))
        self.register_buffer("spread", torch.ones(2 * width))
        self.embed = nn.Linear(2 * width, EMBEDDING_WIDTH)
        self.classify = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(EMBEDDING_WIDTH, len(EMOTIONS)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, mel: Tensor, count: Tensor | None = None) -> Heard:
        """mel: (B, 80, T) log-mel frames of 10 ms, T even; count: (B,) encoder frames that are no padding."""
        return self.told(*self.listen(mel, count))

    def told(self, states: Tensor, statistics: Tensor) -> Heard:
        """What `listen` gives, read."""
        width = states.shape[-1]
        standardised = (states - self.centre[:width]) / self.spread[:width]
        return Heard(F.linear(standardised, self.embed.weight[:, :width]), *self.read(statistics))

    def listen(self, mel: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States of the layers (B, U, S), and their mean and deviation where there is sound (B, 2 S)."""
        power = _power(mel, count)  # (B, U)
        loudest = power.amax(dim=1, keepdim=True)
        level = mel + (_LOUDEST - loudest)[..., None]
        states = torch.cat([state.float() for state in self.encoder(level, count)[1:]], dim=-1)
        audible = (power > loudest - _AUDIBLE)[..., None].float()
        weight = audible / audible.sum(dim=1, keepdim=True)
        mean = (weight * states).sum(dim=1)
        variance = (weight * (states - mean[:, None]).square()).sum(dim=1)
        return states, torch.cat([mean, (variance + 1e-8).sqrt()], dim=-1)

    def read(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (B, E) and logits (B, 7) of statistics (B, 2 S)."""
        embedding = self.embed(self.dropout((statistics - self.centre) / self.spread))
        return embedding, self.classify(embedding)

    def standardise(self, statistics: Tensor) -> None:
        """Take the mean and deviation of these (N, 2 S) for those of all voices."""
        self.centre.copy_(statistics.mean(dim=0))
        self.spread.copy_(statistics.std(dim=0) + 1e-3)

    def learned(self) -> dict[str, Tensor]:
        """The adapter of the encoder and the weights on top of it; the encoder's own weights are left out."""
        own = {name: value for name, value in self.state_dict().items() if not name.startswith(_ENCODER)}
        return own | {_ENCODER + name: value for name, value in adapter_of(self.encoder).items()}

    @classmethod
    def load(cls, path: Path) -> Self:
        """For use: the speech model's encoder with the adapter of the file merged into it, in evaluation mode.

        Raises WeightsInvalid, AssetUnavailable.
        """
        encoder = SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin")
        try:
            return cls.with_learned(encoder, load_single(path))
        except (AttributeError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsInvalid(f"{path} is of another network: {reason}; take one of this version") from error

    @classmethod
    def with_learned(cls, encoder: SpeechEncoder, learned: Mapping[str, Tensor]) -> Self:
        """The same, with weights at hand (see `learned`) and a fresh encoder. Raises AttributeError, KeyError or
        RuntimeError where they do not fit."""
        network = cls(encoder)
        own = {name: value for name, value in learned.items() if not name.startswith(_ENCODER)}
        frozen = {name: value for name, value in network.state_dict().items() if name.startswith(_ENCODER)}
        network.load_state_dict(frozen | own)  # what is missing or too much is told, and not left as chance made it
        adapter = {name.removeprefix(_ENCODER): learned[name] for name in learned.keys() - own.keys()}
        merge(encoder, adapter)
        network.adapted = any(bool(part.any()) for name, part in adapter.items() if name.endswith(".up"))
        network.learned_sha256 = digest(learned)
        return network.eval()


def _power(mel: Tensor, count: Tensor | None) -> Tensor:
    """(B, U) of the loudest band of each encoder frame; none where there is padding."""
    power = mel.amax(dim=1).reshape(len(mel), -1, 2).amax(dim=2)
    if count is not None:
        padding = torch.arange(power.shape[1], device=power.device) >= count[:, None]
        power = power.masked_fill(padding, float("-inf"))
    return power
