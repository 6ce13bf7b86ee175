"""The streaming transcript on the real model: synthetic speech, six clips of people, and what is no speech."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhmd.contract import Word
from dhmd.features.speech import SpeechModel
from dhmd.features.spoken_language import SpokenLanguage
from realtime.capture.samples import AudioBlock
from realtime.perception.transcript import BUFFER_S, StreamingTranscript, TranscriptUpdate

Sound = NDArray[np.float32]
RATE = 16_000
START_S = 100.0
LINES = (
    "good morning and welcome to the show",
    "I am so happy to see you today",
    "this is the best day of my life",
    "wait what was that noise",
    "I am really scared of the dark",
    "my dog died last night",
    "thank you for listening",
)


def silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * RATE), np.float32)


def normal(words: list[Word] | tuple[Word, ...]) -> list[str]:
    """Words without case and punctuation, digits spelled."""
    digits = {"1": "one", "2": "two", "4": "four", "7": "seven", "9": "nine"}
    plain = [re.sub(r"[^a-z0-9]", "", word.text.lower()) for word in words]
    return [digits.get(word, word) for word in plain]


def errors(expected: list[str], heard: list[str]) -> int:
    """Words substituted, left out or put in: the edit distance."""
    distance = list(range(len(heard) + 1))
    for row, word in enumerate(expected, 1):
        above, distance[0] = distance[:], row
        for column, other in enumerate(heard, 1):
            distance[column] = min(above[column - 1] + (word != other), above[column] + 1, distance[column - 1] + 1)
    return distance[-1]


def transcribe(speech: SpeechModel, sound: Sound, sizes: list[int] | None = None) -> list[TranscriptUpdate]:
    """Updates of a stream that comes in blocks of those sizes, in turn; with `finish` as the last."""
    transcript, updates, done, turn = StreamingTranscript(speech), [], 0, 0
    while done < len(sound):
        size = (sizes or [1600])[turn % len(sizes or [1600])]
        transcript.push(AudioBlock(sound[done : done + size], START_S + done / RATE, 0.0))
        done, turn = done + size, turn + 1
        while update := transcript.step():
            updates.append(update)
    return [*updates, transcript.finish()]


def final(updates: list[TranscriptUpdate]) -> list[Word]:
    return [word for update in updates for word in update.final]


class Remembering(SpeechModel):
    """A speech model that is asked once for what it hears in the same sound."""

    def __init__(self, speech: SpeechModel) -> None:
        self._speech = speech
        self._heard: dict[tuple[bytes, float], list[Word]] = {}

    def spoken(self) -> SpokenLanguage:
        return self._speech.spoken()

    def transcribe(
        self, samples: Sound, start_s: float = 0.0, spoken: SpokenLanguage | None = None, **_: bool
    ) -> list[Word]:
        asked = samples.tobytes(), start_s
        if asked not in self._heard:
            self._heard[asked] = self._speech.transcribe(samples, start_s, spoken)
        return self._heard[asked]


@pytest.fixture(scope="module")
def speech(speech: SpeechModel) -> SpeechModel:
    return Remembering(speech)


@pytest.fixture(scope="module")
def script(say: Callable[[str], Sound]) -> Sound:
    """About 20 s of speech with pauses."""
    return np.concatenate([silence(0.8), *(part for line in LINES for part in (say(line), silence(0.8)))])


@pytest.fixture(scope="module")
def updates(script: Sound, speech: SpeechModel) -> list[TranscriptUpdate]:
    return transcribe(speech, script)


def test_a_script_is_understood(updates: list[TranscriptUpdate]) -> None:
    expected = " ".join(LINES).lower().split()
    assert errors(expected, normal(final(updates))) <= 0.1 * len(expected)


def test_words_stand_where_they_were_spoken(updates: list[TranscriptUpdate], say: Callable[[str], Sound]) -> None:
    words = final(updates)
    times = [t for word in words for t in (word.start_s, word.end_s)]
    assert times == sorted(times)
    begin_s = START_S + 0.8
    for line in LINES:
        end_s = begin_s + len(say(line)) / RATE
        inside = [word for word in words if begin_s - 0.2 <= word.start_s and word.end_s <= end_s + 0.2]
        assert errors(line.lower().split(), normal(inside)) <= 2, line
        begin_s = end_s + 0.8


def test_words_are_shown_before_they_are_final(script: Sound, speech: SpeechModel) -> None:
    """While there is speech, what is heard is said anew at least once a second of sound."""
    transcript, said_s, gaps = StreamingTranscript(speech), None, []
    for done in range(0, len(script), 1600):
        transcript.push(AudioBlock(script[done : done + 1600], START_S + done / RATE, 0.0))
        now_s = START_S + (done + 1600) / RATE
        while update := transcript.step():
            if said_s is not None:
                gaps.append(now_s - said_s)
            said_s = now_s if update.partial else None
    assert len(gaps) > 15
    assert max(gaps) <= 1.0


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.integers(100, 32_000), min_size=1, max_size=6))
def test_words_do_not_depend_on_the_blocks(
    sizes: list[int], script: Sound, updates: list[TranscriptUpdate], speech: SpeechModel
) -> None:
    assert final(transcribe(speech, script, sizes)) == final(updates)


def test_partial_words_come_after_all_that_are_final(updates: list[TranscriptUpdate]) -> None:
    """What is final is neither said again nor taken back."""
    known: list[Word] = []
    for update in updates:
        known += update.final
        begins = [word.start_s for word in (*known, *update.partial)]
        assert begins == sorted(begins)


def test_speech_without_pauses_is_understood_in_a_bounded_buffer(
    say: Callable[[str], Sound], speech: SpeechModel
) -> None:
    sound = np.concatenate([say(", and ".join(LINES)), say(", and ".join(LINES[::-1]))])
    assert len(sound) > 1.5 * BUFFER_S * RATE
    expected = [*" and ".join(LINES).lower().split(), *" and ".join(LINES[::-1]).lower().split()]
    got = transcribe(speech, sound)
    assert errors(expected, normal(final(got))) <= 0.2 * len(expected)
    assert got[-1].skipped_s == 0.0


def test_sound_in_which_nothing_is_understood_is_let_go(say: Callable[[str], Sound]) -> None:
    """Speech in a language the model does not know must not fill the buffer, nor cost more and more."""

    class Foreigner:
        longest_s = 0.0
        multilingual = False

        def spoken(self) -> SpokenLanguage:
            return SpokenLanguage("en")

        def transcribe(self, samples: Sound, start_s: float, _: SpokenLanguage, **__: bool) -> list[Word]:
            self.longest_s = max(self.longest_s, len(samples) / RATE)
            return []

    foreigner = Foreigner()
    updates = transcribe(foreigner, say(", and ".join(LINES)))  # type: ignore[arg-type]
    assert final(updates) == []
    assert 5.0 < foreigner.longest_s < 9.0
    assert updates[-1].missed_s is not None
    assert updates[-1].skipped_s == 0.0


def test_falling_behind_it_skips_ahead_and_says_so(script: Sound, speech: SpeechModel) -> None:
    """Nobody calls `step` for 20 s."""
    transcript = StreamingTranscript(speech)
    for done in range(0, len(script), 1600):
        transcript.push(AudioBlock(script[done : done + 1600], START_S + done / RATE, 0.0))
    update = transcript.finish()
    assert update.skipped_s > 1.0
    words = update.final
    assert normal(words)[-4:] == LINES[-1].split()
    assert words[0].start_s >= START_S + len(script) / RATE - BUFFER_S - 0.1


def test_a_gap_in_capture_times_ends_the_utterance(say: Callable[[str], Sound], speech: SpeechModel) -> None:
    """The microphone was away for ten seconds in the middle of speech."""
    transcript, words = StreamingTranscript(speech), []
    for start_s, line in ((START_S, LINES[1]), (START_S + 12.0, LINES[2])):
        transcript.push(AudioBlock(say(line), start_s, 0.0))
        while update := transcript.step():
            words += update.final
    words += transcript.finish().final
    first = [word for word in words if word.end_s < START_S + 6]
    second = [word for word in words if word.start_s > START_S + 11.5]
    assert normal(first) == LINES[1].lower().split()
    assert normal(second) == LINES[2].split()
    assert len(words) == len(first) + len(second)


def chords(seconds: float) -> Sound:
    """A progression of decaying triads with a melody above."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros_like(t)
    for beat in np.arange(0, seconds, 0.5):
        now = (t >= beat) & (t < beat + 0.5)
        decay, root = np.exp(-3 * (t[now] - beat)), 220 * 2 ** (rng.integers(0, 12) / 12)
        for ratio in (1, 5 / 4, 3 / 2, 2 ** (rng.integers(12, 20) / 12)):
            for harmonic in (1, 2, 3):
                sound[now] += 0.1 * decay * np.sin(2 * np.pi * root * ratio * harmonic * t[now]) / harmonic
    return sound.astype(np.float32)


def hum(seconds: float) -> Sound:
    """A buzzing voice-like tone that rises and falls, with the rhythm of syllables."""
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(150 + 30 * np.sin(np.pi * t)) / RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.1 * buzz * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def noise(level: float) -> Sound:
    return np.random.default_rng(1).normal(0, level, 10 * RATE).astype(np.float32)


@pytest.mark.parametrize(
    "sound",
    [silence(10), noise(0.003), noise(0.1), noise(0.4), chords(10), hum(10)],
    ids=["silence", "faint noise", "noise", "loud noise", "music", "hum"],
)
def test_nothing_is_invented(sound: Sound, speech: SpeechModel) -> None:
    heard = transcribe(speech, sound)
    assert final(heard) == []
    assert not any(update.partial for update in heard)


@pytest.mark.parametrize("clip", ["mead_sad.mp4", "crying_640x360.mp4"])
def test_nothing_is_invented_on_silent_sound_tracks(
    clip: str, shared: Path, listen: Callable[[Path], Sound], speech: SpeechModel
) -> None:
    assert final(transcribe(speech, listen(shared / "clips" / clip))) == []


def test_sentences_of_real_people(shared: Path, listen: Callable[[Path], Sound], speech: SpeechModel) -> None:
    """GRID: six words a clip, spelled by the letters of its name; at least four a clip are heard on average."""
    vocabulary = (
        {"b": "bin", "l": "lay", "p": "place", "s": "set"},
        {"b": "blue", "g": "green", "r": "red", "w": "white"},
        {"a": "at", "b": "by", "i": "in", "w": "with"},
        {},
        {"1": "one", "2": "two", "4": "four", "7": "seven", "9": "nine"},
        {"a": "again", "n": "now", "p": "please", "s": "soon"},
    )
    clips = sorted((shared / "clips").glob("grid_*.mpg"))
    assert len(clips) == 6
    wrong = 0
    for clip in clips:
        expected = [words.get(letter, letter) for words, letter in zip(vocabulary, clip.stem[-6:], strict=True)]
        wrong += errors(expected, normal(final(transcribe(speech, listen(clip)))))
    assert wrong <= 2 * len(clips)
