"""The estimate as it is published: version 1 of the payload on `dhmd/STREAM/emotion`.

`python -m realtime.messages.estimate` prints its JSON Schema, which is kept in docs/estimate.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import EDGES, Modality

if TYPE_CHECKING:
    # Who takes estimates in needs no engine.
    from realtime.recognition.engine import Inference

Probability = Annotated[float, Field(ge=0, le=1)]
SentimentValue = Annotated[float, Field(ge=-3, le=3)]
EmotionName = Literal["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SentimentEstimate(Part):
    """Sentiment in [-3, 3] with an 80 % interval measured on validation data."""

    value: SentimentValue
    low: SentimentValue
    high: SentimentValue


class ModalityEstimate(Part):
    """One modality. Absent means not perceived (no face, silence, no words), never zero."""

    present: bool
    age_s: float | None = Field(description="seconds since the newest thing perceived was captured; null if never")
    weight: Probability = Field(description="share of what it teaches the others in the two graphs; sums to 1")
    sentiment: SentimentValue | None = Field(description="what this modality says alone; null when absent")


class Modalities(Part):
    vision: ModalityEstimate
    audio: ModalityEstimate
    text: ModalityEstimate


class Graph(Part):
    """Distillation edges `source->target`; each graph sums to 1, or is all zero with fewer than two modalities."""

    homo: dict[str, Probability]
    hetero: dict[str, Probability]


class Latency(Part):
    """Milliseconds; null where time is the media's own (--pace max)."""

    capture_to_estimate: float | None = Field(description="from the capture of the newest thing perceived")
    inference: float | None


class Dropped(Part):
    """Samples lost since the start: video frames overtaken by newer ones, blocks of sound that overflowed."""

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
    top: EmotionName | None
    valence: float | None = Field(ge=-1, le=1, description="mean of the emotions' places on the circumplex")
    arousal: float | None = Field(ge=-1, le=1, description="mean of the emotions' places on the circumplex")
    modalities: Modalities
    graph: Graph
    faces: int = Field(ge=0)
    transcript: str = Field(description="words of the window, partial ones included")
    latency_ms: Latency
    dropped: Dropped
    model: ModelName


class Window(Protocol):
    """What an estimate tells of the window it was made from, be it cut just now or recorded. See WindowCut."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def newest_s(self) -> Mapping[Modality, float | None]: ...
    @property
    def present(self) -> AbstractSet[Modality]: ...


def build_estimate(
    cut: Window,
    inference: Inference | None,
    *,
    stream: str,
    seq: int,
    epoch_unix: float,
    faces: int,
    transcript: str,
    capture_to_estimate_ms: float | None,
    timed: bool,
    dropped: Dropped,
    model: ModelName,
) -> Estimate:
    """Put together what goes out. `timed` is false where the clock is the media's own and latencies mean nothing."""
    emotions: dict[EmotionName, float] | None = None
    valence = arousal = None
    sentiment = None
    if inference is not None:
        emotions = _rounded_to_one(inference.emotions)
        valence = round(sum(p * CIRCUMPLEX[name][0] for name, p in emotions.items()), 4)
        arousal = round(sum(p * CIRCUMPLEX[name][1] for name, p in emotions.items()), 4)
        s = inference.sentiment
        sentiment = SentimentEstimate(value=round(s.value, 4), low=round(s.low, 4), high=round(s.high, 4))
    return Estimate(
        stream=stream,
        seq=seq,
        t=round(epoch_unix + cut.end_s, 4),
        window=(round(epoch_unix + cut.start_s, 4), round(epoch_unix + cut.end_s, 4)),
        sentiment=sentiment,
        emotions=emotions,
        top=max(emotions, key=lambda name: emotions[name]) if emotions else None,
        valence=valence,
        arousal=arousal,
        modalities=Modalities(**{m.value: _modality(m, cut, inference) for m in Modality}),
        graph=Graph(
            homo=_edges(inference.homo_edges if inference else (0.0,) * len(EDGES)),
            hetero=_edges(inference.hetero_edges if inference else (0.0,) * len(EDGES)),
        ),
        faces=faces,
        transcript=transcript,
        latency_ms=Latency(
            capture_to_estimate=None
            if capture_to_estimate_ms is None or not timed
            else round(capture_to_estimate_ms, 2),
            inference=round(inference.inference_ms, 2) if inference and timed else None,
        ),
        dropped=dropped,
        model=model,
    )


def _rounded_to_one(probabilities: tuple[float, ...]) -> dict[EmotionName, float]:
    """Four digits each, cut down, and what is missing given to the largest remainders: sum 1, order unchanged."""
    scaled = [p * 10_000 for p in probabilities]
    units = [int(s) for s in scaled]
    by_remainder = sorted(range(len(units)), key=lambda i: units[i] - scaled[i])
    for i in by_remainder[: 10_000 - sum(units)]:
        units[i] += 1
    return dict(zip(EMOTIONS, (count / 10_000 for count in units), strict=True))


def _edges(weights: tuple[float, ...]) -> dict[str, float]:
    return {str(edge): round(weight, 4) for edge, weight in zip(EDGES, weights, strict=True)}


def _modality(m: Modality, cut: Window, inference: Inference | None) -> ModalityEstimate:
    newest_s = cut.newest_s[m]
    present = m in cut.present
    return ModalityEstimate(
        present=present,
        age_s=None if newest_s is None else round(cut.end_s - newest_s, 3),
        weight=round(inference.weights.get(m, 0.0), 4) if inference else 0.0,
        sentiment=round(inference.modality_sentiment[m], 4) if inference and present else None,
    )


if __name__ == "__main__":
    print(json.dumps(Estimate.model_json_schema(), indent=2))
