"""Token vectors of the default encoder, and of another one in a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dhmd.assets.store import fetch, sha256_of
from dhmd.contract import ContractMismatch, Word
from dhmd.features.text import DEFAULT_ENCODER, STEPS, TextEncoderUnavailable, TextExtractor
from dhmd.features.weights import WeightsInvalid, save_half


@pytest.fixture(scope="module")
def extractor() -> TextExtractor:
    return TextExtractor()


def spoken(text: str, start_s: float = 100.0) -> list[Word]:
    return [Word(word, start_s + i, start_s + i + 0.5) for i, word in enumerate(text.split())]


def test_a_row_for_each_token_at_the_end_of_its_word(extractor: TextExtractor) -> None:
    rows = extractor.extract(spoken("I'm unbelievably happy."))
    # i ' m / un ##bel ##ie ##va ##bly / happy .
    assert rows.times_s.tolist() == [100.5] * 3 + [101.5] * 5 + [102.5] * 2
    assert rows.values.shape == (10, 384)
    assert rows.values.dtype == np.float32


def test_vectors_are_those_of_the_encoder(extractor: TextExtractor) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = fetch(DEFAULT_ENCODER)
    tokens = AutoTokenizer.from_pretrained(folder)("what a lovely day", return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(extractor.extract(spoken("what a lovely day")).values, expected, atol=1e-5)


def test_several_windows_are_read_at_once_as_each_by_itself(extractor: TextExtractor) -> None:
    windows = [spoken("what a lovely day"), [], spoken("no"), [Word("no", 7.0, 8.0)]]
    for rows, words in zip(extractor.extract_many(windows), windows, strict=True):
        alone = extractor.extract(words)
        np.testing.assert_array_equal(rows.times_s, alone.times_s)
        np.testing.assert_allclose(rows.values, alone.values, atol=1e-5)


def test_words_of_like_meaning_are_near(extractor: TextExtractor) -> None:
    glad, happy, sad = (
        extractor.extract(spoken(f"i am so {word} today")).values.mean(0) for word in ("glad", "happy", "miserable")
    )

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(glad, happy) > cosine(glad, sad)


def test_only_the_newest_tokens_count(extractor: TextExtractor) -> None:
    words = spoken(" ".join(f"word{i}" for i in range(60)))
    rows = extractor.extract(words)
    assert len(rows) == STEPS
    assert rows.times_s[-1] == words[-1].end_s
    newest = extractor.extract(words[-STEPS:])
    np.testing.assert_array_equal(rows.values, newest.values)
    np.testing.assert_array_equal(rows.times_s, newest.times_s)


@pytest.mark.parametrize("words", [[], [Word("", 0.0, 1.0)], [Word("  ", 0.0, 1.0), Word("", 1.0, 2.0)]])
def test_no_words_no_rows(extractor: TextExtractor, words: list[Word]) -> None:
    rows = extractor.extract(words)
    assert len(rows) == 0
    assert rows.values.shape == (0, 384)


def test_the_contract_names_the_weights(extractor: TextExtractor) -> None:
    assert extractor.spec.weights == {DEFAULT_ENCODER: sha256_of(DEFAULT_ENCODER, "model.safetensors")}
    assert extractor.spec.rate_hz is None


def test_any_encoder_in_a_folder(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    small = BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64))
    folder = tmp_path / "small-bert"
    small.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(fetch(DEFAULT_ENCODER) / name, folder)
    extractor = TextExtractor(str(folder))
    assert extractor.spec.width == 32
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert extractor.spec.weights == {"small-bert": digest}
    assert extractor.extract(spoken("hello there")).values.shape == (2, 32)


def test_an_encoder_of_another_kind(tmp_path: Path) -> None:
    """The library has it."""
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    small = DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64)).eval()
    folder = tmp_path / "small-distilbert"
    small.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(fetch(DEFAULT_ENCODER) / name, folder)
    rows = TextExtractor(str(folder)).extract(spoken("what a lovely day"))
    ids = TextExtractor()._encoder._tokenizer.encode("what a lovely day").ids
    with torch.inference_mode():
        expected = small(torch.tensor([ids])).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(rows.values, expected, atol=1e-5)


def test_the_default_needs_no_large_library() -> None:
    code = "import sys, dhmd.features.text as t; t.TextExtractor(); print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_weights_that_are_not_what_the_configuration_says_are_refused(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(fetch(DEFAULT_ENCODER) / name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TextEncoderUnavailable, match=r"not what config\.json says") as refused:
        TextExtractor(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TextEncoderUnavailable, match=r"model\.safetensors"):
        TextExtractor(str(tmp_path))


def test_an_unknown_name_without_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TextEncoderUnavailable, match="no-such-encoder"):
        TextExtractor("nobody/no-such-encoder")


def test_an_adapter_is_merged_and_named(extractor: TextExtractor, tmp_path: Path) -> None:
    adapter = {
        "encoder.layer.5.output.dense.down": 0.1 * torch.ones(1, 1536),
        "encoder.layer.5.output.dense.up": torch.linspace(-1, 1, 384)[:, None],
    }
    save_half(tmp_path / "text.safetensors", adapter)
    adapted = TextExtractor(adapter=tmp_path / "text.safetensors")
    plain, changed = (e.extract(spoken("what a lovely day")).values for e in (extractor, adapted))
    assert changed.shape == plain.shape
    assert not np.allclose(changed, plain, atol=1e-2)
    assert set(adapted.spec.weights) == {DEFAULT_ENCODER, "text.safetensors"}
    with pytest.raises(ContractMismatch, match="weights"):
        adapted.spec.require(extractor.spec)


def test_an_adapter_of_another_encoder_is_refused(tmp_path: Path) -> None:
    save_half(tmp_path / "text.safetensors", {"layer.0.down": torch.ones(1, 4), "layer.0.up": torch.ones(4, 1)})
    with pytest.raises(WeightsInvalid, match=r"text\.safetensors was not learned for the text encoder all-MiniLM"):
        TextExtractor(adapter=tmp_path / "text.safetensors")
