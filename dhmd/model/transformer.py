"""The causal transformer of every branch (Tsai et al. 2019, MulT), with masks for steps that are missing.

Shapes: B batch, T steps of the query, U steps of keys and values, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal_positions(steps: int, d: int, like: Tensor) -> Tensor:
    """(steps, d): all sines, then all cosines (tensor2tensor form), positions counted from 1."""
    half = d // 2
    frequency = torch.exp(
        torch.arange(half, dtype=torch.float32, device=like.device) * (-math.log(10_000.0) / (half - 1))
    )
    angle = torch.arange(1, steps + 1, dtype=torch.float32, device=like.device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)


def visible(query_steps: int, key_mask: Tensor) -> Tensor:
    """Which keys a query may see: causal (j <= i + |U - T|) and present.

    key_mask: (B, U) bool. Returns (B, T, U) bool.
    """
    key_steps = key_mask.shape[1]
    causal = torch.ones(query_steps, key_steps, dtype=torch.bool, device=key_mask.device)
    causal = causal.tril(abs(key_steps - query_steps))
    return causal & key_mask[:, None, :]


class Attention(nn.Module):
    """Multi-head attention with biases; `in_proj` stacks query, key and value maps."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, source: Tensor | None, allowed: Tensor) -> Tensor:
        """query: (B, T, d); source: (B, U, d), None for self-attention; allowed: (B, T, U). Returns (B, T, d).

        A query that may see nothing gets zeros, so an absent modality adds nothing to the residual stream.
        """
        d = query.shape[-1]
        if source is None:
            q, k, v = self.in_proj(query).chunk(3, dim=-1)
        else:
            q = F.linear(query, self.in_proj.weight[:d], self.in_proj.bias[:d])
            k, v = F.linear(source, self.in_proj.weight[d:], self.in_proj.bias[d:]).chunk(2, dim=-1)
        split = (self.heads, d // self.heads)
        q, k, v = (x.unflatten(-1, split).transpose(1, 2) for x in (q, k, v))
        sees_any = allowed.any(dim=-1, keepdim=True)
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=(allowed | ~sees_any)[:, None], dropout_p=self.dropout if self.training else 0.0
        )
        projected: Tensor = self.out_proj(out.transpose(1, 2).flatten(-2))
        return projected * sees_any


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward; the query's LayerNorm is applied to the source too."""

    def __init__(self, d: int, heads: int, attention_dropout: float, residual_dropout: float) -> None:
        super().__init__()
        self.attention = Attention(d, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(d)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.expand = nn.Linear(d, 4 * d)
        self.contract = nn.Linear(4 * d, d)
        self.dropout = nn.Dropout(residual_dropout)
        for linear in (self.expand, self.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, source: Tensor | None, allowed: Tensor) -> Tensor:
        normed_source = None if source is None else self.attention_norm(source)
        x = x + self.dropout(self.attention(self.attention_norm(x), normed_source, allowed))
        hidden = F.relu(self.expand(self.feed_forward_norm(x)))
        out: Tensor = x + self.dropout(self.contract(self.dropout(hidden)))
        return out


class Transformer(nn.Module):
    """Self-attention over `x`, or attention of `x` to a `source` that is embedded once (DHMD, step 5)."""

    def __init__(
        self,
        d: int,
        heads: int,
        layers: int,
        *,
        attention_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(d)
        self.layers = nn.ModuleList(EncoderLayer(d, heads, attention_dropout, residual_dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.embedding_dropout = nn.Dropout(embedding_dropout)

    def embed(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d): scaled, with positions."""
        embedded: Tensor = self.embedding_dropout(x * self.scale + sinusoidal_positions(x.shape[1], x.shape[2], x))
        return embedded

    def forward(self, x: Tensor, mask: Tensor, source: Tensor | None = None) -> Tensor:
        """x: (B, T, d). source: (B, U, d) or None. mask: (B, U) bool over the keys, (B, T) without a source."""
        allowed = visible(x.shape[1], mask)
        x = self.embed(x)
        source = None if source is None else self.embed(source)
        for layer in self.layers:
            x = layer(x, source, allowed)
        out: Tensor = self.norm(x)
        return out
