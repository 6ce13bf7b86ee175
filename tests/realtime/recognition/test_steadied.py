"""The published emotion: it changes by a margin, follows the average where one is asked for, and begins anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmd.labels import EMOTIONS
from realtime.recognition.engine import Inference, Sentiment
from realtime.recognition.steadied import Hysteresis, Steadied
from realtime.recognition.steadiness import Steadiness


def emotions(**probabilities: float) -> tuple[float, ...]:
    rest = (1 - sum(probabilities.values())) / (len(EMOTIONS) - len(probabilities))
    return tuple(probabilities.get(name, rest) for name in EMOTIONS)


def inference(**probabilities: float) -> Inference:
    nothing = (0.0,) * 6
    return Inference(Sentiment(0.0, -1.0, 1.0), emotions(**probabilities), {}, nothing, nothing, {}, 1.0)


distributions = st.lists(st.floats(0.01, 1), min_size=7, max_size=7).map(lambda w: tuple(x / sum(w) for x in w))


def test_another_emotion_takes_the_top_by_the_margin_and_not_before() -> None:
    hysteresis = Hysteresis(0.2)
    assert hysteresis.top(emotions(neutral=0.4, sad=0.3)) == "neutral"
    assert hysteresis.top(emotions(neutral=0.3, sad=0.49)) == "neutral"
    assert hysteresis.top(emotions(neutral=0.3, sad=0.51)) == "sad"
    # The way back takes the margin, too.
    assert hysteresis.top(emotions(neutral=0.45, sad=0.3)) == "sad"
    # A third one is measured against the one on top, not against the second.
    assert hysteresis.top(emotions(neutral=0.25, sad=0.2, angry=0.41)) == "angry"


def test_it_begins_anew_when_nothing_was_perceived() -> None:
    hysteresis = Hysteresis(0.5)
    assert hysteresis.top(emotions(happy=0.9)) == "happy"
    assert hysteresis.top(None) is None
    assert hysteresis.top(emotions(sad=0.3, happy=0.25)) == "sad"


@given(st.lists(distributions, max_size=30))
def test_without_a_margin_it_is_the_likeliest(sequence: list[tuple[float, ...]]) -> None:
    hysteresis = Hysteresis(0.0)
    for probabilities in sequence:
        top = hysteresis.top(probabilities)
        assert top is not None
        assert probabilities[EMOTIONS.index(top)] == max(probabilities)


@given(st.lists(distributions, max_size=30), st.floats(0, 1))
def test_nothing_ever_leads_the_top_by_more_than_the_margin(sequence: list[tuple[float, ...]], margin: float) -> None:
    hysteresis = Hysteresis(margin)
    for probabilities in sequence:
        top = hysteresis.top(probabilities)
        assert top is not None
        assert max(probabilities) - probabilities[EMOTIONS.index(top)] <= margin


def test_probabilities_are_left_as_they_are_and_the_top_follows_the_average() -> None:
    raw, averaged = Steadied(Steadiness(margin=0.2)), Steadied(Steadiness(smoothing_s=10.0, margin=0.2))
    happy, sad = inference(happy=0.9), inference(sad=0.9)
    for steadied in (raw, averaged):
        assert steadied.of(happy, 0.0) == (happy, "happy")
    assert raw.of(sad, 0.1) == (sad, "sad")
    shown, top = averaged.of(sad, 0.1)
    assert shown is not None
    assert top == "happy"
    assert shown.emotions[EMOTIONS.index("happy")] == pytest.approx(0.9, abs=0.02)
    assert replace(shown, emotions=sad.emotions, sentiment=sad.sentiment) == sad
    assert averaged.of(None, 0.2) == (None, None)
    assert averaged.of(sad, 0.3) == (sad, "sad")
