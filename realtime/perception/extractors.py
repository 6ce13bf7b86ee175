"""The extractors of one stream, loaded side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from dhmd.checkpoint import Checkpoint
from dhmd.contract import FeatureSpec
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import FaceExtractor
from dhmd.features.lips import LipNetwork
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor, encoder_of
from dhmd.features.voice import VoiceExtractor
from dhmd.features.voice_network import VoiceNetwork
from dhmd.modality import Modality
from realtime.perception.listening import BY_DEFAULT, Listening
from realtime.perception.transcript import StreamingTranscript

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamExtractors:
    """One extractor a modality, for one stream."""

    face: FaceExtractor
    voice: VoiceExtractor
    transcript: StreamingTranscript | None
    """None where no speech is recognised."""
    text: TextExtractor
    lips: LipNetwork | None = None
    """Where several people are followed: tells who of them speaks."""

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, listening: Listening | None = BY_DEFAULT, *, people: int = 1
    ) -> StreamExtractors:
        """Load side by side what the checkpoint asks for. Raises ContractMismatch when the features are others.

        listening: None recognises no speech. people: how many are followed at most.
        """
        path = {m: checkpoint.encoder(m) for m in Modality}
        encoder = encoder_of(checkpoint.features[Modality.TEXT])
        face = _started(lambda: FaceExtractor(ExpressionNet.load(path[Modality.VISION]), people=people))
        voice = _started(lambda: VoiceExtractor(VoiceNetwork.load(path[Modality.AUDIO])))
        speech = _started(lambda: SpeechModel(listening.speech, listening.language)) if listening else None
        languages = None if listening is not None and listening.untested_words else checkpoint.languages
        text = _started(lambda: TextExtractor(encoder, path[Modality.TEXT], languages))
        lips = _started(LipNetwork.load) if people > 1 else None
        try:
            loaded = cls(
                face.result(),
                voice.result(),
                None if speech is None else StreamingTranscript(speech.result()),
                text.result(),
                None if lips is None else lips.result(),
            )
            for modality, produced in loaded.specs.items():
                checkpoint.features[modality].require(produced)
        except BaseException:
            # Left to the garbage collector, MediaPipe's landmarker can wait for its own thread for ever.
            face.add_done_callback(_close)
            raise
        return loaded

    def another(self, *, people: int | None = None, words: bool = True) -> StreamExtractors:
        """Extractors for another stream, with the same models behind them.

        people: how many are followed at most, and no more than by these; None: as many. words: whether speech is
        recognised, where these do.
        """
        most = self.face.people if people is None else min(people, self.face.people)
        return StreamExtractors(
            FaceExtractor(self.face.expression, people=most),
            VoiceExtractor(self.voice.network),
            StreamingTranscript(self.transcript.speech) if words and self.transcript is not None else None,
            self.text,
            self.lips if most > 1 else None,
        )

    def close(self) -> None:
        self.face.close()

    @property
    def specs(self) -> dict[Modality, FeatureSpec]:
        return {spec.modality: spec for spec in (self.text.spec, self.face.spec, self.voice.spec)}


def loaded_beside(load: Callable[[], StreamExtractors], make: Callable[[], T]) -> tuple[StreamExtractors, T]:
    """Make something in this thread while extractors load in others. Raises what either raises; then no extractor is
    left open."""
    loading = _started(load)
    try:
        made = make()
    except BaseException:
        loading.add_done_callback(_close)
        raise
    return loading.result(), made


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


def _close(loaded: Future[FaceExtractor] | Future[StreamExtractors]) -> None:
    if loaded.exception() is None:
        loaded.result().close()
