"""The words: token vectors of a Hugging Face encoder, each at the time its word ended."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dhmd.assets.store import ASSETS, fetch, sha256_of
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.features.packed_encoder import PACKED
from dhmd.features.token_vectors import WEIGHTS, TextEncoderUnavailable, open_encoder
from dhmd.features.weights import WeightsInvalid, load_single
from dhmd.features.weights import digest as digest_of
from dhmd.modality import Modality

DEFAULT_ENCODER: Final = "all-MiniLM-L6-v2"
STEPS: Final = 40


class TextExtractor:
    """Token vectors of the newest words.

    encoder: the default, a folder in the Hugging Face layout, or a name on its hub; it needs `model.safetensors` and a
        fast tokenizer.
    adapter: file of a low-rank adapter learned for that encoder; None takes the encoder as it is.
    languages: words of others are left out; None reads all.
    """

    def __init__(
        self, encoder: str = DEFAULT_ENCODER, adapter: Path | None = None, languages: Collection[str] | None = None
    ) -> None:
        self._languages = languages
        folder, digest = _weights(encoder)
        try:
            self._encoder = open_encoder(folder)
        except (OSError, ValueError) as error:
            raise TextEncoderUnavailable(f"text encoder {encoder}: {str(error).splitlines()[0]}") from error
        weights = {Path(encoder).name: digest}
        if adapter is not None:
            learned = load_single(adapter)
            try:
                self._encoder.learn(learned)
            except (AttributeError, KeyError, RuntimeError) as error:
                raise WeightsInvalid(f"{adapter} was not learned for the text encoder {encoder}: {error}") from error
            weights["text.safetensors"] = digest_of(learned)
        self.spec: Final = FeatureSpec(
            modality=Modality.TEXT,
            extractor="token-vectors",
            version="1",
            width=self._encoder.width,
            rate_hz=None,
            steps=STEPS,
            window_s=5.0,
            absent_after_s=5.0,
            weights=weights,
        )

    @property
    def network(self) -> nn.Module:
        """The encoder with its adapter in it."""
        return self._encoder.model

    def extract(self, words: Sequence[Word]) -> Rows:
        """One row a sub-word token of the newest words, at most `spec.steps`; rows carry the end time of their word.

        Only as many of the newest words as fill the steps are read, so that older ones change nothing.
        """
        return self.extract_many([words])[0]

    def extract_many(self, each: Sequence[Sequence[Word]]) -> list[Rows]:
        """The rows of several windows' words, to rounding as `extract` gives them; what is said in several is read
        once."""
        newest = [self._newest([word for word in words if self.reads(word)]) for words in each]
        texts = [" ".join(word.text for word in words) for words in newest]
        said = list(dict.fromkeys(text for text in texts if text.strip()))
        read = dict(zip(said, self._encoder.read(said), strict=True)) if said else {}
        return [
            self._rows(words, *read[text]) if text in read else Rows.empty(self.spec.width)
            for words, text in zip(newest, texts, strict=True)
        ]

    def _rows(self, words: Sequence[Word], vectors: NDArray[np.float32], last_character: NDArray[np.int64]) -> Rows:
        word_of = np.repeat(np.arange(len(words)), [len(word.text) + 1 for word in words])  # of each character
        ends_s = np.array([word.end_s for word in words], np.float64)
        newest = slice(-self.spec.steps, None)
        return Rows(ends_s[word_of[last_character[newest]]], vectors[newest])

    def reads(self, word: Word) -> bool:
        """Returns whether the word is of a language that is read."""
        return self._languages is None or word.language in self._languages

    def _newest(self, words: Sequence[Word]) -> list[Word]:
        """The newest words that fill the steps, the oldest of them perhaps in part."""
        newest: list[Word] = []
        tokens = 0
        for word in reversed(words):
            if tokens >= self.spec.steps:
                break
            newest.append(word)
            tokens += self._encoder.count(f" {word.text}")
        return newest[::-1]


def encoder_of(spec: FeatureSpec) -> str:
    """The encoder that made rows of this spec, by name."""
    return next((name for name in spec.weights if name in ASSETS), DEFAULT_ENCODER)


def _weights(encoder: str) -> tuple[Path, str]:
    """Folder of an encoder and the sha256 of its weights."""
    if encoder in ASSETS:
        (weights,) = {file.name for file in ASSETS[encoder].files} & {WEIGHTS, PACKED}
        return fetch(encoder), sha256_of(encoder, weights)
    folder = Path(encoder).expanduser()
    if not folder.is_dir():
        folder = _from_hub(encoder)
    if not (folder / WEIGHTS).is_file():
        raise TextEncoderUnavailable(f"text encoder {encoder}: no {WEIGHTS} in it; choose one that has such weights")
    with (folder / WEIGHTS).open("rb") as file:
        return folder, hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", WEIGHTS]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TextEncoderUnavailable(
            f"text encoder {name}: neither a folder nor fetched from the hub ({reason})"
        ) from error
