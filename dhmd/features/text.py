"""The words: token vectors of a Hugging Face encoder, each at the time its word ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.assets import ASSETS, fetch, sha256_of
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.errors import DHMDError
from dhmd.features.low_rank import merge
from dhmd.features.weights import WeightsInvalid, load_single
from dhmd.features.weights import digest as digest_of
from dhmd.modality import Modality

DEFAULT_ENCODER: Final = "all-MiniLM-L6-v2"
STEPS: Final = 40
_WEIGHTS: Final = "model.safetensors"


class TextEncoderUnavailable(DHMDError):
    """The text encoder or its library is not here. One line: cause and remedy."""


class TextExtractor:
    """Token vectors of the newest words.

    encoder: the default, a folder in the Hugging Face layout, or a name on its hub; it needs `model.safetensors` and a
        fast tokenizer.
    adapter: file of a low-rank adapter learned for that encoder; None takes the encoder as it is.
    """

    def __init__(self, encoder: str = DEFAULT_ENCODER, adapter: Path | None = None) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise TextEncoderUnavailable(f"{error}; pip install transformers") from error
        folder, digest = _weights(encoder)
        self._torch = torch
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise TextEncoderUnavailable(f"text encoder {encoder}: {str(error).splitlines()[0]}") from error
        weights = {Path(encoder).name: digest}
        if adapter is not None:
            learned = load_single(adapter)
            try:
                merge(self._model, learned)
            except (AttributeError, KeyError, RuntimeError) as error:
                raise WeightsInvalid(f"{adapter} was not learned for the text encoder {encoder}: {error}") from error
            weights["text.safetensors"] = digest_of(learned)
        self.spec: Final = FeatureSpec(
            modality=Modality.TEXT,
            extractor="token-vectors",
            version="1",
            width=int(self._model.config.hidden_size),
            rate_hz=None,
            steps=STEPS,
            window_s=5.0,
            absent_after_s=5.0,
            weights=weights,
        )

    def extract(self, words: Sequence[Word]) -> Rows:
        """One row a sub-word token of the newest words, at most `spec.steps`; rows carry the end time of their word.

        Only as many of the newest words as fill the steps are read, so that older ones change nothing.
        """
        read = self._newest(words)
        text, word_of = _join(read)
        if not text.strip():
            return Rows.empty(self.spec.width)
        batch = self._tokenizer(text, return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True)
        last_character = batch.pop("offset_mapping")[0].numpy()[:, 1] - 1
        own = np.flatnonzero(batch.pop("special_tokens_mask")[0].numpy() == 0)[-self.spec.steps :]
        with self._torch.inference_mode():
            vectors: NDArray[np.float32] = self._model(**batch).last_hidden_state[0].numpy()
        ends_s = np.array([word.end_s for word in read], np.float64)
        return Rows(ends_s[word_of[last_character[own]]], vectors[own])

    def _newest(self, words: Sequence[Word]) -> list[Word]:
        """The newest words that fill the steps, the oldest of them perhaps in part."""
        newest: list[Word] = []
        tokens = 0
        for word in reversed(words):
            if tokens >= self.spec.steps:
                break
            newest.append(word)
            tokens += len(self._tokenizer(f" {word.text}", add_special_tokens=False)["input_ids"])
        return newest[::-1]


def _join(words: Sequence[Word]) -> tuple[str, NDArray[np.int64]]:
    """The text of the words, and for each of its characters the number of the word it belongs to."""
    text = " ".join(word.text for word in words)
    lengths = [len(word.text) + 1 for word in words]
    return text, np.repeat(np.arange(len(words)), lengths)


def _weights(encoder: str) -> tuple[Path, str]:
    """Folder of an encoder and the sha256 of its weights."""
    if encoder in ASSETS:
        return fetch(encoder), sha256_of(encoder, _WEIGHTS)
    folder = Path(encoder).expanduser()
    if not folder.is_dir():
        folder = _from_hub(encoder)
    if not (folder / _WEIGHTS).is_file():
        raise TextEncoderUnavailable(f"text encoder {encoder}: no {_WEIGHTS} in it; choose one that has such weights")
    import hashlib

    with (folder / _WEIGHTS).open("rb") as file:
        return folder, hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", _WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TextEncoderUnavailable(
            f"text encoder {name}: neither a folder nor fetched from the hub ({reason})"
        ) from error
