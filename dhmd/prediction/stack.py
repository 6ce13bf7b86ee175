"""One encoder layer of many transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from dhmd.model.transformer import EncoderLayer, Members
from dhmd.prediction.maps import Affine, ColumnMap, centred, joined, scaled

SAFE: Final = 80.0
"""Scores up to here may go through exp as they are: neither it nor a sum of some hundred overflows or vanishes."""
LEAST: Final = -1e30


class Stack(nn.Module):
    """One layer of G transformers side by side, those that attend (A) first. Their residual streams are centred.

    Attention is written as plain products, which beat torch's fused kernels on sequences this short and narrow:

    - No greatest score is taken off before exp where no input can make a score that needs it: what attends is
      standardised, so the weights alone bound the scores.
    - The values of a key that is absent are zero, and behind each head's values stands a 1 for a key that is present:
      it sums the weights, and becomes, divided by that sum, 1 for a query that sees something and 0 for one that sees
      nothing. The output map multiplies its bias with it.
    """

    out: Tensor
    """(A, d, H (e + 1))."""

    def __init__(self, parts: Sequence[tuple[EncoderLayer, Members]], reading: int, attending: int) -> None:
        """parts: which transformers of which group, one part behind the other. reading: how many, of those that stand
        first, have keys and values from elsewhere."""
        super().__init__()
        d, self.heads = parts[0][0].attention_norm.d, parts[0][0].attention.heads
        self.attending = attending
        weight, bias = joined(layer.attention_norm.into(layer.attention.in_proj, m) for layer, m in parts)
        scale = torch.cat([torch.full((d,), 1 / math.sqrt(d // self.heads)), torch.ones(2 * d)])
        weight, bias = (weight * scale[:, None])[:attending], (bias * scale)[:attending]
        self.safe = largest_score((weight, bias), self.heads) <= SAFE
        self.query = ColumnMap(weight[:, :d], bias[:, :d])
        self.key_value = ColumnMap(weight[reading:, d:], bias[reading:, d:])
        weight, bias = centred(joined(layer.attention.out_proj.of(m) for layer, m in parts))
        by_head = weight[:attending].view(attending, d, self.heads, -1)
        shares = (bias[:attending, :, None, None] / self.heads).expand(-1, -1, self.heads, 1)
        self.register_buffer("out", torch.cat([by_head, shares], dim=-1).flatten(2))
        self.expand = ColumnMap(*joined(layer.feed_forward_norm.into(layer.expand, m) for layer, m in parts))
        self.contract = ColumnMap(*centred(joined(layer.contract.of(m) for layer, m in parts)))

    def attend(self, x: Tensor, standard: Tensor, read: KeysValues, seen: AttentionMask, scores: Tensor) -> None:
        """Adds to x (G, d, B T) what is read. standard: x, standardised. scores: room for (A, B, H, U, T)."""
        batch, heads, e, steps = read.keys.shape[1:]
        query = self.query(standard[: self.attending]).view(-1, heads, e, batch, steps).permute(0, 3, 1, 2, 4)
        keys = read.keys.flatten(0, 2).transpose(1, 2)
        torch.bmm(keys, query.reshape(-1, e, steps), out=scores.flatten(0, 2))
        if not self.safe:
            scores = torch.where(seen.allowed, scores, LEAST)
            scores = scores - scores.amax(dim=3, keepdim=True)
        weights = scores.exp_().mul_(seen.causal)
        found = torch.bmm(read.values.flatten(0, 2), weights.flatten(0, 2)).view(read.values.shape)
        found = found / found[:, :, :, -1:].clamp(min=torch.finfo(found.dtype).tiny)
        x[: self.attending].baddbmm_(self.out, found.permute(0, 2, 3, 1, 4).reshape(-1, heads * (e + 1), batch * steps))

    def feed_forward(self, x: Tensor, hidden: Tensor) -> None:
        """Adds to x (G, d, N). hidden: room for (G, 4 d, N)."""
        torch.baddbmm(self.expand.bias, self.expand.weight, scaled(x), out=hidden).relu_()
        self.contract.onto(hidden, x)


class AttentionMask(NamedTuple):
    """Marks the keys queries of A transformers may see: those no later than they are, and of them those present."""

    causal: Tensor
    """(A, 1, 1, U, T) of 0 and 1."""
    present: Tensor
    """(A, B, 1, 1, U) of 0 and 1."""
    allowed: Tensor
    """(A, B, 1, U, T) bool: both."""

    @classmethod
    def of(cls, causal: Tensor, present: Tensor) -> AttentionMask:
        """present: (A, B, U) bool."""
        allowed = (causal > 0) & present[:, :, None, :, None]
        return cls(causal, present[:, :, None, None].to(causal.dtype), allowed)

    def behind(self, first: int) -> AttentionMask:
        """The part from the `first` transformer on."""
        return AttentionMask(*(each[first:] for each in self))


class KeysValues:
    """Keys (..., A, B, H, e, U) and values (..., A, B, H, e + 1, U), to be filled, the last row of the values apart."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    @classmethod
    def room(cls, seen: AttentionMask, heads: int, d: int, *layers: int) -> KeysValues:
        transformers, batch, _, _, steps = seen.present.shape
        shape = *layers, transformers, batch, heads
        keys = seen.present.new_empty(*shape, d // heads, steps)
        values = seen.present.new_empty(*shape, d // heads + 1, steps)
        values[..., -1:, :] = seen.present
        return cls(keys, values)

    def fill(self, made: Tensor, present: Tensor) -> None:
        """made: (A, [layers x] 2 d, B U), keys before values; present: as of `AttentionMask`, for the same ones."""
        *layers, transformers, batch, heads, e, steps = self.keys.shape
        made = made.view(transformers, *layers, 2, heads, e, batch, steps)
        order = (*range(1, 1 + len(layers)), 0, -2, -4, -3, -1)
        self.keys.copy_(made.select(-5, 0).permute(order))
        torch.mul(made.select(-5, 1).permute(order), present, out=self.values[..., :-1, :])

    def __getitem__(self, where: tuple[int | slice, ...]) -> KeysValues:
        return KeysValues(self.keys[where], self.values[where])


def largest_score(maps: Affine, heads: int) -> float:
    """A bound on the attention scores of standardised columns, whose length is at most sqrt(d).

    maps: of queries, scaled, keys and values: (A, 3 d, d) and (A, 3 d).
    """
    weight, bias = (each.reshape(len(each), 3, heads, -1, *each.shape[2:]) for each in maps)
    length = torch.linalg.matrix_norm(weight, ord=2) * math.sqrt(weight.shape[-1]) + bias.norm(dim=-1)  # (A, 3, H)
    return float((length[:, 0] * length[:, 1]).max())
