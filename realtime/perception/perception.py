"""Perception of one stream: what is seen, heard and read becomes rows of its sliding window.

The three entrances (`see`, `hear`, `listen`) may run in three threads, each always in the same one. Observers may join
and leave from any thread while they do.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

import torch

from dhmd.contract import Rows, Word
from dhmd.features.face import FaceObservation
from dhmd.modality import Modality
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.perception.attention import Progress
from realtime.perception.awaited import AwaitedPicture
from realtime.perception.extractors import StreamExtractors
from realtime.perception.people import People, PeopleInView, PeopleObserver, PerceivedPerson
from realtime.perception.rates import FULL, Rates
from realtime.perception.speaking import Speakers
from realtime.perception.transcript import TranscriptUpdate
from realtime.perception.turns import Turns
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.perception.words import SpokenWords

logger = logging.getLogger(__name__)

LOOKING_NEW: Final = 0.1
"""Weight of the newest picture in the mean of the time that one takes."""


@dataclass(frozen=True, slots=True)
class Perceived:
    """The window at one moment, and what a person would want to know about it."""

    cut: WindowCut
    faces: int
    words: tuple[Word, ...]
    """Words that were spoken within the window, partial ones included."""
    people: tuple[PerceivedPerson, ...] = ()
    """Where several are followed: each with a window of their own."""
    view: PeopleInView | None = None
    """Where several are followed: who is in view, and who speaks."""


@runtime_checkable
class Observer(Protocol):
    """Somebody who is told what is perceived, in the thread that perceived it, and must not wait.

    revision: of the window once the rows, or those of the words, have entered it. No window that has them is cut before
    all are told.
    """

    def on_frame(self, frame: VideoFrame, /) -> None: ...
    def on_sound(self, block: AudioBlock, /) -> None: ...
    def on_face(self, observation: FaceObservation, /) -> None: ...
    def on_rows(self, modality: Modality, rows: Rows, revision: int, /) -> None: ...
    def on_words(self, update: TranscriptUpdate, revision: int, /) -> None: ...


class Perception:
    """Feeds one window from one stream. Rows enter it in the precision in which they are recorded.

    The window is the stream's: the subject's face, every voice and all words. Where the extractors follow several
    people, each has another, with their own voice and words alone.

    turns: taken by `hear` and `listen` when there is much to compute, and by who calls `see`; None: no other stream is
    perceived here. private: words are read by the model and told to nobody else. rates: how often pictures are looked
    at, and words recognised.
    """

    def __init__(
        self,
        extractors: StreamExtractors,
        device: torch.device,
        observers: Sequence[Observer] = (),
        turns: Turns | None = None,
        *,
        private: bool = False,
        rates: Rates = FULL,
    ) -> None:
        self.extractors = extractors
        self._rates = rates
        self._shares = {m: turns.share() for m in Modality} if turns else {}
        self.window = SlidingWindow(extractors.specs, device)
        self._observers = tuple(observers)
        self._entering = threading.Lock()
        self.picture = AwaitedPicture()
        self.progress = Progress()
        self._face: FaceObservation | None = None
        self._looking_s = 0.0
        """Time that a picture takes, in the mean."""
        self._private = private
        self._words = SpokenWords()
        self._entered = TranscriptUpdate((), (), 0.0)
        self._revision_of_words = 0
        self._unread_s = -math.inf
        """End of the newest speech of which nothing is read."""
        self._words_last_s = extractors.specs[Modality.TEXT].absent_after_s
        self._people = None
        if extractors.lips is not None:
            told, speakers = self._tell_of_people, Speakers(extractors.lips)
            self._people = People(
                extractors.specs, device, extractors.text, speakers, self._entering, told, private=private
            )

    def turn(self, modality: Modality) -> AbstractContextManager[None]:
        """Hold a turn while something of a modality is computed."""
        return self._shares[modality].turn() if self._shares else nullcontext()

    def see(self, frame: VideoFrame) -> None:
        """Look at a picture, or pass over one that is not due on the vision grid."""
        if not self.extractors.face.due(frame.captured_s, self._rates.pictures_hz):
            self.progress.looked(Modality.VISION, frame.captured_s)
            return
        with self.picture.looked_at(frame.captured_s):
            begun_s = time.monotonic()
            observation = self.extractors.face.push(frame.image, frame.captured_s)
            self._looking_s += LOOKING_NEW * (time.monotonic() - begun_s - self._looking_s)
            self._append(Modality.VISION, observation.rows)
            if self._people is not None:
                self._people.see(observation)
            self._face = observation
            self.progress.looked(Modality.VISION, frame.captured_s)
        for observer in self._observers:
            observer.on_frame(frame)
            observer.on_face(observation)

    def hear(self, block: AudioBlock, *, overtaken: bool = False) -> None:
        """Hear the voice in a block of sound; in one that is overtaken by newer sound, only whether there is any.

        Where several people are followed, the lips that make the sound are found here, too: no tick waits for them.
        """
        voice = self.extractors.voice
        with self.turn(Modality.AUDIO) if voice.due(len(block.samples)) and not overtaken else nullcontext():
            rows = voice.push(block.samples, block.captured_s, overtaken=overtaken)
        rows = self._append(Modality.AUDIO, rows)
        if self._people is not None:
            speakers = self._people.speakers
            with self.turn(Modality.AUDIO) if speakers.due(block) else nullcontext():
                listened = speakers.listen(block)
            self._people.hear(listened, rows)
        self.progress.looked(Modality.AUDIO, block.end_s)
        for observer in self._observers:
            observer.on_sound(block)

    def listen(self, blocks: list[AudioBlock]) -> None:
        """Recognise words, these blocks of sound being the newest."""
        if (transcript := self.extractors.transcript) is None:
            return
        for block in blocks:
            transcript.push(block)
        # What came before these blocks has been heard; they themselves are perhaps being heard in another thread.
        heard_s = blocks[0].captured_s if blocks else math.inf
        while transcript.due(self._rates.words_s):
            with self.turn(Modality.TEXT):
                if update := transcript.step(self._rates.words_s):
                    self._read(update, heard_s)
        if blocks:
            self.progress.looked(Modality.TEXT, blocks[-1].end_s)

    def finish(self) -> None:
        """Make final what was being said: the sound has ended."""
        if self.extractors.transcript is not None:
            self._read(self.extractors.transcript.finish(), math.inf)

    def join(self, observer: Observer, now_s: float) -> int:
        """Tell an observer what the window holds, and from now on all that is perceived.

        Told are the rows that a window can hold that ends at `now_s`, stream clock, or later, and the words of twice
        its length: those in it are encoded with the words before them. Returns the revision of the window from which
        on the observer knows all of it.
        """
        window_s = self.window.window_s
        with self._entering:
            revision = self.window.revision
            for modality in (Modality.VISION, Modality.AUDIO):
                if len(rows := self.window.since(modality, now_s - window_s)):
                    observer.on_rows(modality, rows, revision)
            final, partial = (
                tuple(word for word in words if word.end_s > now_s - 2 * window_s)
                for words in (self._entered.final, self._entered.partial)
            )
            if final or partial:
                observer.on_words(replace(self._entered, final=final, partial=partial), self._revision_of_words)
            if self._people is not None and isinstance(observer, PeopleObserver):
                self._people.join(observer, now_s)
            self._observers = (*self._observers, observer)
            return revision

    def leave(self, observer: Observer) -> None:
        """Tell an observer nothing more; what is being told in another thread may still reach it."""
        with self._entering:
            self._observers = tuple(one for one in self._observers if one is not observer)

    def perceive(self, end_s: float) -> Perceived:
        """The window that ends at `end_s`, from what has arrived by now and the picture that is being looked at."""
        self.picture.wait(end_s)
        attention, face = self.progress.at(end_s), self._face
        oldest_s = attention.as_of_s.get(Modality.VISION, end_s) - self.extractors.face.spec.absent_after_s
        if face is not None and face.captured_s < oldest_s:
            face = None
        if face is not None and face.too_far:
            attention = replace(attention, far=True)
        if face is not None and face.covered:
            attention = replace(attention, covered=True)
        unread_s = end_s - self._words_last_s
        attention = replace(attention, unread=unread_s < self._unread_s <= end_s, language=self._entered.language)
        with self._entering:
            cut = self.window.cut(end_s, attention)
        words = () if self._private else self._words.within(cut.start_s, end_s)
        faces = 0 if face is None else face.faces
        if self._people is None:
            return Perceived(cut, faces, words)
        people, view = self._people.at(end_s, attention, self._words)
        view = replace(view, faces_hz=min(self._rates.pictures_hz, 1 / max(self._looking_s, 1e-3)))
        return Perceived(cut, faces, words, people, view)

    @property
    def words(self) -> tuple[Word, ...]:
        """The newest words of the session, oldest first; none where they are private."""
        return () if self._private else self._words.all

    def _append(self, modality: Modality, rows: Rows) -> Rows:
        """Let rows enter the window; returns them as they did."""
        if len(rows):
            rows = rows.halved()
            with self._entering:
                revision = self.window.append(modality, rows)
                for observer in self._observers:
                    observer.on_rows(modality, rows, revision)
        return rows

    def _tell_of_people(self, tell: Callable[[PeopleObserver], None]) -> None:
        for observer in self._observers:
            if isinstance(observer, PeopleObserver):
                tell(observer)

    def _read(self, update: TranscriptUpdate, heard_s: float) -> None:
        """heard_s: up to where it counts whether several spoke."""
        if self._people is not None:
            final, partial = (self._people.who_said(words) for words in (update.final, update.partial))
        else:
            overlaps = self.extractors.voice.overlaps
            final, partial = (
                tuple(replace(word, overlapped=overlaps.during(word.start_s, word.end_s, heard_s)) for word in words)
                for words in (update.final, update.partial)
            )
        update = replace(update, final=final, partial=partial)
        words = self._words.update(update.final, update.partial, self.window.window_s)
        if update.skipped_s > self._entered.skipped_s:
            logger.warning("words fell behind the speech: %.1f s of it left out so far", update.skipped_s)
        text = self.extractors.text
        # Words that are withdrawn before any is final leave the window, too.
        rows = text.extract(words) if words else Rows.empty(text.spec.width)
        spoken = self._words.since(words[-1].end_s - 2 * self.window.window_s) if words else ((), ())
        missed_s = -math.inf if update.missed_s is None else update.missed_s
        self._unread_s = max([missed_s, *(word.end_s for word in words if not text.reads(word))])
        with self._entering:
            self._revision_of_words = self.window.replace(Modality.TEXT, rows)
            final, partial = ((), ()) if self._private else spoken
            self._entered = replace(update, final=final, partial=partial)
            for observer in () if self._private else self._observers:
                observer.on_words(update, self._revision_of_words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.extractors.face.close()
