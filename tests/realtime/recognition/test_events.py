"""What counts as having happened, and what is a flicker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import Dropped, Estimate, Graph, Latency, Modalities, ModalityEstimate, ModelName
from realtime.messages.stream import (
    EmotionChanged,
    FaceAppeared,
    FaceLeft,
    People,
    Person,
    PersonAppeared,
    PersonLeft,
    PersonSpeaks,
    SeveralSpeak,
    SpeechBegan,
    SpeechEnded,
)
from realtime.recognition.events import Debounced, Events, PeopleEvents

START_S = 1_700_000_000.0
HOP_S = 0.1


def seen(
    seq: int, top: Any = "neutral", *, faces: int = 0, voice_age_s: float | None = None, late: bool = False
) -> Estimate:
    """The estimate `seq` hops after the start. voice_age_s: of the newest voice; a second later it is absent."""
    present = voice_age_s is not None and voice_age_s <= 1.0
    absent = ModalityEstimate(present=False, age_s=None, weight=0.0, sentiment=None, late=late)
    voice = ModalityEstimate(
        present=present, age_s=voice_age_s, weight=0.0, sentiment=0.0 if present else None, late=late and not present
    )
    return Estimate.model_construct(
        seq=seq,
        t=round(START_S + seq * HOP_S, 4),
        emotions={name: 0.7 if name == top else 0.05 for name in EMOTIONS} if top else None,
        top=top,
        modalities=Modalities(vision=absent, audio=voice, text=absent),
        faces=faces,
        graph=Graph(homo={}, hetero={}),
        latency_ms=Latency(capture_to_estimate=None, inference=None),
        dropped=Dropped(video=0, audio=0),
        model=ModelName(name="base", checkpoint=""),
    )


def told(estimates: Iterable[Estimate]) -> list[tuple[float, Any]]:
    """(seconds after the start at which it was told, the event), `t` seconds after the start, too."""
    events = Events()
    happened = [(estimate.t, event) for estimate in estimates for event in events.take(estimate)]
    return [
        (round(t - START_S, 4), event.model_copy(update={"t": round(event.t - START_S, 4)})) for t, event in happened
    ]


def test_an_emotion_counts_once_it_has_stayed_on_top_for_a_second() -> None:
    happened = told(seen(i, "neutral" if i < 20 else "happy") for i in range(60))
    assert happened == [
        (1.0, EmotionChanged(t=0.0, emotion="neutral", before=None, probability=0.7)),
        (3.0, EmotionChanged(t=2.0, emotion="happy", before="neutral", probability=0.7)),
    ]


@pytest.mark.parametrize("period", [1, 3, 9])
def test_an_emotion_that_flickers_never_counts(period: int) -> None:
    happened = told(seen(i, "happy" if i >= 20 and i // period % 2 else "neutral") for i in range(300))
    assert [event.emotion for _, event in happened] == ["neutral"]


def test_an_interruption_begins_the_second_anew_and_a_return_tells_nothing() -> None:
    tops = ["neutral"] * 20 + ["happy"] * 9 + ["sad"] + ["happy"] * 9 + ["neutral"] * 30
    assert [event.emotion for _, event in told(seen(i, top) for i, top in enumerate(tops))] == ["neutral"]


def test_nothing_perceived_any_more_is_a_change_too() -> None:
    happened = told(seen(i, "sad" if i < 20 else None) for i in range(60))
    assert happened[-1] == (3.0, EmotionChanged(t=2.0, emotion=None, before="sad", probability=None))


def test_a_face_appears_and_leaves() -> None:
    happened = told(seen(i, None, faces=int(10 <= i < 40)) for i in range(80))
    assert happened == [(1.3, FaceAppeared(t=1.0)), (5.0, FaceLeft(t=4.0))]


def test_a_face_that_is_missed_for_a_moment_has_not_left_and_a_false_one_has_not_appeared() -> None:
    missed = [*range(30, 38), *range(50, 53)]
    assert [type(event) for _, event in told(seen(i, None, faces=int(i not in missed)) for i in range(80))] == [
        FaceAppeared
    ]
    assert not told(seen(i, None, faces=int(i % 10 < 3)) for i in range(100))


def test_speech_begins_and_ends_with_the_last_voice() -> None:
    # Heard until 4.0 s, absent in the estimates a second later.
    ages = [None] * 10 + [0.0] * 31 + [i * HOP_S for i in range(1, 40)]
    happened = told(seen(i, None, voice_age_s=age) for i, age in enumerate(ages))
    assert happened == [(1.2, SpeechBegan(t=1.0)), (5.6, SpeechEnded(t=4.0))]


def test_a_pause_between_words_does_not_end_speech_and_a_click_does_not_begin_it() -> None:
    ages = [0.0] * 20 + [i * HOP_S for i in range(15)] + [0.0] * 20
    assert [type(event) for _, event in told(seen(i, None, voice_age_s=age) for i, age in enumerate(ages))] == [
        SpeechBegan
    ]
    assert not told(seen(i, None, voice_age_s=0.0 if i % 10 < 2 else 1.1) for i in range(100))


def test_what_nobody_has_looked_at_has_neither_left_nor_ended() -> None:
    before = [seen(i, "happy", faces=1, voice_age_s=0.0) for i in range(20)]
    late = [seen(i, None, late=True) for i in range(20, 300)]
    assert len(told(before)) == 3
    assert told(before + late) == told(before)
    gone = [seen(i, None) for i in range(300, 330)]
    assert [event.event for _, event in told(before + late + gone)][3:] == ["speech_ended", "emotion", "face_left"]


def test_what_is_there_from_the_beginning_is_told_too() -> None:
    kinds = [event.event for _, event in told(seen(i, "happy", faces=1, voice_age_s=0.0) for i in range(20))]
    assert kinds == ["speech_began", "face_appeared", "emotion"]


def test_estimates_far_apart_need_no_more_than_two() -> None:
    """At a hop of five seconds the second one has held."""
    assert [event.emotion for _, event in told(seen(i * 50, "happy") for i in range(3))] == ["happy"]


def test_a_held_value_says_since_when() -> None:
    held = Debounced("a")
    assert [held.see(value, t, 1.0) for t, value in enumerate("abbbaabb")] == [
        None, None, 1.0, None, None, 4.0, None, 6.0,
    ]  # fmt: skip


def in_view(
    t: float, people: list[int], speaker: int | None = None, since: float | None = None, speech: Any = None
) -> People:
    there = tuple(Person(person=one, since=START_S + one, box=(0.0, 0.0, 0.1, 0.1)) for one in people)
    speech = speech or ("nobody" if since is None else "outside" if speaker is None else "person")
    return People(t=START_S + t, people=there, speech=speech, speaker=speaker, since=since)


def test_several_who_speak_at_once_are_told_once() -> None:
    events = PeopleEvents()
    events.take(in_view(2.0, [1, 2], 1, 1.5))
    assert events.take(in_view(3.0, [1, 2], None, 2.5, "overlap")) == [SeveralSpeak(t=2.5)]
    assert events.take(in_view(3.1, [1, 2], None, 2.5, "overlap")) == []
    assert events.take(in_view(4.0, [1, 2], 1, 3.5)) == [PersonSpeaks(t=3.5, person=1)]


def test_people_appear_speak_and_leave() -> None:
    events = PeopleEvents()
    assert events.take(in_view(2.0, [1, 2])) == [
        PersonAppeared(t=START_S + 1, person=1), PersonAppeared(t=START_S + 2, person=2)
    ]  # fmt: skip
    assert events.take(in_view(3.0, [1, 2], None, 2.5)) == []
    assert events.take(in_view(4.0, [1, 2], 2, 2.5)) == [PersonSpeaks(t=2.5, person=2)]
    assert events.take(in_view(5.0, [1, 2], 2, 2.5)) == []
    assert events.take(in_view(6.0, [1, 2], 2, 5.5)) == [PersonSpeaks(t=5.5, person=2)]
    assert events.take(in_view(7.0, [1, 3], 1, 6.5)) == [
        PersonAppeared(t=START_S + 3, person=3), PersonLeft(t=START_S + 7, person=2), PersonSpeaks(t=6.5, person=1)
    ]  # fmt: skip
