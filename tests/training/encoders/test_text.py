"""The text encoder's adapter learns from sentences of two kinds of labels, and lives without its heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dhmd.contract import Word
from dhmd.features.low_rank import adapter_of
from dhmd.features.text import TextExtractor
from dhmd.features.weights import save_half
from training.data.items import Split, Utterance
from training.encoders.text import as_heard, sentences, train
from training.encoders.tuning import Plan

GLAD = ("what a lovely day", "I am so happy", "this is wonderful news", "we had great fun")
SAD = ("I miss her so much", "everything is lost", "I cried all night", "he left me alone")


def utterances() -> list[Utterance]:
    made = []
    for split in (Split.TRAIN, Split.VALIDATION):
        for i, text in enumerate((*GLAD, *SAD) * (3 if split is Split.TRAIN else 1)):
            glad = i % 8 < 4
            name = f"{split}{i}"
            made.append(Utterance(f"a/{name}", "a", split, name, "happy" if glad else "sad", text=text))
            made.append(Utterance(f"b/{name}", "b", split, name, None, 2.0 if glad else -2.0, text=text))
    return made


def test_it_learns_and_the_extractor_takes_the_adapter(tmp_path: Path) -> None:
    parts = [sentences(utterances(), split) for split in (Split.TRAIN, Split.VALIDATION)]
    assert (parts[0]["a"].of_emotion, parts[0]["b"].of_emotion) == (True, False)
    encoder, log = train(parts[0], parts[1], tmp_path / "state.pt", Plan(epochs=3, batch=8, warm_up=2))
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["validation"]["a"] > 0.9
    save_half(tmp_path / "text.safetensors", adapter_of(encoder.encoder))
    extractor = TextExtractor(adapter=tmp_path / "text.safetensors")
    rows = extractor.extract([Word(word, i, i + 0.5) for i, word in enumerate(GLAD[0].split())])
    with torch.inference_mode():
        tokens = encoder._tokenizer(GLAD[0], return_tensors="pt")
        expected = encoder.encoder(**tokens).last_hidden_state[0, 1:-1].numpy()
    np.testing.assert_allclose(rows.values, expected, atol=0.02)


def test_texts_come_as_a_recogniser_might_give_them() -> None:
    draw = np.random.default_rng(0)
    heard = {as_heard('Oh, "really"? No way!', draw) for _ in range(60)}
    assert {'Oh, "really"? No way!', "Oh really No way", "Oh, really No way"} <= heard


def test_something_is_left_of_any_text() -> None:
    draw = np.random.default_rng(0)
    assert {as_heard("?!", draw) for _ in range(40)} == {"?!", "oh"}
