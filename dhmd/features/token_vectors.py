"""Token vectors of a text encoder: BERT here, in a few lines and without a second's worth of imports; any other encoder
through the library transformers.

Shapes: N tokens, d width, H heads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dhmd.errors import DHMDError
from dhmd.features.bert import Bert
from dhmd.features.low_rank import merge
from dhmd.features.packed_encoder import PACKED, PackedVectors
from dhmd.untrusted import read_json_object

WEIGHTS: Final = "model.safetensors"
_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_PLAIN: Final = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
"""What our BERT is; an encoder that says otherwise is left to the library."""


class TextEncoderUnavailable(DHMDError):
    """The text encoder or its library is not here. One line: cause and remedy."""


Read = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Of one text, special tokens left out: (N, d) vectors of its tokens in their surroundings; (N,) place of the last
character of each."""


class TokenVectors(Protocol):
    """A text encoder and its tokenizer."""

    model: nn.Module
    """Its linear maps have the names that Hugging Face gives them."""
    width: int

    def learn(self, learned: Mapping[str, Tensor]) -> None:
        """Take in what was learned for this encoder. Raises AttributeError, KeyError or RuntimeError if it was not."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        ...

    def read(self, texts: Sequence[str]) -> list[Read]:
        """Read several texts, one at least, each by itself: together they cost less."""
        ...


def open_encoder(folder: Path) -> TokenVectors:
    """The encoder in a folder of the Hugging Face layout.

    Raises TextEncoderUnavailable, and OSError or ValueError where the folder holds none.
    """
    if (folder / PACKED).is_file():
        return PackedVectors(folder / PACKED)
    config = read_json_object(folder / _CONFIG)
    plain = all(config.get(key, value) == value for key, value in _PLAIN.items())
    if config.get("model_type") == "bert" and plain and (folder / _TOKENIZER).is_file():
        return BertVectors(folder, config)
    return HubVectors(folder)


class BertVectors:
    """BERT (Devlin et al. 2019) with the tokenizer of its folder."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.width: int = config["hidden_size"]
        weights = {name.removeprefix("bert."): weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
        self.model: nn.Module = Bert(config, "meta")
        try:
            own = {name: weights[name] for name in self.model.state_dict()}
            self.model.load_state_dict(own, assign=True)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{folder / WEIGHTS} is not what {_CONFIG} says: {error}") from error
        self.model.eval().requires_grad_(False)

    def learn(self, learned: Mapping[str, Tensor]) -> None:
        merge(self.model, learned)

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def read(self, texts: Sequence[str]) -> list[Read]:
        encoded = [self._tokenizer.encode(text) for text in texts]
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.model([torch.tensor(one.ids) for one in encoded]).numpy()
        ends = np.cumsum([len(one.ids) for one in encoded])[:-1]
        return [_own(one, of_it) for one, of_it in zip(encoded, np.split(vectors, ends), strict=True)]


def _own(encoded: Any, vectors: NDArray[np.float32]) -> Read:
    """vectors: of all tokens, special ones too."""
    own = np.flatnonzero(np.array(encoded.special_tokens_mask) == 0)
    return vectors[own], np.array(encoded.offsets, np.int64)[own, 1] - 1


class HubVectors:
    """Any encoder that the library transformers knows."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise TextEncoderUnavailable(f"{error}; pip install 'dhmd[train]'") from error
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self.width: int = self.model.config.hidden_size

    def learn(self, learned: Mapping[str, Tensor]) -> None:
        merge(self.model, learned)

    def count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def read(self, texts: Sequence[str]) -> list[Read]:
        return [self._read(text) for text in texts]

    def _read(self, text: str) -> Read:
        batch = self._tokenizer(text, return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True)
        last_character = batch.pop("offset_mapping")[0].numpy()[:, 1] - 1
        own = np.flatnonzero(batch.pop("special_tokens_mask")[0].numpy() == 0)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.model(**batch).last_hidden_state[0].numpy()
        return vectors[own], last_character[own]
