"""What a voice expresses: a small network over all layers of the adapted speech encoder.

The layers below the last hold more of how something is said; the last one holds what is said.
Shapes: B batch, U encoder frames of 20 ms, d encoder width, F frame features, E embedding.
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

FRAME_WIDTH: Final = 128
EMBEDDING_WIDTH: Final = 64
ADAPTED: Final = ("attention_in", "attention_out", "expand", "contract")
"""The linear maps of the speech encoder that are adapted."""

_ENCODER = "encoder."


class Heard(NamedTuple):
    """frames: (B, U, F); embedding: (B, E) of all frames together; logits: (B, 7), order of EMOTIONS."""

    frames: Tensor
    embedding: Tensor
    logits: Tensor


class VoiceNetwork(nn.Module):
    """Frame features, and an embedding by attentive pooling of their mean and deviation (Okabe et al. 2018)."""

    learned_sha256 = ""
    """Digest of what was learned, where it was loaded."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        states = len(encoder.layers) + 1
        self.norm = nn.ModuleList(nn.LayerNorm(encoder.width) for _ in range(states))
        self.frame = nn.Linear(states * encoder.width, FRAME_WIDTH)
        self.attention = nn.Linear(FRAME_WIDTH, 1)
        self.embed = nn.Sequential(
            nn.Linear(2 * FRAME_WIDTH, EMBEDDING_WIDTH, bias=False), nn.BatchNorm1d(EMBEDDING_WIDTH)
        )
        self.classify = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(EMBEDDING_WIDTH, len(EMOTIONS)))
        self.dropout = nn.Dropout(0.4)

    def forward(self, mel: Tensor, count: Tensor | None = None) -> Heard:
        """mel: (B, 80, T) log-mel frames of 10 ms, T even; count: (B,) encoder frames that are no padding."""
        states = [state.float() for state in self.encoder(mel, count)]
        joined = torch.cat([norm(state) for norm, state in zip(self.norm, states, strict=True)], dim=-1)
        frames = F.gelu(self.frame(self.dropout(joined)))  # (B, U, F)
        score = self.attention(frames)
        if count is not None:
            padding = torch.arange(frames.shape[1], device=frames.device) >= count[:, None]
            score = score.masked_fill(padding[..., None], float("-inf"))
        weight = score.softmax(dim=1)
        mean = (weight * frames).sum(dim=1)
        variance = (weight * (frames - mean[:, None]).square()).sum(dim=1)
        embedding = self.embed(torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1))
        return Heard(frames, embedding, self.classify(embedding))

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
        merge(encoder, {name.removeprefix(_ENCODER): learned[name] for name in learned.keys() - own.keys()})
        network.learned_sha256 = digest(learned)
        return network.eval()
