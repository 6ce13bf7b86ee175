"""Perception: one stream's extractors and its sliding window. What is seen, heard and read becomes rows.

The three entrances (`see`, `hear`, `listen`) may run in three threads, each always in the same one. Observers may join
and leave from any thread while they do.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

import torch

from dhmd.checkpoint import Checkpoint, encoder_path
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import FaceExtractor, FaceObservation
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor
from dhmd.features.voice import VoiceExtractor
from dhmd.features.voice_network import VoiceNetwork
from dhmd.modality import Modality
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.perception.transcript import StreamingTranscript, TranscriptUpdate
from realtime.perception.turns import Turns
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.perception.words import SpokenWords

logger = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_S = 0.04
"""How long an estimate waits for a picture that is being looked at."""


@dataclass(frozen=True, slots=True)
class Extractors:
    """One extractor a modality, for one stream."""

    face: FaceExtractor
    voice: VoiceExtractor
    transcript: StreamingTranscript
    text: TextExtractor

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Extractors:
        """Load side by side what the checkpoint asks for. Raises ContractMismatch when the features are others."""
        path = {m: encoder_path(checkpoint.folder, m) for m in Modality}
        face = _started(lambda: FaceExtractor(ExpressionNet.load(path[Modality.VISION])))
        voice = _started(lambda: VoiceExtractor(VoiceNetwork.load(path[Modality.AUDIO])))
        speech = _started(SpeechModel)
        text = _started(lambda: TextExtractor(adapter=path[Modality.TEXT]))
        try:
            loaded = cls(face.result(), voice.result(), StreamingTranscript(speech.result()), text.result())
            for modality, produced in loaded.specs.items():
                checkpoint.features[modality].require(produced)
        except BaseException:
            # Left to the garbage collector, MediaPipe's landmarker can wait for its own thread for ever.
            face.add_done_callback(_close)
            raise
        return loaded

    def another(self) -> Extractors:
        """Extractors for another stream, with the same models behind them."""
        return Extractors(
            FaceExtractor(self.face.expression),
            VoiceExtractor(self.voice.network),
            StreamingTranscript(self.transcript.speech),
            self.text,
        )

    @property
    def specs(self) -> dict[Modality, FeatureSpec]:
        return {spec.modality: spec for spec in (self.text.spec, self.face.spec, self.voice.spec)}


def _started(load: Callable[[], T]) -> Future[T]:
    """The result of `load`, run in a daemon thread: an interrupt while models load does not wait for them."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(load())
        except BaseException as error:  # noqa: BLE001 - handed over whole
            future.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return future


def _close(loaded: Future[FaceExtractor]) -> None:
    if loaded.exception() is None:
        loaded.result().close()


@dataclass(frozen=True, slots=True)
class Perceived:
    """The window at one moment, and what a person would want to know about it."""

    cut: WindowCut
    faces: int
    words: tuple[Word, ...]
    """Words that were spoken within the window, partial ones included."""


@runtime_checkable
class Observer(Protocol):
    """Is told what is perceived, in the thread that perceived it; it must not wait.

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

    turns: taken by `hear` and `listen` when there is much to compute, and by who calls `see`; None: no other stream is
    perceived here.
    """

    def __init__(
        self,
        extractors: Extractors,
        device: torch.device,
        observers: Sequence[Observer] = (),
        turns: Turns | None = None,
    ) -> None:
        self.extractors = extractors
        self._shares = {m: turns.share() for m in Modality} if turns else {}
        self.window = SlidingWindow(extractors.specs, device)
        self._observers = tuple(observers)
        self._entering = threading.Lock()
        self._looking_at_s = self._looking_since = -math.inf
        self._looked = threading.Event()
        self._looked.set()
        self._face: FaceObservation | None = None
        self._words = SpokenWords()
        self._entered = TranscriptUpdate((), (), 0.0)
        self._revision_of_words = 0
        self._skipped_s = 0.0

    def turn(self, modality: Modality) -> AbstractContextManager[None]:
        """To be held while something of a modality is computed."""
        return self._shares[modality].turn() if self._shares else nullcontext()

    def see(self, frame: VideoFrame) -> None:
        """A picture; those that are not due on the vision grid are passed over."""
        if not self.extractors.face.due(frame.captured_s):
            return
        self._looking_at_s, self._looking_since = frame.captured_s, time.monotonic()
        self._looked.clear()
        try:
            observation = self.extractors.face.push(frame.image, frame.captured_s)
            self._append(Modality.VISION, observation.rows)
            self._face = observation
        finally:
            self._looked.set()
        for observer in self._observers:
            observer.on_frame(frame)
            observer.on_face(observation)

    @property
    def looking_for_s(self) -> float:
        """Seconds since a picture was taken up last; infinite before the first."""
        return time.monotonic() - self._looking_since

    def hear(self, block: AudioBlock) -> None:
        """Sound, for the voice."""
        voice = self.extractors.voice
        with self.turn(Modality.AUDIO) if voice.due(len(block.samples)) else nullcontext():
            rows = voice.push(block.samples, block.captured_s)
        self._append(Modality.AUDIO, rows)
        for observer in self._observers:
            observer.on_sound(block)

    def listen(self, blocks: list[AudioBlock]) -> None:
        """Sound, for the words."""
        for block in blocks:
            self.extractors.transcript.push(block)
        while self.extractors.transcript.due():
            with self.turn(Modality.TEXT):
                if update := self.extractors.transcript.step():
                    self._read(update)

    def finish(self) -> None:
        """The sound has ended: what was being said is final now."""
        self._read(self.extractors.transcript.finish())

    def join(self, observer: Observer, now_s: float) -> int:
        """Tell an observer what the window holds, and from now on all that is perceived.

        Told are the rows that a window can hold that ends at `now_s`, session clock, or later, and the words of twice
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
                observer.on_words(TranscriptUpdate(final, partial, self._entered.skipped_s), self._revision_of_words)
            self._observers = (*self._observers, observer)
            return revision

    def leave(self, observer: Observer) -> None:
        """Tell an observer nothing more; what is being told in another thread may still reach it."""
        with self._entering:
            self._observers = tuple(one for one in self._observers if one is not observer)

    def perceive(self, end_s: float) -> Perceived:
        """The window that ends at `end_s`, from what has arrived by now.

        A picture that is being looked at is waited for, if not for long: a moment later it is in, and the estimate a
        whole picture newer.
        """
        if self._looking_at_s <= end_s:
            self._looked.wait(PATIENCE_S)
        with self._entering:
            cut = self.window.cut(end_s)
        face = self._face
        words = self._words.within(cut.start_s, end_s)
        fresh_s = self.extractors.face.spec.absent_after_s
        faces = face.faces if face is not None and end_s - face.captured_s <= fresh_s else 0
        return Perceived(cut, faces, words)

    @property
    def words(self) -> tuple[Word, ...]:
        """The newest words of the session, oldest first."""
        return self._words.all

    def _append(self, modality: Modality, rows: Rows) -> None:
        if len(rows):
            rows = rows.halved()
            with self._entering:
                revision = self.window.append(modality, rows)
                for observer in self._observers:
                    observer.on_rows(modality, rows, revision)

    def _read(self, update: TranscriptUpdate) -> None:
        words = self._words.update(update.final, update.partial, self.window.window_s)
        if update.skipped_s > self._skipped_s:
            self._skipped_s = update.skipped_s
            logger.warning("words fell behind the speech: %.1f s of it left out so far", self._skipped_s)
        text = self.extractors.text
        # Words that are withdrawn before any is final leave the window, too.
        rows = text.extract(words) if words else Rows.empty(text.spec.width)
        spoken = self._words.since(words[-1].end_s - 2 * self.window.window_s) if words else ((), ())
        with self._entering:
            self._revision_of_words = self.window.replace(Modality.TEXT, rows)
            self._entered = TranscriptUpdate(*spoken, update.skipped_s)
            for observer in self._observers:
                observer.on_words(update, self._revision_of_words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.extractors.face.close()
