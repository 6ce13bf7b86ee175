"""The configuration of a training run: YAML, checked key by key before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dhmd import yaml_config
from dhmd.checkpoint import subset_name
from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.model import DHMDConfig, ModalityConfig
from training.data.compose import SUBSETS, Composition
from training.data.corpora import CORPORA
from training.losses import Weights

FACES = "faces"
"""The name under which FER2013 and CK+ are asked for."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Strict):
    """Constants of the network; see `DHMDConfig`. Kernels and attention dropouts by modality."""

    d: int = Field(32, ge=4)
    attention_heads: int = Field(4, ge=1)
    layers: int = Field(2, ge=1)
    atoms: int = Field(64, ge=2)
    temperature: float = Field(2.0, gt=0)
    kernels: dict[Modality, int] = Field(default_factory=dict)
    attention_dropout: dict[Modality, float] = Field(default_factory=dict)
    text_dropout: float = Field(0.3, ge=0, lt=1)
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    output_dropout: float = Field(0.3, ge=0, lt=1)
    residual_dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d % self.attention_heads or self.d % 2:
            raise ValueError(f"d={self.d} must be even and a multiple of attention_heads={self.attention_heads}")
        return self

    def dhmd(self, specs: Mapping[Modality, FeatureSpec]) -> DHMDConfig:
        """The network for features of these widths."""
        return DHMDConfig(
            modalities={
                m: ModalityConfig(specs[m].width, self.kernels.get(m, 1), self.attention_dropout.get(m, 0.0))
                for m in Modality
            },
            **self.model_dump(exclude={"kernels", "attention_dropout"}),
        )


class Optimisation(_Strict):
    """How long and how fast. An epoch is `steps` batches; the rate rises over `warm_up` steps, then falls as a cosine.

    patience: epochs without a better validation score before stopping. gradient_clip: by value.
    """

    batch: int = Field(32, ge=2)
    epochs: int = Field(30, ge=1)
    steps: int = Field(200, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    dictionary_learning_rate: float = Field(1e-3, gt=0)
    warm_up: int = Field(100, ge=1)
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(0.6, gt=0)
    patience: int = Field(8, ge=1)


class Validation(_Strict):
    """items: at most so many single items of a modality; per_class: composed windows of each class, for each pair and
    for all three."""

    items: int = Field(600, ge=1)
    per_class: int = Field(40, ge=1)


class FitConfig(_Strict):
    """Everything that shapes a run, apart from where data and results lie."""

    name: str = Field(min_length=1)
    seed: int = 1
    corpora: list[str] = Field(default_factory=lambda: [*CORPORA, FACES])
    network: Network = Network()
    optimisation: Optimisation = Optimisation()
    validation: Validation = Validation()
    composition: Composition = Composition()
    losses: Weights = Weights()

    @field_validator("corpora")
    @classmethod
    def _known_corpora(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in {*CORPORA, FACES}:
                raise ValueError(f"no corpus is called {name!r}; there are {', '.join((*CORPORA, FACES))}")
        return names

    @field_validator("composition")
    @classmethod
    def _known_subsets(cls, composition: Composition) -> Composition:
        names = [subset_name(subset) for subset in SUBSETS]
        for name, share in composition.subsets.items():
            if name not in names or share < 0:
                raise ValueError(f"subsets: {name!r}: {share}; each of {', '.join(names)} may have a share from 0 up")
        if not any(composition.subsets.values()):
            raise ValueError("subsets: at least one share must be above 0")
        return composition


def read_config(path: Path) -> FitConfig:
    """Parse and check a configuration. Raises ConfigInvalid, naming the line and what was expected."""
    return yaml_config.read_config(path, FitConfig)
