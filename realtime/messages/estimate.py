"""The estimate as it is published: version 1 of the payload on `dhmd/STREAM/emotion`.

`python -m realtime.messages.estimate` prints its JSON Schema, which is kept in docs/estimate.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dhmd.labels import CHANNELS

Probability = Annotated[float, Field(ge=0, le=1)]
SentimentValue = Annotated[float, Field(ge=-3, le=3)]
SURE: Final = 0.6
"""Probability from which on an emotion is said to be what a modality shows."""
_AFFECT: Final = (
    "mean of the emotions' places on the circumplex; where `extra` has a number of this name, that, on -1 to 1"
)
EmotionName = Literal["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"]


Silence = Literal["quiet", "another", "outside", "overlap"]
"""Reason why a person has no voice: nobody speaks, another in view does, somebody outside does or it is not known yet
who, several at once do."""


def unset(value: object) -> bool:
    """Tell whether a field that streams of one person lack is to be left out."""
    return value is None


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SentimentEstimate(Part):
    """Sentiment in [-3, 3] with an 80 % interval measured on validation data."""

    value: SentimentValue
    low: SentimentValue
    high: SentimentValue


class ExtraClasses(Part):
    """What a head of the checkpoint's own says, of classes."""

    top: str = Field(description="the most likely class")
    probabilities: dict[str, Probability] = Field(description="by class; they sum to 1")


class ExtraNumber(Part):
    """What a head of the checkpoint's own says, as a number with an 80 % interval measured on validation data."""

    value: float
    low: float
    high: float
    range: tuple[float, float] = Field(description="ends of its scale")
    unit: str = ""


Extra = ExtraClasses | ExtraNumber


def own_numbers(extra: Mapping[str, Extra]) -> dict[str, float]:
    """What heads of the checkpoint's own say in numbers alone: by HEAD, and probabilities of classes by HEAD_CLASS."""
    return {
        name: value
        for head, one in extra.items()
        for name, value in (
            {head: one.value}
            if isinstance(one, ExtraNumber)
            else {f"{head}_{name}": share for name, share in one.probabilities.items()}
        ).items()
    }


class ModalityEstimate(Part):
    """One modality. Absent means not perceived (no face, silence, no words), never zero."""

    present: bool
    age_s: float | None = Field(description="seconds since the newest thing perceived was captured; null if never")
    weight: Probability = Field(description="share of what it teaches the others in the two graphs; sums to 1")
    sentiment: SentimentValue | None = Field(description="what this modality says alone; null when absent")
    emotions: dict[EmotionName, Probability] | None = Field(
        default=None, description="what this modality says alone; null when absent, or not measured"
    )
    influence: Probability | None = Field(
        default=None,
        description="half of the lead that the likeliest emotion loses over the next when this modality is left out; 0 "
        "when it loses none, null when absent, or not measured",
    )
    late: bool = Field(default=False, description="absent because the machine has not come to look: nobody knows")
    far: bool = Field(default=False, description="absent because the face that is seen is too far away to be read")
    covered: Literal[True] | None = Field(
        default=None,
        exclude_if=unset,
        description="the mouth of the face is covered: what is left shows less, and alone is made less sure; missing "
        "otherwise",
    )
    unread: bool = Field(
        default=False,
        description="absent although somebody speaks: no word was understood, or the model was not tested in the "
        "language of the words",
    )


class Modalities(Part):
    vision: ModalityEstimate
    audio: ModalityEstimate
    text: ModalityEstimate


class Graph(Part):
    """Distillation edges `source->target`; each graph sums to 1, or is all zero with fewer than two modalities."""

    homo: dict[str, Probability]
    hetero: dict[str, Probability]


class SpokenLanguage(Part):
    """The language that is spoken."""

    code: str = Field(pattern="^[a-z]{2,3}$", description="ISO 639-1, or 639-3 where there is none")
    probability: Probability = Field(description="1 where the language was given")


class Latency(Part):
    """Milliseconds; null where time is the media's own (--pace max)."""

    capture_to_estimate: float | None = Field(description="from the capture of the newest thing perceived")
    inference: float | None


class Dropped(Part):
    """Losses since the start: pictures that were due, 15 a second, and overtaken by newer ones; blocks of sound that
    overflowed, or were overtaken before their voice was read."""

    video: int
    audio: int


class ModelName(Part):
    name: str
    checkpoint: str = Field(description="first 12 hex digits of the sha256 of the checkpoint's configuration")


class Estimate(Part):
    """One estimate. `sentiment`, `emotions`, `top`, `valence` and `arousal` are null when nothing is perceived."""

    v: Literal[1] = 1
    stream: str
    seq: int = Field(ge=0)
    t: float = Field(description="unix seconds of the window's end; media seconds under --pace max")
    window: tuple[float, float] = Field(description="start and end of the window, same clock as t")
    sentiment: SentimentEstimate | None
    emotions: dict[EmotionName, Probability] | None = Field(description="seven probabilities that sum to 1")
    top: EmotionName | None = Field(description="the emotion named; another takes its place by a margin")
    valence: float | None = Field(ge=-1, le=1, description=_AFFECT)
    arousal: float | None = Field(ge=-1, le=1, description=_AFFECT)
    modalities: Modalities
    graph: Graph
    faces: int = Field(ge=0)
    transcript: str = Field(description="words of the window, partial ones included")
    overlapped: Literal[True] | None = Field(
        default=None,
        exclude_if=unset,
        description="some of the words of `transcript` were said while several spoke at once: they are the loudest "
        "one's, and less reliable; missing otherwise",
    )
    language: SpokenLanguage | None = Field(
        default=None, description="found in what was said so far; null before, and where only English is listened to"
    )
    latency_ms: Latency
    dropped: Dropped
    model: ModelName
    extra: dict[str, Extra] = Field(
        default_factory=dict, description="what the heads of the checkpoint's own say, by their name; empty without any"
    )
    person: int | None = Field(
        default=None,
        ge=1,
        exclude_if=unset,
        description="number of the person, where several are followed; missing in the estimate of the stream itself",
    )
    silent: Silence | None = Field(
        default=None,
        exclude_if=unset,
        description="why a person has no voice: nobody speaks, another in view does, somebody outside the picture "
        "does (or it is not known yet who), or several at once do; missing while they speak",
    )

    @property
    def disagreement(self) -> str:
        """Who is sure of what, where modalities that are sure of themselves differ, "happy words, angry voice"; else
        empty."""
        sure = [
            (max(emotions, key=lambda one: emotions[one]), name)
            for m, name in CHANNELS.items()
            if (emotions := getattr(self.modalities, m).emotions) and max(emotions.values()) >= SURE
        ]
        return ", ".join(f"{top} {name}" for top, name in sure) if len({top for top, _ in sure}) > 1 else ""


if __name__ == "__main__":
    print(json.dumps(Estimate.model_json_schema(), indent=2))
