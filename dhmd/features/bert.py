"""BERT (Devlin et al. 2019), in a few lines.

Shapes: N tokens of all texts, one text behind the other; d width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bert(nn.Module):
    """Reads several texts at once, without padding. Its parameters have the names that Hugging Face gives them."""

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

    def forward(self, texts: Sequence[Tensor]) -> Tensor:
        """Token ids of each text, at most `longest` -> (N, d)."""
        return self.states(texts)[-1]

    def states(self, texts: Sequence[Tensor]) -> list[Tensor]:
        """Token ids of each text, at most `longest` -> (N, d) after each layer."""
        texts = [ids[: self.longest] for ids in texts]
        lengths = [ids.shape[0] for ids in texts]
        parts: Any = self.embeddings
        words = parts.word_embeddings(torch.cat(texts))
        places = torch.cat([parts.position_embeddings.weight[:length] for length in lengths])
        x: Tensor = parts.LayerNorm(words + places + parts.token_type_embeddings.weight[0])
        layers: Any = self.encoder.layer
        states: list[Tensor] = []
        for layer in layers:
            attention = layer.attention["self"]
            queried = (
                _apart(linear(x).view(1, x.shape[0], self.heads, -1).transpose(1, 2), lengths)
                for linear in (attention.query, attention.key, attention.value)
            )
            read = [F.scaled_dot_product_attention(*each)[0].transpose(0, 1) for each in zip(*queried, strict=True)]
            x = layer.attention.output.LayerNorm(x + layer.attention.output.dense(torch.cat(read).flatten(1)))
            x = layer.output.LayerNorm(x + layer.output.dense(F.gelu(layer.intermediate.dense(x))))
            states.append(x)
        return states


def _apart(x: Tensor, lengths: Sequence[int]) -> Sequence[Tensor]:
    """(1, H, N, d / H) -> the same of each text."""
    # To an exported program, which reads texts of any length, a part of a known length would be a constant.
    return torch.split(x, list(lengths), dim=2) if len(lengths) > 1 else [x]
