"""The estimate that goes out: what holds of every payload, whatever the model said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import EDGES, Modality
from realtime.messages.estimate import Dropped, EmotionName, Estimate, ModelName
from realtime.perception.window import WindowCut
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import Inference, Sentiment
from realtime.recognition.steadied import Hysteresis

SCHEMA = Path(__file__).parents[3] / "docs" / "estimate.schema.json"

subsets = st.sets(st.sampled_from(list(Modality)), min_size=1).map(frozenset)
sentiments = st.floats(-3, 3)


def normalised(scores: list[float]) -> tuple[float, ...]:
    e = np.exp(np.array(scores))
    return tuple((e / e.sum()).tolist())


distributions = st.lists(st.floats(-30, 30), min_size=7, max_size=7).map(normalised)
edge_weights = st.lists(st.floats(-5, 5), min_size=6, max_size=6).map(normalised)


@st.composite
def inferences(draw: st.DrawFn, present: frozenset[Modality]) -> Inference:
    value = draw(sentiments)
    width = draw(st.floats(0, 3))
    shares = normalised(draw(st.lists(st.floats(-3, 3), min_size=len(present), max_size=len(present))))
    return Inference(
        sentiment=Sentiment(value, max(-3.0, value - width), min(3.0, value + width)),
        emotions=draw(distributions),
        modality_sentiment={m: draw(sentiments) for m in present},
        homo_edges=draw(edge_weights),
        hetero_edges=draw(edge_weights),
        weights=dict(zip(sorted(present), shares, strict=True)),
        inference_ms=draw(st.floats(0, 1e4)),
    )


def cut_with(present: frozenset[Modality], newest_s: dict[Modality, float | None], end_s: float = 12.5) -> WindowCut:
    nothing = {m: torch.zeros(1, 1, 1) for m in Modality}
    masks = {m: torch.zeros(1, 1, dtype=torch.bool) for m in Modality}
    return WindowCut(end_s - 5.0, end_s, nothing, masks, newest_s, present)


def build(cut: WindowCut, inference: Inference | None, *, timed: bool = True) -> Estimate:
    return build_estimate(
        cut,
        inference,
        Hysteresis(0.0).top(None if inference is None else inference.emotions, cut.end_s),
        stream="hall",
        seq=41,
        epoch_unix=1_700_000_000.25,
        faces=1,
        transcript="what wonderful news",
        capture_to_estimate_ms=61.234,
        timed=timed,
        dropped=Dropped(video=2, audio=0),
        model=ModelName(name="base", checkpoint="0123456789ab"),
    )


@st.composite
def estimates(draw: st.DrawFn) -> tuple[WindowCut, Inference, Estimate]:
    present = draw(subsets)
    newest_s = {m: 12.5 - draw(st.floats(0, 4)) if m in present else None for m in Modality}
    cut, inference = cut_with(present, newest_s), draw(inferences(present))
    return cut, inference, build(cut, inference)


@given(estimates())
def test_emotions_sum_to_one_as_they_are_written(made: tuple[WindowCut, Inference, Estimate]) -> None:
    _, inference, estimate = made
    emotions = json.loads(estimate.model_dump_json())["emotions"]
    assert list(emotions) == list(EMOTIONS)
    assert math.isclose(math.fsum(emotions.values()), 1.0, abs_tol=1e-12)
    for name, p in zip(EMOTIONS, inference.emotions, strict=True):
        assert emotions[name] == round(emotions[name], 4)
        assert abs(emotions[name] - p) < 1.001e-4
    # The one that is named is the model's choice and the largest of those written.
    assert emotions[estimate.top] == max(emotions.values())
    assert inference.emotions[EMOTIONS.index(estimate.top or "")] == pytest.approx(max(inference.emotions), abs=1e-4)


@given(estimates())
def test_valence_and_arousal_are_the_mean_place_on_the_circumplex(
    made: tuple[WindowCut, Inference, Estimate],
) -> None:
    _, inference, estimate = made
    places = np.array([CIRCUMPLEX[name] for name in EMOTIONS])
    valence, arousal = np.array(inference.emotions) @ places
    assert estimate.valence == pytest.approx(valence, abs=1e-3)
    assert estimate.arousal == pytest.approx(arousal, abs=1e-3)


@pytest.mark.parametrize("name", EMOTIONS)
def test_a_sure_emotion_stands_at_its_own_place(name: str) -> None:
    present = frozenset({Modality.VISION})
    inference = Inference(
        Sentiment(0.0, 0.0, 0.0),
        tuple(float(name == other) for other in EMOTIONS),
        {Modality.VISION: 0.0},
        (0.0,) * 6,
        (0.0,) * 6,
        {Modality.VISION: 1.0},
        5.0,
    )
    estimate = build(cut_with(present, dict.fromkeys(Modality) | {Modality.VISION: 12.4}), inference)
    assert (estimate.top, estimate.valence, estimate.arousal) == (name, *CIRCUMPLEX[name])


@given(estimates())
def test_the_json_is_read_back_as_the_same_estimate(made: tuple[WindowCut, Inference, Estimate]) -> None:
    _, _, estimate = made
    assert Estimate.model_validate_json(estimate.model_dump_json()) == estimate


@given(estimates())
def test_an_absent_modality_is_null_and_a_present_one_is_not(made: tuple[WindowCut, Inference, Estimate]) -> None:
    cut, inference, estimate = made
    for m in Modality:
        part = getattr(estimate.modalities, m)
        assert part.present == (m in cut.present)
        assert (part.sentiment is None) == (not part.present)
        assert (part.weight == 0.0) or part.present
        newest_s = cut.newest_s[m]
        assert part.age_s == (None if newest_s is None else pytest.approx(12.5 - newest_s, abs=6e-4))
        if part.present:
            assert part.sentiment == pytest.approx(inference.modality_sentiment[m], abs=6e-5)
    weights = [getattr(estimate.modalities, m).weight for m in Modality]
    assert sum(weights) == pytest.approx(1.0, abs=2e-4)
    assert estimate.sentiment is not None
    assert estimate.sentiment.low <= estimate.sentiment.value <= estimate.sentiment.high


def test_nothing_perceived_is_null_everywhere_never_zero() -> None:
    written = json.loads(build(cut_with(frozenset(), dict.fromkeys(Modality)), None).model_dump_json())
    assert [written[key] for key in ("sentiment", "emotions", "top", "valence", "arousal")] == [None] * 5
    assert written["modalities"] == {
        m: {
            "present": False, "age_s": None, "weight": 0.0, "sentiment": None,
            "emotions": None, "influence": None, "late": False, "far": False, "unread": False,
        }
        for m in ("vision", "audio", "text")
    }  # fmt: skip
    assert set(written["graph"]["homo"].values()) == set(written["graph"]["hetero"].values()) == {0.0}
    assert written["latency_ms"]["inference"] is None


def test_what_was_perceived_once_keeps_its_age() -> None:
    estimate = build(cut_with(frozenset(), dict.fromkeys(Modality) | {Modality.VISION: 10.0}), None)
    assert estimate.modalities.vision.age_s == 2.5
    assert not estimate.modalities.vision.present


def test_times_and_names() -> None:
    estimate = build(cut_with(frozenset(), dict.fromkeys(Modality)), None)
    assert estimate.t == 1_700_000_012.75
    assert estimate.window == (1_700_000_007.75, 1_700_000_012.75)
    assert (estimate.v, estimate.stream, estimate.seq, estimate.faces) == (1, "hall", 41, 1)
    assert estimate.transcript == "what wonderful news"
    assert (estimate.dropped.video, estimate.dropped.audio) == (2, 0)
    assert estimate.model.model_dump() == {"name": "base", "checkpoint": "0123456789ab"}
    assert set(estimate.graph.homo) == {f"{e.source}->{e.target}" for e in EDGES}
    assert len(estimate.graph.homo) == 6


def test_latencies_are_null_where_time_is_the_media_s_own() -> None:
    cut = cut_with(frozenset(), dict.fromkeys(Modality))
    assert build(cut, None).latency_ms.capture_to_estimate == 61.23
    assert build(cut, None, timed=False).latency_ms.model_dump() == {"capture_to_estimate": None, "inference": None}


def test_the_names_of_the_schema_are_those_of_the_model() -> None:
    assert get_args(EmotionName) == EMOTIONS


def test_the_schema_in_the_documentation_is_the_one_of_the_code() -> None:
    """Otherwise: python -m realtime.messages.estimate > docs/estimate.schema.json."""
    assert json.loads(SCHEMA.read_text()) == Estimate.model_json_schema()
