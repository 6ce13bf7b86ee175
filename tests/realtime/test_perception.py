"""What perception makes of the transcript: the words of a window, and a plain word when recognition falls behind."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.checkpoint import load
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.perception import Extractors, Perception
from realtime.transcript import StreamingTranscript

BLOCK = 1600


@pytest.fixture
def perception(speech: SpeechModel) -> Perception:
    """Perception of words alone: with the real transcript and text encoder, without a camera's extractor."""
    parts: Any = SimpleNamespace(
        specs=load("base").features,
        transcript=StreamingTranscript(speech),
        text=TextExtractor(),
        face=SimpleNamespace(spec=load("base").features[Modality.VISION]),
    )
    return Perception(cast("Extractors", parts), torch.device("cpu"))


def blocks(sound: NDArray[np.float32]) -> list[AudioBlock]:
    return [
        AudioBlock(sound[i : i + BLOCK], i / SAMPLE_RATE_HZ, i / SAMPLE_RATE_HZ) for i in range(0, len(sound), BLOCK)
    ]


def test_speech_that_is_left_out_is_told_and_counted(
    perception: Perception, say: Callable[[str], NDArray[np.float32]], caplog: pytest.LogCaptureFixture
) -> None:
    sound = np.concatenate([say("the cat sat on the mat and looked out of the window for a while")] * 8)
    perception.listen(blocks(sound))
    told = [record.getMessage() for record in caplog.records if "left out so far" in record.getMessage()]
    skipped_s = perception.extractors.transcript.skipped_s
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
