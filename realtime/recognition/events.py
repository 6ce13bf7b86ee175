"""Events of a stream, each told once: an emotion that stays, a face that comes or goes, speech that begins or ends.

Pure state machines on the estimates' own clock; a value counts once it has held, so that nothing flickers. What nobody
has looked at yet, because the machine is behind, changes nothing.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from realtime.messages.estimate import Estimate
from realtime.messages.stream import (
    AnyEvent,
    EmotionChanged,
    FaceAppeared,
    FaceLeft,
    People,
    PersonAppeared,
    PersonLeft,
    PersonSpeaks,
    SeveralSpeak,
    SpeechBegan,
    SpeechEnded,
)

T = TypeVar("T")

EMOTION_HELD_S: Final = 1.0
FACE_APPEARED_S: Final = 0.3
FACE_LEFT_S: Final = 1.0
SPEECH_BEGAN_S: Final = 0.2
SPEECH_ENDED_S: Final = 0.5
"""Time on top of the second without voice after which an estimate calls the voice absent."""


ROUNDING_S: Final = 1e-3


class Debounced(Generic[T]):
    """A value that changes only once another has been seen without interruption for a while."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._seen = value
        self._since_s = 0.0

    def see(self, value: T, now_s: float, hold_s: float) -> float | None:
        """Take in what is seen now; gives since when the new value was seen if it counts from now on, else None."""
        if value != self._seen:
            self._seen, self._since_s = value, now_s
        if self._seen == self.value or now_s - self._since_s < hold_s - ROUNDING_S:
            return None
        self.value = self._seen
        return self._since_s


class Events:
    """Turns estimates of one stream, in their order, into events."""

    def __init__(self) -> None:
        self._emotion: Debounced[str | None] = Debounced(None)
        self._face = Debounced(False)
        self._speech = Debounced(False)
        self._voice_s = 0.0

    @property
    def face(self) -> bool:
        """Whether a face is there."""
        return self._face.value

    @property
    def speech(self) -> bool:
        """Whether somebody speaks."""
        return self._speech.value

    def take(self, estimate: Estimate) -> list[AnyEvent]:
        """Take in an estimate; returns the events that it completes, mostly none."""
        happened: list[AnyEvent] = []
        now_s, top = estimate.t, estimate.top
        before = self._emotion.value
        face, voice, words = (getattr(estimate.modalities, m) for m in ("vision", "audio", "text"))
        known = top is not None or not (face.late or voice.late or words.late)
        if known and (since_s := self._emotion.see(top, now_s, EMOTION_HELD_S)) is not None:
            probability = estimate.emotions[top] if estimate.emotions and top else None
            happened.append(EmotionChanged(t=since_s, emotion=top, before=before, probability=probability))
        there = estimate.faces > 0
        if (
            not face.late
            and (since_s := self._face.see(there, now_s, FACE_APPEARED_S if there else FACE_LEFT_S)) is not None
        ):
            happened.append(FaceAppeared(t=since_s) if there else FaceLeft(t=since_s))
        if voice.present and voice.age_s is not None:
            self._voice_s = round(now_s - voice.age_s, 4)
        held_s = SPEECH_BEGAN_S if voice.present else SPEECH_ENDED_S
        if not voice.late and (since_s := self._speech.see(voice.present, now_s, held_s)) is not None:
            # It ended with the last voice that was heard, long before it was sure to have ended.
            happened.append(SpeechBegan(t=since_s) if voice.present else SpeechEnded(t=self._voice_s))
        return happened


class PeopleEvents:
    """Turns who is in view and who speaks, as it changes, into events."""

    def __init__(self) -> None:
        self._here: frozenset[int] = frozenset()
        self._speaking: tuple[str, int | None, float | None] = ("nobody", None, None)

    def take(self, people: People) -> list[AnyEvent]:
        """Take in what is told of people now; returns what has happened since."""
        here = {one.person: one.since for one in people.people}
        happened: list[AnyEvent] = [
            PersonAppeared(t=since, person=person) for person, since in here.items() if person not in self._here
        ]
        happened += [PersonLeft(t=people.t, person=person) for person in sorted(self._here - here.keys())]
        speaking = people.speech, people.speaker, people.since
        if people.since is not None and speaking != self._speaking:
            if people.speaker is not None:
                happened.append(PersonSpeaks(t=people.since, person=people.speaker))
            elif people.speech == "overlap":
                happened.append(SeveralSpeak(t=people.since))
        self._here, self._speaking = frozenset(here), speaking
        return happened
