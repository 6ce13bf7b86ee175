"""The configuration of a training run: YAML, checked key by key before anything starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dhmd import yaml_config
from dhmd.checkpoint import subset_name
from dhmd.modality import Modality
from dhmd.model import EMOTION, SENTIMENT, DHMDConfig, Head, ModalityConfig
from dhmd.untrusted import quoted
from training.data.compose import SUBSETS, Composition
from training.data.manifest import COLUMNS


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
    dictionary: bool = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d % self.attention_heads or self.d % 2:
            raise ValueError(f"d={self.d} must be even and a multiple of attention_heads={self.attention_heads}")
        return self

    def dhmd(self, widths: Mapping[Modality, int], heads: tuple[Head, ...] = (SENTIMENT, EMOTION)) -> DHMDConfig:
        """The network for features of these widths."""
        return DHMDConfig(
            heads=heads,
            modalities={
                m: ModalityConfig(widths[m], self.kernels.get(m, 1), self.attention_dropout.get(m, 0.0))
                for m in Modality
            },
            **self.model_dump(exclude={"kernels", "attention_dropout"}),
        )


class Optimisation(_Strict):
    """Plans how long and how fast to learn, on composed windows.

    An epoch is `steps` batches; the rate rises over `warm_up` steps, then falls as a cosine.

    patience: epochs without a better validation score before stopping. gradient_clip: by value. ema: share of the old
    in the running average of the weights, which is then what is measured and kept; 0 keeps the weights themselves.
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
    ema: float = Field(0.0, ge=0, lt=1)
    accumulation: ClassVar[int] = 1
    clip: ClassVar[str] = "step"
    encoder_learning_rate: ClassVar[float] = 0.0
    betas: ClassVar[tuple[float, float]] = (0.9, 0.98)

    def rate(self, batches: int, scores: Sequence[float]) -> float:  # noqa: ARG002, the other plan needs them
        """Share of the peak learning rate: a linear rise, then a cosine down to 2 %."""
        if batches < self.warm_up:
            return (batches + 1) / self.warm_up
        done = (batches - self.warm_up) / max(self.epochs * self.steps - self.warm_up, 1)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


class PlateauOptimisation(_Strict):
    """Plans how long and how fast to learn, on sequences. An epoch is every utterance once, the
    optimiser is Adam, or with a decay of the weights AdamW.
    The rate is halved after `plateau` epochs without a better validation score and one more; null: never.

    accumulation: batches whose gradients are summed for one step. patience: epochs without a better score before
    stopping. gradient_clip: by value, of the sum before a `step`, or of what is summed so far after each `batch`.
    encoder_learning_rate: of a language encoder that is trained along. ema: as in `Optimisation`.
    """

    batch: int = Field(16, ge=2)
    accumulation: int = Field(10, ge=1)
    epochs: int = Field(200, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    dictionary_learning_rate: float = Field(1e-3, gt=0)
    encoder_learning_rate: float = Field(2e-5, gt=0)
    plateau: int | None = Field(10, ge=1)
    gradient_clip: float = Field(0.6, gt=0)
    clip: Literal["step", "batch"] = "step"
    patience: int = Field(24, ge=1)
    ema: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)

    def rate(self, batches: int, scores: Sequence[float]) -> float:  # noqa: ARG002, the other plan needs them
        """Share of the learning rates: a half for every time that the scores stood still."""
        share, best, worse = 1.0, -math.inf, 0
        for score in scores:
            worse = 0 if score > best else worse + 1
            best = max(best, score)
            if self.plateau is not None and worse > self.plateau:
                share, worse = share / 2, 0
        return share


Plan = Optimisation | PlateauOptimisation


class Validation(_Strict):
    """Size of what is measured after each epoch. items: at most so many utterances for each set of modalities;
    per_class: composed windows of each class, for each pair and for all three."""

    items: int = Field(600, ge=1)
    per_class: int = Field(40, ge=1)


class Rehearsal(_Strict):
    """Keeps a run that has a `start` from forgetting what that checkpoint knows.

    windows: imagined ones beside each batch, on which the network is held to what it said; 0: none.
    kept: share of the old weights in the mean of the old and the new, which is what is kept.
    """

    windows: int = Field(0, ge=0)
    kept: float = Field(0.0, ge=0, lt=1)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weight of each term of the loss in the total; the paper's, which has neither `product` nor `rehearsal`.

    regulariser: factor of the graphs' regulariser within `homo` and `hetero`. rehearsal: of what `Rehearsal` holds, if
    there is any. temperature: of what a modality says alone, in the `product`, by modality; else 1. A run's card has
    them.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    task: float = 1.0
    rec: float = 0.1
    cyc: float = 0.1
    mar: float = 0.01
    ort: float = 0.01
    homo: float = 0.05
    hetero: float = 0.05
    product: float = 0.0
    regulariser: float = 10.0
    temperature: Mapping[Modality, float] = field(default_factory=dict)
    dict: float = 0.1
    rehearsal: float = 3.0


NAME: Final = r"[a-z][a-z0-9_]{0,31}"
"""Of a head of one's own, which names a column, a topic and a field."""


class OwnHead(_Strict):
    """A head of one's own: `classes` by name, or a number in `range`, in a `unit` if it has one. Its labels stand in
    the column of its name."""

    classes: list[str] = Field(default_factory=list, max_length=100)
    range: tuple[float, float] | None = None
    unit: str = Field("", max_length=20)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.classes) == (self.range is not None):
            raise ValueError("expected `classes: [one, other]` or `range: [lowest, highest]`")
        folded = [name.strip().casefold() for name in self.classes]
        if self.classes and (len(folded) < 2 or len(set(folded)) != len(folded) or not all(folded)):
            raise ValueError("classes: expected two or more, each with a name of its own")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range: expected the lowest and the highest number, found {list(self.range)}")
        return self

    def head(self, name: str) -> Head:
        if self.range is None:
            return Head(name, "classification", len(self.classes), tuple(one.strip() for one in self.classes))
        return Head(name, "regression", 1, low=self.range[0], high=self.range[1], unit=self.unit)


class FitConfig(_Strict):
    """Everything that shapes a run, apart from where data and results lie.

    start: name or folder of a checkpoint, from whose network, weights, normaliser and encoders the run begins.
    manifests: names of manifests in the folder of the data. heads: of one's own, beside emotion and sentiment, by
    name.
    """

    name: str = Field(min_length=1)
    seed: int = 1
    start: str | None = None
    manifests: list[str] = Field(default_factory=list)
    heads: dict[str, OwnHead] = Field(default_factory=dict, max_length=20)
    network: Network = Network()
    optimisation: Optimisation = Optimisation()
    validation: Validation = Validation()
    composition: Composition = Composition()
    losses: Weights = Weights()
    rehearsal: Rehearsal = Rehearsal()

    @field_validator("heads")
    @classmethod
    def _named(cls, heads: dict[str, OwnHead]) -> dict[str, OwnHead]:
        for name in heads:
            if not re.fullmatch(NAME, name) or name in COLUMNS:
                raise ValueError(
                    f"{quoted(name)} is no name of a head: small letters, digits and _, up to 32, and no column that a "
                    "manifest has anyway"
                )
        return heads

    @property
    def own(self) -> tuple[Head, ...]:
        """The heads of one's own."""
        return tuple(head.head(name) for name, head in self.heads.items())

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

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.start is not None and "network" in self.model_fields_set:
            raise ValueError("a run with `start` has the network of that checkpoint; leave `network` out")
        if self.start is None and "rehearsal" in self.model_fields_set:
            raise ValueError("a run without `start` has nothing to rehearse; leave `rehearsal` out")
        return self


class SequenceConfig(_Strict):
    """A run on a file of features of all modalities at once, of utterances labelled with sentiment or emotion.

    features: the layout of the file: see `training.data.published`, `.mosi_context`, `.pairs` and `.composed`.
    labels, limit, classes: what a published file is labelled with: sentiment in [-limit, limit], measured as the field
    does for that scale, or classes, whose number or names these are.
    text: of a published file, the words as they are in it, or through an `encoder` that is trained along: the folder of
    a BERT or its name on the Hugging Face hub.
    model: DHMD, or a network that it is compared with: see `training.rivals`.
    modalities: those that are shown; the others are absent throughout.
    fold, baseline: of pairs; see `training.data.pairs`.
    """

    name: str = Field(min_length=1)
    features: Literal["published", "mosi-context", "pairs", "composed"]
    seed: int = 1
    labels: Literal["sentiment", "classification"] = "sentiment"
    limit: Literal[1, 3] = 3
    classes: int | list[str] | None = None
    text: Literal["fixed", "finetune"] = "fixed"
    encoder: str = "google-bert/bert-base-uncased"
    model: Literal["dhmd", "concatenation", "crossmodal", "linear"] = "dhmd"
    modalities: list[Modality] = Field(default_factory=lambda: list(Modality), min_length=1)
    fold: int = Field(5, ge=1, le=5)
    baseline: list[Modality] = Field(default_factory=list)
    network: Network = Network()
    optimisation: PlateauOptimisation = PlateauOptimisation()
    losses: Weights = Weights()

    @model_validator(mode="after")
    def _classes(self) -> Self:
        if (self.labels == "classification") != (self.classes is not None):
            raise ValueError("`labels: classification` and `classes`, their number or names, belong together")
        if self.labels == "classification" and self.features != "published":
            raise ValueError(f"`labels` is of published files; those of {self.features} are known")
        if self.text == "finetune" and (self.features, self.model) != ("published", "dhmd"):
            raise ValueError("`text: finetune` is of published files, with `model: dhmd`")
        plan = self.optimisation
        if plan.plateau is not None and plan.patience <= plan.plateau:
            raise ValueError(
                f"optimisation: it would stop after {plan.patience} epochs, before `plateau` halves the rate after "
                f"{plan.plateau + 1}; give a longer `patience`, or `plateau: null`"
            )
        names = self._names
        if names and (len(set(names)) != len(names) or not 2 <= len(names) <= 100):
            raise ValueError("classes: expected 2 to 100, or as many names, each once")
        return self

    @property
    def _names(self) -> tuple[str, ...]:
        if isinstance(self.classes, int):
            return tuple(map(str, range(self.classes)))
        return tuple(self.classes or ())

    @property
    def head(self) -> Head:
        """What is learned of an utterance."""
        if self.features in {"pairs", "composed"}:
            return EMOTION
        if self.labels == "classification":
            return Head("label", "classification", len(self._names), self._names)
        return replace(SENTIMENT, low=-float(self.limit), high=float(self.limit))


class _Kind(BaseModel):
    features: object = None


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> FitConfig | SequenceConfig:
    """Parse and check a configuration: of a run on sequences where it says `features`, else on composed windows.

    changes: values in place of those of the file, by their key, as in "optimisation.epochs". Raises ConfigInvalid,
    naming the line and what was expected.
    """
    if yaml_config.read_config(path, _Kind, changes).features is None:
        return yaml_config.read_config(path, FitConfig, changes)
    return yaml_config.read_config(path, SequenceConfig, changes)
