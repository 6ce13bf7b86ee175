"""The speech model and voice activity on real weights: synthetic speech, real speech, and what is no speech."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhmd.features.speech import VOICE_FRAME, SpeechModel, VoiceActivity

Sound = NDArray[np.float32]
RATE = 16_000
SENTENCE = "I am so happy to see you today"


def noise(seconds: float, level: float = 0.1) -> Sound:
    return np.random.default_rng(0).normal(0, level, round(seconds * RATE)).astype(np.float32)


def plain(words: list[str]) -> list[str]:
    return ["".join(c for c in word.lower() if c.isalnum()) for word in words]


def test_words_with_their_times(speech: SpeechModel, say: Callable[[str], Sound]) -> None:
    spoken = say(SENTENCE)
    silence = np.zeros(RATE, np.float32)
    words = speech.transcribe(np.concatenate([silence, spoken, silence]), start_s=50.0)
    assert plain([word.text for word in words]) == SENTENCE.lower().split()
    assert all(0.0 < word.probability <= 1.0 for word in words)
    times = [t for word in words for t in (word.start_s, word.end_s)]
    assert times == sorted(times)
    # The pauses around the sentence belong to no word.
    assert times[0] == pytest.approx(51.0, abs=0.1)
    assert times[-1] == pytest.approx(51.0 + len(spoken) / RATE, abs=0.1)


def test_a_letter_and_a_number_are_two_words(
    speech: SpeechModel, shared: Path, listen: Callable[[Path], Sound]
) -> None:
    words = speech.transcribe(listen(shared / "clips" / "grid_swwp2s.mpg"))
    assert plain([word.text for word in words]) == ["set", "white", "with", "p", "2", "soon"]


@pytest.mark.parametrize("level", [0.0, 0.003, 0.1, 0.4])
@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.5, 6.0])
def test_nothing_is_heard_in_noise(speech: SpeechModel, level: float, seconds: float) -> None:
    assert speech.transcribe(noise(seconds, level)) == []


def test_a_known_text_is_timed_and_a_wrong_one_is_improbable(speech: SpeechModel, say: Callable[[str], Sound]) -> None:
    spoken = np.concatenate([np.zeros(RATE, np.float32), say(SENTENCE)])
    timed = speech.time_words(spoken, SENTENCE, start_s=10.0)
    assert plain([word.text for word in timed]) == plain(SENTENCE.split())
    assert timed[0].start_s == pytest.approx(11.0, abs=0.3)
    assert timed[-1].end_s <= 10.0 + len(spoken) / RATE + 0.1
    wrong = speech.time_words(spoken, "The train to London leaves at nine")
    assert np.mean([word.probability for word in wrong]) < 0.5 < np.mean([word.probability for word in timed])
    assert speech.time_words(np.zeros(100, np.float32), SENTENCE) == []


def test_too_much_at_once_is_refused(speech: SpeechModel) -> None:
    with pytest.raises(ValueError, match="20"):
        speech.transcribe(np.zeros(21 * RATE, np.float32))


def test_two_threads_get_what_one_gets(speech: SpeechModel, say: Callable[[str], Sound]) -> None:
    spoken = say(SENTENCE)
    words = speech.transcribe(spoken)
    with ThreadPoolExecutor(2) as pool:
        heard = [pool.submit(speech.transcribe, spoken) for _ in range(4)]
        assert all(each.result() == words for each in heard)


def test_activity_marks_the_speech_between_silences(say: Callable[[str], Sound]) -> None:
    spoken = say(SENTENCE)
    silence = np.zeros(RATE, np.float32)
    activity = VoiceActivity().push(np.concatenate([silence, spoken, silence]))
    frame_s = VOICE_FRAME / RATE
    speaking = np.flatnonzero(activity)
    assert speaking[0] * frame_s == pytest.approx(1.0, abs=0.3)
    assert (speaking[-1] + 1) * frame_s == pytest.approx(1.0 + len(spoken) / RATE, abs=0.3)
    assert activity[speaking[0] : speaking[-1]].mean() > 0.9
    assert not VoiceActivity().push(noise(5)).any()


class Told:
    """Probabilities as told, in place of the network of voice activity."""

    def __init__(self, probabilities: list[float]) -> None:
        self._probabilities = iter(probabilities)

    def run(self, _: None, inputs: dict[str, Sound]) -> tuple[np.float32, Sound, Sound]:
        return np.float32(next(self._probabilities)), inputs["h"], inputs["c"]


def test_activity_has_hysteresis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speech begins at one half, and lasts while the probability stays at or above 0.35."""
    told = {0.4: False, 0.49: False, 0.5: True, 0.41: True, 0.36: True, 0.34: False, 0.42: False, 0.6: True}
    monkeypatch.setattr("dhmd.features.speech._silero", lambda: Told(list(told)))
    assert VoiceActivity().push(np.zeros(len(told) * VOICE_FRAME, np.float32)).tolist() == list(told.values())


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(50, 20_000), min_size=1, max_size=8))
def test_activity_does_not_depend_on_the_blocks(sizes: list[int], say: Callable[[str], Sound]) -> None:
    spoken = say(SENTENCE)
    whole = VoiceActivity().push(spoken)
    activity, parts, done = VoiceActivity(), [], 0
    while done < len(spoken):
        size = sizes[len(parts) % len(sizes)]
        parts.append(activity.push(spoken[done : done + size]))
        done += size
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_reset_begins_another_stream(say: Callable[[str], Sound]) -> None:
    activity = VoiceActivity()
    first = activity.push(say(SENTENCE))
    activity.reset()
    np.testing.assert_array_equal(activity.push(say(SENTENCE)), first)
