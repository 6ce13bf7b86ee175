"""Token vectors of a text encoder: BERT here, in a few lines and without a second's worth of imports; any other encoder
through the library transformers.

Shapes: N tokens, d width, H heads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.errors import DHMDError
from dhmd.untrusted import read_json_object

WEIGHTS: Final = "model.safetensors"
_CONFIG, _TOKENIZER = "config.json", "tokenizer.json"
_PLAIN: Final = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
"""What our BERT is; an encoder that says otherwise is left to the library."""


class TextEncoderUnavailable(DHMDError):
    """The text encoder or its library is not here. One line: cause and remedy."""


class TokenVectors(Protocol):
    """A text encoder and its tokenizer."""

    model: nn.Module
    """Its linear maps have the names that Hugging Face gives them."""
    width: int

    def count(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        ...

    def read(self, text: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(N, d) vectors of the tokens in their surroundings, special ones left out; (N,) place of the last character
        of each."""
        ...


def open_encoder(folder: Path) -> TokenVectors:
    """The encoder in a folder of the Hugging Face layout.

    Raises TextEncoderUnavailable, and OSError or ValueError where the folder holds none.
    """
    config = read_json_object(folder / _CONFIG)
    plain = all(config.get(key, value) == value for key, value in _PLAIN.items())
    if config.get("model_type") == "bert" and plain and (folder / _TOKENIZER).is_file():
        return BertVectors(folder, config)
    return HubVectors(folder)


class BertVectors:
    """BERT (Devlin et al. 2019)."""

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

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def read(self, text: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        encoded = self._tokenizer.encode(text)
        own = np.flatnonzero(np.array(encoded.special_tokens_mask) == 0)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.model(torch.tensor(encoded.ids)).numpy()
        return vectors[own], np.array(encoded.offsets, np.int64)[own, 1] - 1


class Bert(nn.Module):
    """One text without a batch. Its parameters have the names that Hugging Face gives them."""

    def __init__(self, config: dict[str, Any], device: str) -> None:
        super().__init__()
        d, wide, eps = config["hidden_size"], config["intermediate_size"], config.get("layer_norm_eps", 1e-12)
        self.heads: int = config["num_attention_heads"]
        self.longest: int = config["max_position_embeddings"]

        def embedding(rows: int) -> nn.Embedding:
            # Not on "meta" either: drawing numbers there loads torch's compiler.
            made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, d))  # type: ignore[no-untyped-call]
            return made

        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": embedding(config["vocab_size"]),
                "position_embeddings": embedding(self.longest),
                "token_type_embeddings": embedding(config.get("type_vocab_size", 2)),
                "LayerNorm": nn.LayerNorm(d, eps, device=device),
            }
        )

        def onto(inputs: int) -> nn.ModuleDict:
            return nn.ModuleDict(
                {"dense": nn.Linear(inputs, d, device=device), "LayerNorm": nn.LayerNorm(d, eps, device=device)}
            )

        def layer() -> nn.ModuleDict:
            attention = nn.ModuleDict({name: nn.Linear(d, d, device=device) for name in ("query", "key", "value")})
            return nn.ModuleDict(
                {
                    "attention": nn.ModuleDict({"self": attention, "output": onto(d)}),
                    "intermediate": nn.ModuleDict({"dense": nn.Linear(d, wide, device=device)}),
                    "output": onto(wide),
                }
            )

        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layer() for _ in range(config["num_hidden_layers"]))})

    def forward(self, ids: Tensor) -> Tensor:
        """(N,) token ids, at most `longest` -> (N, d)."""
        ids = ids[: self.longest]
        parts: Any = self.embeddings
        words, places = parts.word_embeddings(ids), parts.position_embeddings.weight[: ids.shape[0]]
        x: Tensor = parts.LayerNorm(words + places + parts.token_type_embeddings.weight[0])
        layers: Any = self.encoder.layer
        for layer in layers:
            attention = layer.attention["self"]
            q, k, v = (
                linear(x).view(1, x.shape[0], self.heads, -1).transpose(1, 2)
                for linear in (attention.query, attention.key, attention.value)
            )
            read = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)
            x = layer.attention.output.LayerNorm(x + layer.attention.output.dense(read))
            x = layer.output.LayerNorm(x + layer.output.dense(F.gelu(layer.intermediate.dense(x))))
        return x


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

    def count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def read(self, text: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        batch = self._tokenizer(text, return_tensors="pt", return_offsets_mapping=True, return_special_tokens_mask=True)
        last_character = batch.pop("offset_mapping")[0].numpy()[:, 1] - 1
        own = np.flatnonzero(batch.pop("special_tokens_mask")[0].numpy() == 0)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.model(**batch).last_hidden_state[0].numpy()
        return vectors[own], last_character[own]
