"""A text encoder of many languages, and the map that gives the English one's vectors by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dhmd.assets.store import AssetUnavailable
from dhmd.checkpoint import Checkpoint, CheckpointInvalid, load, save_beside
from dhmd.contract import Word
from dhmd.features.packed_encoder import WordMap, unpacked
from dhmd.features.text import TextExtractor, encoder_of
from dhmd.features.weights import WeightsInvalid, save_half
from dhmd.modality import Modality
from realtime.perception.window import SlidingWindow
from realtime.recognition.engine import Engine
from training.encoders.languages import STUDENT, Pairs, Plan, distil

SENTENCES = json.loads((Path(__file__).parents[3] / "docs" / "examples" / "sentences.json").read_text())


@pytest.fixture(scope="module")
def many() -> Checkpoint:
    return load("multilingual")


@pytest.fixture(scope="module")
def reader(many: Checkpoint) -> TextExtractor:
    """The real encoder: 72 MB, fetched once."""
    spec = many.features[Modality.TEXT]
    assert encoder_of(spec) == STUDENT
    try:
        text = TextExtractor(STUDENT, many.encoder(Modality.TEXT), many.languages)
    except AssetUnavailable as error:
        pytest.skip(f"needs {STUDENT}: {error}")
    spec.require(text.spec)
    return text


def words(text: str, language: str = "en") -> list[Word]:
    said = text.split()
    return [
        Word(one, 5 - 0.3 * (len(said) - i), 4.95 - 0.3 * (len(said) - i - 1), 1.0, language)
        for i, one in enumerate(said)
    ]


@pytest.mark.parametrize("language", SENTENCES)
def test_sentiment_has_the_right_sign_in_every_language(language: str, many: Checkpoint, reader: TextExtractor) -> None:
    assert language in many.languages
    engine, right = Engine(many, torch.device("cpu")), 0
    for text, sign in SENTENCES[language]:
        window = SlidingWindow(many.features, torch.device("cpu"))
        window.replace(Modality.TEXT, reader.extract(words(text, language)).halved())
        inference = engine.infer(window.cut(5.0))
        assert inference is not None
        right += (inference.sentiment.value > 0) == (sign > 0)
    assert right >= 9


def test_a_row_stands_where_its_word_ended(reader: TextExtractor) -> None:
    said = words("Ich freue mich so, dich wiederzusehen.", "de")
    rows = reader.extract(said)
    assert rows.values.shape[1] == 384
    assert {*np.round(rows.times_s, 6)} == {round(word.end_s, 6) for word in said}
    assert len(reader.extract(words("to jest po polsku", "tlh"))) == 0


def test_it_is_base_but_for_the_words(many: Checkpoint) -> None:
    base = load("base")
    for m in (Modality.VISION, Modality.AUDIO):
        assert many.features[m] == base.features[m]
        assert many.encoder(m) == base.encoder(m)
    for name, weight in base.model.state_dict().items():
        assert torch.equal(many.model.state_dict()[name], weight)
    assert many.digest != base.digest


def test_what_is_damaged_of_it_is_named(many: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "text.safetensors").write_bytes(many.encoder(Modality.TEXT).read_bytes())
    save_beside(folder, "base", many.features[Modality.TEXT], ("en", "sv"))
    assert load(folder).languages == ("en", "sv")
    (folder / "audio.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointInvalid, match=r"mine/audio\.safetensors is damaged"):
        load(folder)


def test_a_map_of_another_encoder_is_refused(tmp_path: Path, reader: TextExtractor) -> None:
    save_half(tmp_path / "text.safetensors", WordMap(12, 6, 8).state_dict())
    with pytest.raises(WeightsInvalid, match=f"was not learned for the text encoder {STUDENT}"):
        TextExtractor(STUDENT, tmp_path / "text.safetensors")


def test_weights_are_unpacked_by_blocks() -> None:
    block = np.zeros((1, 18), np.uint8)
    block[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    block[0, 2:] = 0xF0 | np.arange(16)
    expected = [*(0.5 * (np.arange(16) - 8)), *[3.5] * 16]
    np.testing.assert_array_equal(unpacked(block)[0], expected)


def test_a_map_learns_what_is_linear_at_once_and_the_rest_by_and_by() -> None:
    draw = np.random.default_rng(0)
    ends = np.cumsum([0, *draw.integers(2, 9, 200)])
    states = draw.normal(size=(ends[-1], 12)).astype(np.float32)
    wanted = states @ draw.normal(size=(12, 6)).astype(np.float32)
    wanted += 2 * np.abs(states[:, :6])
    given = Pairs(states.astype(np.float16), wanted.astype(np.float16), ends)
    torch.manual_seed(0)
    learned, log = distil(given, Plan(epochs=6, batch=16, rate=3e-3))
    assert log[-1]["validation"] < 0.95 * log[0]["validation"] < 0.2
    found, wanted_again, mask = given.batch(range(2))
    assert learned(found, mask)[mask].shape == wanted_again[mask].shape
