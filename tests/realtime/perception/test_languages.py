"""Speech in several languages: found, recognised, and said to be unread where the model does not know it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.assets.store import AssetUnavailable
from dhmd.checkpoint import load
from dhmd.contract import Language, Word
from dhmd.features.several import Overlaps
from dhmd.features.speech import SpeechModel, SpeechUnavailable
from dhmd.features.spoken_language import SpokenLanguage
from dhmd.features.text import TextExtractor, encoder_of
from dhmd.modality import Modality
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.perception.transcript import StreamingTranscript, TranscriptUpdate
from realtime.perception.window import SlidingWindow
from realtime.recognition.engine import Engine
from tests.conftest import require

Sound = NDArray[np.float32]
SIGNS = {"de": (1, -1), "es": (1, -1), "fr": (-1, 1), "it": (1, -1)}
"""Of the sentiment of each sentence."""

SAID = {
    "de": ("Wir hatten einen wunderbaren Abend mit unseren Freunden.", "Das Essen war kalt und viel zu teuer."),
    "es": ("Es el mejor café que he tomado en años.", "La comida estaba fría y era demasiado cara."),
    "fr": ("Je suis triste parce que ma grand-mère est malade.", "Merci, tu m'as beaucoup aidé."),
    "it": ("Abbiamo passato una serata meravigliosa con i nostri amici.", "Il cibo era freddo e troppo caro."),
}


@pytest.fixture(scope="session")
def many() -> SpeechModel:
    """Whisper base, which knows many languages: 148 MB, fetched once."""
    try:
        return SpeechModel("base")
    except AssetUnavailable as error:
        pytest.skip(f"needs faster-whisper-base: {error}")


@pytest.fixture(scope="session")
def tell(tmp_path_factory: pytest.TempPathFactory, listen: Callable[[Path], Sound]) -> Callable[[str], list[Sound]]:
    """tell(language): its sentences, spoken by a synthetic voice, with a pause after each."""
    require("espeak-ng", "espeak-ng")
    folder = tmp_path_factory.mktemp("languages")

    def speak(language: str) -> list[Sound]:
        parts: list[Sound] = []
        for i, sentence in enumerate(SAID[language]):
            path = folder / f"{language}{i}.wav"
            subprocess.run(["espeak-ng", "-v", language, "-s", "140", "-w", path, sentence], check=True)
            parts.append(np.concatenate([listen(path), np.zeros(SAMPLE_RATE_HZ, np.float32)]))
        return parts

    return speak


def heard(speech: SpeechModel, sound: Sound) -> tuple[list[Word], TranscriptUpdate]:
    """Final words of a stream, and its last update."""
    transcript, words = StreamingTranscript(speech), list[Word]()
    for begin in range(0, len(sound), 1600):
        transcript.push(AudioBlock(sound[begin : begin + 1600], begin / SAMPLE_RATE_HZ, 0.0))
        while update := transcript.step():
            words += update.final
    last = transcript.finish()
    return [*words, *last.final], last


def plain(text: str) -> list[str]:
    return ["".join(letter for letter in word if letter.isalnum()) for word in text.lower().split()]


def test_a_stream_is_heard_in_its_language(many: SpeechModel, tell: Callable[[str], list[Sound]]) -> None:
    words, last = heard(many, np.concatenate(tell("de")))
    assert last.language is not None
    assert last.language.code == "de"
    assert {word.language for word in words} == {"de"}
    said = plain(" ".join(SAID["de"]))
    assert len({*said} & {*plain(" ".join(word.text for word in words))}) > 0.5 * len({*said})


@pytest.fixture(scope="module")
def understood(many: SpeechModel, tell: Callable[[str], list[Sound]]) -> dict[str, list[list[Word]]]:
    """By language, the words of each of its sentences."""
    words: dict[str, list[list[Word]]] = {}
    for language in SAID:
        spoken = SpokenLanguage()
        words[language] = []
        for clip in tell(language):
            words[language].append(many.transcribe(clip, 0.0, spoken))
            spoken.utterance_ended()
        assert spoken.found is not None
        assert spoken.found.code == language
    return words


def test_words_of_other_languages_are_recognised(understood: dict[str, list[list[Word]]]) -> None:
    for language, clips in understood.items():
        assert {word.language for clip in clips[1:] for word in clip} == {language}
        said = {*plain(" ".join(SAID[language]))}
        found = {*plain(" ".join(word.text for clip in clips for word in clip))}
        assert len(said & found) > 0.5 * len(said)


def test_their_sentiment_has_the_right_sign_in_most_sentences(understood: dict[str, list[list[Word]]]) -> None:
    """From the sound to the answer, through the checkpoint that reads them: pleased or displeased."""
    checkpoint = load("multilingual")
    spec = checkpoint.features[Modality.TEXT]
    try:
        reader = TextExtractor(encoder_of(spec), checkpoint.encoder(Modality.TEXT), checkpoint.languages)
    except AssetUnavailable as error:
        pytest.skip(f"needs {encoder_of(spec)}: {error}")
    engine, right = Engine(checkpoint, torch.device("cpu")), []
    for language, clips in understood.items():
        for words, sign in zip(clips, SIGNS[language], strict=True):
            window = SlidingWindow(checkpoint.features, torch.device("cpu"))
            window.replace(Modality.TEXT, reader.extract(words).halved())
            inference = engine.infer(window.cut(words[-1].end_s + 0.1 if words else 1.0))
            right.append(inference is not None and (inference.sentiment.value > 0) == (sign > 0))
    assert sum(right) >= 6, right


def test_a_model_of_english_does_not_make_english_of_other_languages(
    speech: SpeechModel, tell: Callable[[str], list[Sound]], say: Callable[[str], Sound]
) -> None:
    for language in ("es", "it"):
        words, last = heard(speech, tell(language)[0])
        assert words == []
        assert last.missed_s is not None
    words, last = heard(speech, say("we won the prize, and I am so happy"))
    assert " ".join(plain(" ".join(word.text for word in words))) == "we won the prize and i am so happy"
    assert (last.missed_s, last.language) == (None, None)


def test_what_cannot_be_listened_to_is_refused_in_a_line(tmp_path: Path) -> None:
    for arguments, why in (
        (("tiny.en", "de"), r"--language de: tiny\.en hears English only; choose --speech base"),
        (("huge",), r"--speech huge: give tiny\.en, tiny, base, small, a folder, or a name on the hub"),
        ((str(tmp_path),), r"no model\.bin in it"),
    ):
        with pytest.raises(SpeechUnavailable, match=why):
            SpeechModel(*arguments)
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(SpeechUnavailable, match=f"--speech {tmp_path}: ") as caught:
        SpeechModel(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_language_that_no_model_knows_is_refused(many: SpeechModel) -> None:
    with pytest.raises(SpeechUnavailable, match="--language xx: base does not know it"):
        SpeechModel("base", "xx")


@pytest.mark.parametrize("languages", [("en",), None], ids=["tested", "all"])
def test_words_of_an_untested_language_are_shown_and_not_read(languages: tuple[str, ...] | None) -> None:
    updates = [
        TranscriptUpdate((Word("Guten", 1.0, 1.3, 0.9, "de"), Word("Tag", 1.4, 1.6, 0.9, "de")), (), 0.0),
        TranscriptUpdate((Word("good", 2.0, 2.3), Word("day", 2.4, 2.6)), (), 0.0, Language("en", 0.75)),
    ]
    transcript = SimpleNamespace(due=lambda _: bool(updates), step=lambda *_: updates.pop(0))
    parts: Any = SimpleNamespace(
        specs=load("base").features,
        transcript=transcript,
        voice=SimpleNamespace(overlaps=Overlaps()),
        text=TextExtractor(languages=languages),
        face=SimpleNamespace(spec=load("base").features[Modality.VISION]),
        lips=None,
    )
    perception = Perception(cast("StreamExtractors", parts), torch.device("cpu"))
    later = updates.pop()
    perception.listen([])
    german = perception.perceive(2.0)
    assert [word.text for word in german.words] == ["Guten", "Tag"]
    read = languages is None
    assert (Modality.TEXT in german.cut.present) == read
    assert german.cut.unread == (set() if read else {Modality.TEXT})
    updates.append(later)
    perception.listen([])
    both = perception.perceive(3.0)
    assert (Modality.TEXT in both.cut.present, both.cut.unread) == (True, frozenset())
    assert both.cut.language == Language("en", 0.75)
    tokens = int(both.cut.masks[Modality.TEXT].sum())
    assert tokens == len(TextExtractor().extract([*(german.words if read else ()), *later.final]))
    # What was said is past.
    assert not perception.perceive(12.0).cut.unread
