"""Building of the estimate that goes out from what the engine says of a window."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from dhmd.contract import Language
from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import EDGES, Modality
from realtime.messages.estimate import (
    Dropped,
    EmotionName,
    Estimate,
    ExtraNumber,
    Graph,
    Latency,
    Modalities,
    ModalityEstimate,
    ModelName,
    SentimentEstimate,
    Silence,
    SpokenLanguage,
)
from realtime.recognition.engine import Inference, Share, rounded_to_one

UNMEASURED: Final = Share(None, None)


class WindowSummary(Protocol):
    """Facts that an estimate tells of the window it was made from, be it cut just now or recorded. See WindowCut."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def newest_s(self) -> Mapping[Modality, float | None]: ...
    @property
    def present(self) -> AbstractSet[Modality]: ...
    @property
    def late(self) -> AbstractSet[Modality]: ...
    @property
    def far(self) -> AbstractSet[Modality]: ...
    @property
    def covered(self) -> AbstractSet[Modality]: ...
    @property
    def unread(self) -> AbstractSet[Modality]: ...
    @property
    def language(self) -> Language | None: ...


def build_estimate(
    cut: WindowSummary,
    inference: Inference | None,
    top: EmotionName | None,
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
    person: int | None = None,
    silent: Silence | None = None,
    overlapped: bool = False,
) -> Estimate:
    """Put together what goes out.

    person: number of whom it is, where several are followed; silent: why there is no voice of theirs.
    overlapped: whether some of the words were said while several spoke.
    top: the emotion to name, see Steadied. timed: false where the clock is the media's own and latencies mean nothing.
    """
    emotions: dict[EmotionName, float] | None = None
    valence = arousal = None
    sentiment = None
    if inference is not None:
        emotions = dict(zip(EMOTIONS, rounded_to_one(inference.emotions), strict=True))
        valence = round(sum(p * CIRCUMPLEX[name][0] for name, p in emotions.items()), 4)
        arousal = round(sum(p * CIRCUMPLEX[name][1] for name, p in emotions.items()), 4)
        valence, arousal = _measured(inference, "valence", valence), _measured(inference, "arousal", arousal)
        s = inference.sentiment
        sentiment = SentimentEstimate(value=round(s.value, 4), low=round(s.low, 4), high=round(s.high, 4))
    return Estimate(
        stream=stream,
        seq=seq,
        t=round(epoch_unix + cut.end_s, 4),
        window=(round(epoch_unix + cut.start_s, 4), round(epoch_unix + cut.end_s, 4)),
        sentiment=sentiment,
        emotions=emotions,
        top=top,
        valence=valence,
        arousal=arousal,
        modalities=Modalities(**{m.value: _modality(m, cut, inference) for m in Modality}),
        person=person,
        silent=silent,
        graph=Graph(
            homo=_edges(inference.homo_edges if inference else (0.0,) * len(EDGES)),
            hetero=_edges(inference.hetero_edges if inference else (0.0,) * len(EDGES)),
        ),
        faces=faces,
        transcript=transcript,
        overlapped=overlapped or None,
        language=cut.language
        and SpokenLanguage(code=cut.language.code, probability=round(cut.language.probability, 4)),
        latency_ms=Latency(
            capture_to_estimate=None
            if capture_to_estimate_ms is None or not timed
            else round(capture_to_estimate_ms, 2),
            inference=round(inference.inference_ms, 2) if inference and timed else None,
        ),
        dropped=dropped,
        model=model,
        extra=dict(inference.extra) if inference else {},
    )


def _measured(inference: Inference, name: str, derived: float) -> float:
    """What a head of this name says, on -1 to 1, in place of what is derived from the emotions."""
    own = inference.extra.get(name)
    if not isinstance(own, ExtraNumber):
        return derived
    low, high = own.range
    return round(2 * (own.value - low) / (high - low) - 1, 4)


def _edges(weights: tuple[float, ...]) -> dict[str, float]:
    return {str(edge): round(weight, 4) for edge, weight in zip(EDGES, weights, strict=True)}


def _modality(m: Modality, cut: WindowSummary, inference: Inference | None) -> ModalityEstimate:
    newest_s = cut.newest_s[m]
    present = m in cut.present
    share = inference.shares.get(m, UNMEASURED) if inference and present else UNMEASURED
    return ModalityEstimate(
        present=present,
        age_s=None if newest_s is None else round(cut.end_s - newest_s, 3),
        weight=round(inference.weights.get(m, 0.0), 4) if inference else 0.0,
        sentiment=round(inference.modality_sentiment[m], 4) if inference and present else None,
        emotions=None if share.emotions is None else dict(zip(EMOTIONS, rounded_to_one(share.emotions), strict=True)),
        influence=None if share.influence is None else round(share.influence, 4),
        late=m in cut.late,
        far=m in cut.far,
        covered=m in cut.covered or None,
        unread=m in cut.unread,
    )
