"""What perception makes of the transcript: the words of a window, and a plain word when recognition falls behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.checkpoint import load
from dhmd.contract import Rows
from dhmd.features.face import FaceObservation
from dhmd.features.lips import LipNetwork
from dhmd.features.several import SEVERAL, SPAN_S, Overlaps
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame
from realtime.messages.estimate import Dropped, ModelName
from realtime.perception.awaited import AwaitedPicture
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.perception.transcript import StreamingTranscript, TranscriptUpdate
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import COVERED_TEMPERATURE, Engine
from realtime.terminal.view import nothing_perceived

BLOCK = 1600


@pytest.fixture
def perception(speech: SpeechModel) -> Perception:
    """Perception of words alone: with the real transcript and text encoder, without a camera's extractor."""
    parts: Any = SimpleNamespace(
        specs=load("base").features,
        transcript=StreamingTranscript(speech),
        voice=SimpleNamespace(overlaps=Overlaps()),
        text=TextExtractor(),
        face=SimpleNamespace(spec=load("base").features[Modality.VISION]),
        lips=None,
    )
    return Perception(cast("StreamExtractors", parts), torch.device("cpu"))


def blocks(sound: NDArray[np.float32]) -> list[AudioBlock]:
    return [
        AudioBlock(sound[i : i + BLOCK], i / SAMPLE_RATE_HZ, i / SAMPLE_RATE_HZ) for i in range(0, len(sound), BLOCK)
    ]


def test_speech_that_is_left_out_is_told_and_counted(
    perception: Perception, say: Callable[[str], NDArray[np.float32]], caplog: pytest.LogCaptureFixture
) -> None:
    updates: list[TranscriptUpdate] = []
    observer: Any = SimpleNamespace(on_words=lambda update, _: updates.append(update))
    perception.join(observer, 0.0)
    sound = np.concatenate([say("the cat sat on the mat and looked out of the window for a while")] * 8)
    perception.listen(blocks(sound))
    told = [record.getMessage() for record in caplog.records if "left out so far" in record.getMessage()]
    skipped_s = updates[-1].skipped_s
    assert skipped_s > 1.0
    assert told == [f"words fell behind the speech: {skipped_s:.1f} s of it left out so far"]


def test_a_window_holds_the_words_spoken_in_it_and_the_session_all(
    perception: Perception, say: Callable[[str], NDArray[np.float32]]
) -> None:
    pause = np.zeros(3 * SAMPLE_RATE_HZ, np.float32)
    sound = np.concatenate([say("good morning everybody"), pause, say("we won the prize"), pause])
    for block in blocks(sound):
        perception.listen([block])
    perception.finish()
    end_s = perception.words[-1].end_s + 0.1
    spoken = " ".join(word.text.lower().strip(".,!") for word in perception.perceive(end_s).words)
    everything = " ".join(word.text.lower().strip(".,!") for word in perception.words)
    assert "we won the prize" in spoken
    assert "good" not in spoken
    assert "good morning everybody" in everything
    assert Modality.TEXT in perception.perceive(end_s).cut.present


def test_words_that_are_said_while_several_speak_are_marked(
    perception: Perception, say: Callable[[str], NDArray[np.float32]]
) -> None:
    pause = np.zeros(2 * SAMPLE_RATE_HZ, np.float32)
    first, second = say("good morning everybody"), say("we won the prize")
    ends_s = len(first) / SAMPLE_RATE_HZ
    overlaps: Any = perception.extractors.voice.overlaps
    for number in range(1, 40):
        end_s = 0.32 * number
        overlaps.add(end_s, SEVERAL + (1 if end_s < ends_s + SPAN_S else -1))
    for block in blocks(np.concatenate([first, pause, second, pause])):
        perception.listen([block])
    perception.finish()
    assert [word.overlapped for word in perception.words] == [True] * 3 + [False] * 4


def test_what_is_heard_beside_the_words_does_not_mark_them_by_chance() -> None:
    """Of a file both are heard at once, in two threads; what counts was heard before."""
    overlaps = Overlaps()
    overlaps.add(1.6, SEVERAL - 1)
    overlaps.add(1.92, SEVERAL + 3)
    assert overlaps.during(1.0, 1.4)
    assert not overlaps.during(1.0, 1.4, heard_s=1.9)
    assert not overlaps.during(5.0, 5.4)


def test_private_words_are_told_to_nobody_who_joins_either(
    perception: Perception, say: Callable[[str], NDArray[np.float32]]
) -> None:
    perception._private = True
    for block in blocks(np.concatenate([say("good morning everybody"), np.zeros(SAMPLE_RATE_HZ, np.float32)])):
        perception.listen([block])
    perception.finish()
    told: list[TranscriptUpdate] = []
    observer: Any = SimpleNamespace(on_words=lambda update, _: told.append(update))
    perception.join(observer, 2.0)
    assert perception._words.all
    assert (told, perception.words, perception.perceive(2.0).words) == ([], (), ())


class SlowFace:
    """Looks at a picture until told to have seen it."""

    def __init__(self) -> None:
        self.spec = load("base").features[Modality.VISION]
        self.looking, self.seen = threading.Event(), threading.Event()

    def due(self, captured_s: float, pictures_hz: float) -> bool:
        return True

    def push(self, image: NDArray[np.uint8], captured_s: float) -> FaceObservation:
        self.looking.set()
        self.seen.wait(60)
        row = np.zeros((1, self.spec.width), np.float32)
        return FaceObservation(captured_s, Rows(np.array([captured_s]), row), faces=1)


@pytest.fixture
def looking() -> Iterator[tuple[Perception, SlowFace]]:
    """A picture of second 1 is being looked at."""
    face = SlowFace()
    parts: Any = SimpleNamespace(specs=load("base").features, face=face, lips=None)
    perception = Perception(cast("StreamExtractors", parts), torch.device("cpu"))
    see = threading.Thread(target=lambda: perception.see(VideoFrame(np.zeros((8, 8, 3), np.uint8), 1.0, 1.0)))
    see.start()
    assert face.looking.wait(60)
    yield perception, face
    face.seen.set()
    see.join()


def test_an_estimate_waits_for_the_picture_that_is_being_looked_at(
    looking: tuple[Perception, SlowFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    perception, face = looking
    monkeypatch.setattr(AwaitedPicture, "PATIENCE_S", 60.0)
    perception.picture.shift_s(hop_s=100.0)
    threading.Timer(0.05, face.seen.set).start()
    perceived = perception.perceive(1.1)
    assert perceived.cut.newest_s[Modality.VISION] == 1.0
    assert perceived.faces == 1


def test_an_estimate_does_not_wait_long_and_not_for_a_picture_of_later(
    looking: tuple[Perception, SlowFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    perception, _ = looking
    perception.picture.shift_s(hop_s=0.1)
    assert perception.perceive(1.1).faces == 0
    monkeypatch.setattr(AwaitedPicture, "PATIENCE_S", 3600.0)
    perception.picture.shift_s(hop_s=3600.0)
    assert perception.perceive(0.9).faces == 0


def test_a_face_too_far_away_is_told_of_until_it_is_out_of_sight(perception: Perception) -> None:
    picture = VideoFrame(np.zeros((8, 8, 3), np.uint8), 1.0, 1.0)
    spec = perception.extractors.face.spec
    observation = FaceObservation(1.0, Rows.empty(spec.width), 1, (0.5, 0.5, 0.51, 0.52), too_far=True)
    extractor: Any = perception.extractors.face
    extractor.due, extractor.push = lambda *_: True, lambda *_: observation
    perception.see(picture)
    there, gone = perception.perceive(1.2), perception.perceive(1.2 + spec.absent_after_s)
    assert (there.cut.far, there.faces) == ({Modality.VISION}, 1)
    assert (gone.cut.far, gone.faces) == (set(), 0)
    inference_free = build_estimate(
        there.cut, None, None, stream="s", seq=0, epoch_unix=0.0, faces=1, transcript="", capture_to_estimate_ms=None,
        timed=False, dropped=Dropped(video=0, audio=0), model=ModelName(name="m", checkpoint="c"),
    )  # fmt: skip
    assert inference_free.modalities.vision.far
    assert nothing_perceived(inference_free) == "somebody is seen, too far away to be read"


def test_a_face_whose_mouth_is_covered_is_told_and_alone_is_less_sure(perception: Perception) -> None:
    spec, extractor = perception.extractors.face.spec, cast("Any", perception.extractors.face)
    rows = Rows(np.array([1.0]), np.random.default_rng(0).standard_normal((1, spec.width)).astype(np.float32))
    said, engine = [], Engine(load("base"), torch.device("cpu"))
    for covered in (False, True):
        observation = FaceObservation(1.0, rows, 1, (0.1, 0.1, 0.9, 0.9), covered=covered)
        extractor.due, extractor.push = lambda *_: True, lambda *_, one=observation: one
        perception.see(VideoFrame(np.zeros((8, 8, 3), np.uint8), 1.0, 1.0))
        cut = perception.perceive(1.1).cut
        assert cut.covered == (cut.present if covered else set())
        inference = engine.infer(cut)
        assert inference is not None
        said.append(np.log(inference.emotions))
    plain, less = (one - one.mean() for one in said)
    np.testing.assert_allclose(plain, COVERED_TEMPERATURE * less, rtol=1e-3)


def test_no_estimate_waits_for_the_lips_that_a_voice_makes(
    say: Callable[[str], NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found as the sound is heard."""
    found: list[str] = []
    forward = LipNetwork.forward

    def counted(network: LipNetwork, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(doing)
        return forward(network, mel)

    monkeypatch.setattr(LipNetwork, "forward", counted)
    specs = load("base").features
    rows = Rows.empty(specs[Modality.AUDIO].width)
    parts: Any = SimpleNamespace(
        specs=specs,
        text=TextExtractor(),
        face=SimpleNamespace(spec=specs[Modality.VISION]),
        voice=SimpleNamespace(due=lambda _: False, push=lambda *_, **__: rows),
        lips=LipNetwork.load(),
    )
    perception = Perception(cast("StreamExtractors", parts), torch.device("cpu"))
    for block in blocks(say("we won the prize")):
        doing = "hearing"
        perception.hear(block)
        doing = "estimating"
        assert perception.perceive(block.end_s).view is not None
    assert set(found) == {"hearing"}
