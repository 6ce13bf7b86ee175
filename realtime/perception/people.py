"""The people of one stream: each has a face of their own, and a window; voice and words are those of whoever speaks.

Who speaks is often known only a moment later. At each tick the rows of the voice, and the words, of the last seconds
are given to whoever is known to have spoken then, from the beginning of the turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable

import torch

from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.features.face import FaceObservation
from dhmd.features.text import TextExtractor
from dhmd.features.tracks import HANDOVER_S, Box
from dhmd.modality import Modality
from realtime.messages.estimate import Silence
from realtime.messages.stream import Speech
from realtime.perception.attention import Attention
from realtime.perception.speaking import Listened, Mouth, Speakers, Turn, mouth_of
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.perception.words import SpokenWords

PENDING: Final = 512
"""Pictures, and blocks of sound, that wait for a tick, at most."""
LEAD_S, TAIL_S = 0.15, 0.4
"""Voice and words that begin so long before a turn, or end so long after it, still belong to it."""
FORGOTTEN_S: Final = 0.5
"""Pictures that stay away so long after a track would have ended: the camera is off, and nobody is in view."""


@dataclass(frozen=True, slots=True)
class PersonInView:
    """box: as fractions of the picture. since_s: stream clock."""

    person: int
    since_s: float
    box: Box


@dataclass(frozen=True, slots=True)
class PeopleInView:
    """Who is in view at one moment, by number, and who speaks.

    turn: the one under way; None while nobody speaks. faces_hz: how often the machine can look at all of them.
    """

    at_s: float
    people: tuple[PersonInView, ...]
    turn: Turn | None = None
    faces_hz: float = 0.0

    @property
    def speaker(self) -> int | None:
        """The person who speaks; None where nobody does, nobody in view, or several at once."""
        return None if self.turn is None or self.turn.overlapped else self.turn.person

    @property
    def speech(self) -> Speech:
        """Whose speech it is."""
        if self.turn is None:
            return "nobody"
        if self.turn.overlapped:
            return "overlap"
        return "outside" if self.turn.person is None else "person"


@dataclass(frozen=True, slots=True)
class PerceivedPerson:
    """One person's window, and its cut at one moment. words: that they said within it.

    silent: why there is no voice of theirs: nobody speaks (quiet), another does, somebody outside the picture does, or
    several at once (overlap); None while they speak.
    """

    person: int
    window: SlidingWindow
    cut: WindowCut
    words: tuple[Word, ...]
    silent: Silence | None


@runtime_checkable
class PeopleObserver(Protocol):
    """Somebody who is told what enters the window of each person, before a window that has it is cut.

    revision: of that person's window. on_person_rows: `replaces` all rows of the modality, or comes after them.
    on_person_words: all that stand in the window. on_turns: those of the last seconds, when they change.
    """

    def on_person_rows(self, person: int, modality: Modality, rows: Rows, revision: int, replaces: bool, /) -> None: ...
    def on_person_words(self, person: int, words: Sequence[Word], revision: int, /) -> None: ...
    def on_turns(self, turns: Sequence[Turn], /) -> None: ...


@dataclass(slots=True)
class _Person:
    window: SlidingWindow
    since_s: float
    seen_s: float
    box: Box
    too_far: bool = False
    covered: bool = False
    voiced_s: tuple[float, ...] = ()
    """Times of the rows of the voice in the window, as far as they can still be cut."""
    words: tuple[Word, ...] = ()
    revision_of_words: int = 0


class People:
    """Persons of one stream, with a window each. `see` and `hear` may run in two threads, `at` in a third.

    entering: held while rows enter windows and observers are told. tell: calls a function for each observer. private:
    words enter windows, and are told to nobody.
    """

    def __init__(
        self,
        specs: Mapping[Modality, FeatureSpec],
        device: torch.device,
        text: TextExtractor,
        speakers: Speakers,
        entering: threading.Lock,
        tell: Callable[[Callable[[PeopleObserver], None]], None],
        *,
        private: bool = False,
    ) -> None:
        self._private = private
        self._specs = specs
        self._device = device
        self._text = text
        self._tell = tell
        self.speakers = speakers
        self._lock = entering
        self._persons: dict[int, _Person] = {}
        self._mouths: deque[tuple[float, Mapping[int, Mouth]]] = deque(maxlen=PENDING)
        self._sound: deque[Listened] = deque(maxlen=PENDING)
        self._voice: deque[tuple[float, Rows]] = deque()
        """Rows of the voice of the last seconds, one each, whoever spoke."""
        self._turns: tuple[Turn, ...] = ()
        self._window_s = max(spec.window_s for spec in specs.values())

    def see(self, observation: FaceObservation) -> None:
        """Take in who is seen."""
        captured_s = observation.captured_s
        with self._lock:
            self._mouths.append((captured_s, {one.person: mouth_of(one.landmarks) for one in observation.people}))
            for gone in self._persons.keys() - set(observation.tracked):
                del self._persons[gone]
            for one in observation.people:
                person = self._persons.get(one.person)
                if person is None:
                    window = SlidingWindow(self._specs, self._device)
                    person = self._persons[one.person] = _Person(window, captured_s, captured_s, one.box)
                person.seen_s, person.box = captured_s, one.box
                person.too_far, person.covered = one.too_far, one.covered
                if len(one.rows):
                    self._enter(one.person, person, Modality.VISION, one.rows.halved(), replaces=False)

    def hear(self, listened: Listened, rows: Rows) -> None:
        """Take in sound, and what became of it. rows: in half precision."""
        block = listened.block
        with self._lock:
            self._sound.append(listened)
            self._voice += (
                (float(t_s), Rows(rows.times_s[i : i + 1], rows.values[i : i + 1]))
                for i, t_s in enumerate(rows.times_s)
            )
            while self._voice and self._voice[0][0] < block.end_s - 2 * self._window_s:
                self._voice.popleft()

    def who_said(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """Return words with who said them, as far as it is known."""
        turns = self._turns
        return tuple(_said(word, _turn_of(turns, word.start_s, word.end_s)) for word in words)

    def at(
        self, end_s: float, attention: Attention, words: SpokenWords
    ) -> tuple[tuple[PerceivedPerson, ...], PeopleInView]:
        """Return the window of each person that ends at `end_s`, and who is in view then."""
        self._find_speakers(end_s)
        final, partial = words.since(end_s - 2 * self._window_s)
        spoken = (*final, *partial)
        judged_s = attention.as_of_s.get(Modality.VISION, end_s)
        heard = next((one for one in reversed(self._turns) if one.start_s <= end_s), None)
        if heard is not None and end_s - heard.end_s > self._specs[Modality.AUDIO].absent_after_s:
            heard = None
        with self._lock:
            here = {
                number: person
                for number, person in self._persons.items()
                if Modality.VISION in attention.late or judged_s - person.seen_s < HANDOVER_S + FORGOTTEN_S
            }
        perceived = []
        for number, person in here.items():
            self._give_words(number, person, spoken)
            with self._lock:
                self._give_voice(number, person, end_s)
                cut = person.window.cut(end_s, replace(attention, far=person.too_far, covered=person.covered))
            said = tuple(w for w in person.words if w.end_s > cut.start_s and w.start_s < end_s)
            silent = None if Modality.AUDIO in cut.present else _why(heard, number)
            perceived.append(PerceivedPerson(number, person.window, cut, () if self._private else said, silent))
        view = tuple(PersonInView(number, person.since_s, person.box) for number, person in here.items())
        return tuple(perceived), PeopleInView(end_s, view, turn_at(self._turns, end_s))

    def join(self, observer: PeopleObserver, now_s: float) -> None:
        """Tell an observer what the windows hold. To be called while nothing can enter them."""
        for number, person in self._persons.items():
            revision = person.window.revision
            for modality in (Modality.VISION, Modality.AUDIO):
                if len(rows := person.window.since(modality, now_s - self._window_s)):
                    observer.on_person_rows(number, modality, rows, revision, False)
            if person.words and not self._private:
                observer.on_person_words(number, person.words, person.revision_of_words)
        if self._turns:
            observer.on_turns(self._turns)

    def _find_speakers(self, end_s: float) -> None:
        """Hand all that was seen and heard to whoever finds the speakers, in the order of its capture."""
        with self._lock:
            mouths, sound = list(self._mouths), list(self._sound)
            self._mouths.clear()
            self._sound.clear()
        happened = [(t_s, 0, t_s, seen) for t_s, seen in mouths] + [(one.block.end_s, 1, 0.0, one) for one in sound]
        for _, _, t_s, what in sorted(happened, key=lambda one: one[:2]):
            if isinstance(what, Listened):
                self.speakers.hear(what)
            else:
                self.speakers.see(t_s, what)
        turns = tuple(self.speakers.turns(end_s - 2 * self._window_s))
        if turns != self._turns:
            with self._lock:
                self._turns = turns
                self._tell(lambda observer: observer.on_turns(turns))

    def _give_voice(self, number: int, person: _Person, end_s: float) -> None:
        """Let the rows of the voice enter the window of who spoke them, or leave it again."""
        oldest_s, width = end_s - self._window_s, self._specs[Modality.AUDIO].width
        own = [
            (t_s, rows)
            for t_s, rows in self._voice
            if oldest_s < t_s <= end_s and _speaks(_turn_of(self._turns, t_s, t_s), number)
        ]
        wanted = tuple(t_s for t_s, _ in own)
        there = tuple(t_s for t_s in person.voiced_s if t_s > oldest_s)
        if wanted == there:
            return
        replaces = wanted[: len(there)] != there
        new = own if replaces else own[len(there) :]
        rows = Rows.concatenate([rows for _, rows in new], width)
        self._enter(number, person, Modality.AUDIO, rows, replaces=replaces)
        person.voiced_s = wanted

    def _give_words(self, number: int, person: _Person, spoken: Sequence[Word]) -> None:
        """Let the words enter the window of who said them."""
        said_by = [_said(word, _turn_of(self._turns, word.start_s, word.end_s)) for word in spoken]
        own = [word for word in said_by if word.person == number]
        said = tuple(w for w in own if w.end_s > own[-1].end_s - self._window_s)
        if said == person.words:
            return
        rows = self._text.extract(list(said)) if said else Rows.empty(self._text.spec.width)
        with self._lock:
            person.words = said
            revision = person.revision_of_words = person.window.replace(Modality.TEXT, rows)
            if not self._private:
                self._tell(lambda observer: observer.on_person_words(number, said, revision))

    def _enter(self, number: int, person: _Person, modality: Modality, rows: Rows, *, replaces: bool) -> None:
        put = person.window.replace if replaces else person.window.append
        revision = put(modality, rows)
        self._tell(lambda observer: observer.on_person_rows(number, modality, rows, revision, replaces))


def turn_at(turns: Sequence[Turn], at_s: float) -> Turn | None:
    """Return the turn that is under way at a moment, if one is."""
    return next((turn for turn in reversed(turns) if turn.start_s <= at_s <= turn.end_s + TAIL_S), None)


def _turn_of(turns: Sequence[Turn], start_s: float, end_s: float) -> Turn | None:
    """Whose turn it was from one moment to another: for most of it, or for the moment nearest to it."""

    def shared_s(turn: Turn) -> float:
        return min(turn.end_s, end_s) - max(turn.start_s, start_s)

    near = [turn for turn in turns if turn.start_s - LEAD_S <= end_s and start_s <= turn.end_s + TAIL_S]
    return max(near, key=shared_s, default=None)


def _speaks(turn: Turn | None, number: int) -> bool:
    """Whether the voice of a turn is one person's alone."""
    return turn is not None and turn.person == number and not turn.overlapped


def _said(word: Word, turn: Turn | None) -> Word:
    """A word with who said it; where several spoke at once, whose lips agree best: the loudest."""
    return word if turn is None else replace(word, person=turn.person, overlapped=turn.overlapped)


def _why(heard: Turn | None, number: int) -> Silence | None:
    """Why a person has no voice. heard: the newest turn, if it is new enough to be heard."""
    if heard is None:
        return "quiet"
    if heard.overlapped:
        return "overlap"
    if heard.person is None:
        return "outside"
    return "another" if heard.person != number else "quiet"
