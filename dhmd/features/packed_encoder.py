"""multilingual-e5-small (Wang et al. 2024) from a file that packs it in 4 bits: BERT with the vocabulary of XLM-R. Its
layers are read together, and mapped onto the word vectors of another encoder.

Shapes: N tokens, d width.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.features.bert import Bert

PACKED: Final = "e5-small-q4.bin"
READ_LAYERS: Final = (8, 12)
"""Layers whose vectors are mapped together."""
_MAGIC: Final = b"E5S1"
_BLOCK: Final = 32
"""Weights that share a scale; with it they take 18 bytes."""
_EPS: Final = 1e-12
_LONGEST: Final = 512
_NAMES: Final = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class PackedFile:
    """Numbers and tensors of the file, whose embedding of words stays packed and mapped. Raises ValueError."""

    def __init__(self, path: Path) -> None:
        self._bytes: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
        if bytes(self._bytes[:4]) != _MAGIC:
            raise ValueError(f"{path} is not a packed encoder")
        self._at = 8
        self.width, self.layers, self.heads, self.wide = self._take("<4i")
        self._at = 44
        self.pieces, self.unknown = self._vocabulary()
        _, size = self._take("<iI")
        self._at += size  # a table of characters that are written otherwise, which the tokenizer has
        self._tensors = dict(self._entry() for _ in range(self._take("<i")[0]))

    def tensor(self, name: str) -> Tensor:
        """(outputs, inputs) or (N,) float32."""
        packed, raw = self.raw(name)
        return torch.from_numpy(unpacked(raw) if packed else np.frombuffer(raw.tobytes(), np.float32).copy())

    def raw(self, name: str) -> tuple[bool, NDArray[np.uint8]]:
        """Whether a tensor is packed, and its bytes."""
        packed, offset, size = self._tensors[name]
        return packed, self._bytes[offset : offset + size]

    def _vocabulary(self) -> tuple[list[tuple[str, float]], int]:
        count, _, _, _, unknown = self._take("<5i")
        (size,) = self._take("<Q")
        ends = self._array(np.uint32, count + 1)
        scores = self._array(np.float32, count).tolist()
        text = self._array(np.uint8, size).tobytes()
        pieces = [text[begin:end].decode() for begin, end in itertools.pairwise(ends.tolist())]
        return list(zip(pieces, scores, strict=True)), unknown

    def _entry(self) -> tuple[str, tuple[bool, int, int]]:
        (length,) = self._take("<H")
        name = self._array(np.uint8, length).tobytes().decode()
        kind, _, offset, size = self._take("<BIQQ")
        return name, (kind == 1, offset, size)

    def _take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._array(np.uint8, struct.calcsize(form)).tobytes())

    def _array(self, kind: Any, count: int) -> NDArray[Any]:
        found = np.frombuffer(self._bytes, kind, count, self._at)
        self._at += found.nbytes
        return found


def unpacked(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Weights of blocks: half-precision scale, then 16 bytes of two weights each."""
    rows = blocks.reshape(-1, 2 + _BLOCK // 2)
    scale = np.ascontiguousarray(rows[:, :2]).view(np.float16).astype(np.float32)
    pairs = rows[:, 2:]
    return (np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32) - 8) * scale


class PackedEmbedding(nn.Module):
    """Rows of a packed table, unpacked as they are asked for."""

    def __init__(self, packed: NDArray[np.uint8], width: int) -> None:
        super().__init__()
        self.width = width
        self._rows = packed.reshape(-1, width // _BLOCK * (2 + _BLOCK // 2))

    def forward(self, ids: Tensor) -> Tensor:
        """(N,) -> (N, d)."""
        return torch.from_numpy(unpacked(self._rows[ids.numpy()]).reshape(len(ids), self.width))


class WordMap(nn.Module):
    """A map of the vectors of several layers onto those of another encoder: a linear one, and a layer of a transformer
    that corrects it. Learned by training/encoders/languages.py."""

    heads: Final = 6

    def __init__(self, inputs: int, width: int, wide: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.linear = nn.Linear(inputs, width)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, wide), nn.Linear(wide, width)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """states: (B, N, inputs); mask: (B, N) bool, or None. Returns (B, N, width)."""
        x = self.linear((states - self.mean) / self.deviation)
        queried = self.attention_in(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in queried)
        keys = None if mask is None else mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=keys).transpose(1, 2).flatten(2)
        x = x + self.attention_out(attended)
        out: Tensor = x + self.contract(F.gelu(self.expand(self.feed_forward_norm(x))))
        return out


class PackedVectors:
    """The encoder and its tokenizer, see TokenVectors. As it is, it gives the vectors of READ_LAYERS side by side."""

    def __init__(self, path: Path) -> None:
        file = PackedFile(path)
        self._tokenizer = _tokenizer(file)
        self.width = file.width * len(READ_LAYERS)
        config = {
            "hidden_size": file.width,
            "intermediate_size": file.wide,
            "num_attention_heads": file.heads,
            "num_hidden_layers": file.layers,
            "max_position_embeddings": _LONGEST,
            "layer_norm_eps": _EPS,
            "vocab_size": 1,
        }
        bert = Bert(config, "meta")
        shapes = {name: weight.shape for name, weight in bert.state_dict().items()}
        weights = {name: file.tensor(packed).reshape(shapes[name]) for packed, name in _named(file.layers)}
        weights["embeddings.word_embeddings.weight"] = torch.empty(shapes["embeddings.word_embeddings.weight"])
        bert.load_state_dict(weights, assign=True)
        bert.embeddings["word_embeddings"] = PackedEmbedding(file.raw("emb.word")[1], file.width)
        self._bert = bert.eval().requires_grad_(False)
        self.model: nn.Module = self._bert
        self._map: WordMap | None = None

    def learn(self, learned: Mapping[str, Tensor]) -> None:
        """Take in a WordMap: its vectors take the place of the encoder's own. Raises KeyError or RuntimeError."""
        wide, width = learned["expand.weight"].shape
        self._map = WordMap(self.width, width, wide)
        self._map.load_state_dict(learned)
        self._map.eval().requires_grad_(False)
        self.width = width

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)

    def read(self, texts: Sequence[str]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        encoded = [self._tokenizer.encode(text) for text in texts]
        ids = [torch.tensor([_BEGIN, *one.ids[: _LONGEST - 2], _END]) for one in encoded]
        with torch.inference_mode():
            states = self._bert.states(ids)
            layers = torch.cat([states[layer - 1] for layer in READ_LAYERS], dim=1)
            parts = torch.split(layers, [len(each) for each in ids])
            read = [part[1:-1] if self._map is None else self._map(part[None, 1:-1])[0] for part in parts]
        vectors: list[NDArray[np.float32]] = [part.numpy() for part in read]
        ends = [np.array(one.offsets, np.int64).reshape(-1, 2)[:, 1] for one in encoded]
        return [(own, np.maximum(end[: len(own)] - 1, 0)) for own, end in zip(vectors, ends, strict=True)]


_BEGIN, _END = 0, 2


def _named(layers: int) -> list[tuple[str, str]]:
    """Name in the file, name in our Bert."""
    names = [
        ("emb.pos", "embeddings.position_embeddings.weight"),
        ("emb.type", "embeddings.token_type_embeddings.weight"),
        ("emb.ln.w", "embeddings.LayerNorm.weight"),
        ("emb.ln.b", "embeddings.LayerNorm.bias"),
    ]
    for layer in range(layers):
        for short, name in _NAMES.items():
            names += [
                (f"l{layer}.{short}.{kind[0]}", f"encoder.layer.{layer}.{name}.{kind}") for kind in ("weight", "bias")
            ]
    return names


def _tokenizer(file: PackedFile) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.Unigram(file.pieces, unk_id=file.unknown))
    # XLM-R's own table of characters differs from this in rare ones.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer
