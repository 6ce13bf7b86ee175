"""Constants that shape a DHMD network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.untrusted import number, texts, whole


@dataclass(frozen=True, slots=True)
class ModalityConfig:
    """One input: numbers in a row, kernel of its projection (steps), dropout on attention over it."""

    width: int
    kernel: int = 1
    attention_dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Head:
    """One task read from every logit vector: `size` numbers, a regression or the scores of classes.

    classes: their names, in the order of the scores. low, high, unit: of a number, where it has them.
    """

    name: str
    kind: Literal["regression", "classification"]
    size: int
    classes: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def check(self) -> None:
        """Raises ValueError for what is no head."""
        whole(self.size, 1, 1000)
        if self.kind not in {"regression", "classification"}:
            raise ValueError(f"a head is a regression or a classification, not {self.kind}")
        if self.classes and (self.kind == "regression" or len(set(self.classes)) != self.size):
            raise ValueError(f"the head {self.name} has not {self.size} classes")

    def scaled(self, value: float) -> float:
        """What the network learns of a number: from -1 to 1 on its scale. `on_scale` turns it back."""
        return (value - self._middle) / self._half

    def on_scale(self, value: float) -> float:
        """The number that the network says, within its scale."""
        return min(max(self._middle + self._half * value, self._middle - self._half), self._middle + self._half)

    @property
    def scale(self) -> tuple[float, float]:
        """The ends of what a number may be; -1 and 1 where nobody says."""
        return (-1.0, 1.0) if self.low is None or self.high is None else (self.low, self.high)

    @property
    def _middle(self) -> float:
        return sum(self.scale) / 2

    @property
    def _half(self) -> float:
        return (self.scale[1] - self.scale[0]) / 2

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Head:
        """Read a head that others wrote. Raises ValueError, TypeError or KeyError."""
        known = {head.name: head for head in (SENTIMENT, EMOTION)}
        texts({key: data[key] for key in ("name", "unit") if key in data})
        head = cls(**{**data, "classes": tuple(data.get("classes", ()))})
        if head.name in known:
            # Checkpoints name these two by their name and size alone.
            if (head.kind, head.size) != (known[head.name].kind, known[head.name].size):
                raise ValueError(f"the head {head.name} is not ours")
            return known[head.name]
        if head.classes:
            texts({str(i): name for i, name in enumerate(head.classes)})
        for limit in (head.low, head.high):
            if limit is not None:
                number(limit, -1e9, 1e9)
        return head


SENTIMENT = Head("sentiment", "regression", 1, low=-3.0, high=3.0)
"""Sentiment in [-3, 3]."""

EMOTION = Head("emotion", "classification", len(EMOTIONS), EMOTIONS)
"""Scores of the seven emotions."""


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
            head.check()
        if len({head.name for head in self.heads}) != len(self.heads):
            raise ValueError("two heads have one name")
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
                "heads": tuple(map(Head.from_dict, data["heads"])),
            }
        )
