"""The published emotion: it changes by a margin, follows the average where one is asked for, and begins anew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import ExtraClasses, ExtraNumber
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


def seconds_until(hysteresis: Hysteresis, name: str, *, since_s: float, **probabilities: float) -> float:
    """Time after which these probabilities, ten a second, bring `name` to the top."""
    for tick in range(1, 200):
        if hysteresis.top(emotions(**probabilities), since_s + tick / 10) == name:
            return tick / 10
    raise AssertionError(f"{name} never came to the top")


def test_another_emotion_takes_the_top_once_it_has_led_by_the_margin_for_a_second() -> None:
    hysteresis = Hysteresis(0.19)
    assert hysteresis.top(emotions(neutral=0.4, sad=0.3), 0.0) == "neutral"
    assert seconds_until(hysteresis, "sad", since_s=0.0, neutral=0.3, sad=0.5) == 1.0
    # The way back takes as long, and a lead four times as large a quarter of it.
    assert seconds_until(hysteresis, "neutral", since_s=1.0, neutral=0.5, sad=0.3) == 1.0
    assert seconds_until(hysteresis, "angry", since_s=2.0, neutral=0.1, angry=0.9) == 0.3


def test_a_lead_that_is_lost_is_given_back() -> None:
    hysteresis = Hysteresis(0.19)
    hysteresis.top(emotions(neutral=0.5), 0.0)
    for tick in range(1, 100):
        now = {"neutral": 0.3, "sad": 0.5} if tick % 2 else {"neutral": 0.5, "sad": 0.3}
        assert hysteresis.top(emotions(**now), tick / 10) == "neutral"


def test_it_begins_anew_when_nothing_was_perceived() -> None:
    hysteresis = Hysteresis(0.5)
    assert hysteresis.top(emotions(happy=0.9), 0.0) == "happy"
    assert hysteresis.top(None, 0.1) is None
    assert hysteresis.top(emotions(sad=0.3, happy=0.25), 0.2) == "sad"


@given(st.lists(distributions, max_size=30), st.floats(0.02, 5))
def test_without_a_margin_it_is_the_likeliest(sequence: list[tuple[float, ...]], hop_s: float) -> None:
    hysteresis = Hysteresis(0.0)
    for tick, probabilities in enumerate(sequence):
        top = hysteresis.top(probabilities, tick * hop_s)
        assert top is not None
        assert probabilities[EMOTIONS.index(top)] == max(probabilities)


@given(st.lists(distributions, max_size=60), st.floats(0.01, 1))
def test_nothing_ever_leads_the_top_by_the_margin_for_a_second(
    sequence: list[tuple[float, ...]], margin: float
) -> None:
    hysteresis = Hysteresis(margin)
    before, led = None, [0.0] * len(EMOTIONS)
    for tick, probabilities in enumerate(sequence):
        top = hysteresis.top(probabilities, tick / 10)
        assert top is not None
        led = [0.0] * len(EMOTIONS) if top != before else led
        if top == before:
            led = [s + (p - probabilities[EMOTIONS.index(top)]) / 10 for s, p in zip(led, probabilities, strict=True)]
        assert max(led) <= margin + 1e-9
        before = top


def test_probabilities_are_left_as_they_are_and_the_top_follows_the_average() -> None:
    raw, averaged = Steadied(Steadiness(margin=0.05)), Steadied(Steadiness(smoothing_s=10.0, margin=0.05))
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


def test_heads_of_ones_own_are_averaged_like_all_else() -> None:
    def said(engaged: float, rating: float) -> Inference:
        mood = {"engaged": engaged, "bored": 1 - engaged}
        extra = {
            "mood": ExtraClasses(top=max(mood, key=lambda name: mood[name]), probabilities=mood),
            "rating": ExtraNumber(value=rating, low=rating - 1, high=rating + 1, range=(0, 10)),
        }
        return replace(inference(happy=0.5), extra=extra)

    steadied = Steadied(Steadiness(1.0, 0.0))
    steadied.of(said(1.0, 2.0), 0.0)
    shown, _ = steadied.of(said(0.0, 6.0), 0.1)
    assert shown is not None
    kept = math.exp(-0.1)
    mood, rating = shown.extra["mood"], shown.extra["rating"]
    assert isinstance(mood, ExtraClasses)
    assert isinstance(rating, ExtraNumber)
    assert mood.top == "engaged"
    assert mood.probabilities == pytest.approx({"engaged": kept, "bored": 1 - kept}, abs=1e-4)
    assert (rating.value, rating.low) == pytest.approx((2 * kept + 6 * (1 - kept), kept + 5 * (1 - kept)), abs=1e-4)
    steadied.of(None, 0.2)
    anew, _ = steadied.of(said(0.0, 6.0), 0.3)
    assert anew is not None
    assert anew.extra == said(0.0, 6.0).extra
