"""Constants that shape a DHMD network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.untrusted import number, whole


@dataclass(frozen=True, slots=True)
class ModalityConfig:
    """One input: numbers in a row, kernel of its projection (steps), dropout on attention over it."""

    width: int
    kernel: int = 1
    attention_dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Head:
    """One task read from every logit vector: `size` numbers, a regression or the scores of classes."""

    name: str
    kind: Literal["regression", "classification"]
    size: int


SENTIMENT = Head("sentiment", "regression", 1)
"""Sentiment in [-3, 3]."""

EMOTION = Head("emotion", "classification", len(EMOTIONS))
"""Scores of the seven emotions, in the order of `EMOTIONS`."""


@dataclass(frozen=True, slots=True)
class DHMDConfig:
    """Constants of the network; the defaults are the paper's for CMU-MOSI.

    dictionary: False leaves out the matching of steps 4 and 6, to measure what it gives: in place of the rebuilt
    features stand C_m averaged over its present steps and the newest step of H_m, detached and of length 1 as these
    are. There are no atoms and no activations then, and the dictionary loss is zero.
    """

    modalities: Mapping[Modality, ModalityConfig]
    heads: tuple[Head, ...] = (SENTIMENT, EMOTION)
    d: int = 50
    attention_heads: int = 10
    layers: int = 4
    atoms: int = 512
    temperature: float = 2.0
    homo_hidden: int = 64
    hetero_hidden: int = 32
    text_dropout: float = 0.5
    embedding_dropout: float = 0.2
    output_dropout: float = 0.5
    residual_dropout: float = 0.0
    dictionary: bool = True

    def __post_init__(self) -> None:
        if set(self.modalities) != set(Modality):
            raise ValueError(f"modalities must be {', '.join(Modality)}, not {', '.join(self.modalities)}")
        for one in self.modalities.values():
            whole(one.width, 1, 2**16)
            whole(one.kernel, 1, 99)
            number(one.attention_dropout, 0.0, 1.0)
        for head in self.heads:
            whole(head.size, 1, 1000)
        for name in ("d", "attention_heads", "layers", "atoms", "homo_hidden", "hetero_hidden"):
            whole(getattr(self, name), 1, 2**16)
        for name in ("text_dropout", "embedding_dropout", "output_dropout", "residual_dropout"):
            number(getattr(self, name), 0.0, 1.0)
        number(self.temperature, 1e-6, 1e6)
        if self.d % self.attention_heads:
            raise ValueError(f"d={self.d} must be a multiple of attention_heads={self.attention_heads}")
        if self.d < 4 or self.d % 2:
            raise ValueError(f"d={self.d} must be even and at least 4")

    @property
    def outputs(self) -> int:
        """Numbers in a logit vector: all heads side by side."""
        return sum(head.size for head in self.heads)

    @property
    def least_weights(self) -> int:
        """Numbers that the weights of such a network hold at least."""
        d = self.d
        layers = 9 * self.layers + 4 * 3 * max(self.layers, 3)  # those of the memory are twice as wide
        inputs = sum(one.width * one.kernel * d for one in self.modalities.values())
        return 12 * layers * d * d + inputs + 3 * self.atoms * d * self.dictionary + self.homo_hidden * d

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DHMDConfig:
        return cls(
            **{
                **data,
                "modalities": {Modality(m): ModalityConfig(**c) for m, c in data["modalities"].items()},
                "heads": tuple(Head(**head) for head in data["heads"]),
            }
        )
