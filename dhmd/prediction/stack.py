"""One encoder layer of many transformers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from dhmd.model.transformer import EncoderLayer, Members
from dhmd.prediction.maps import Affine, ColumnMap, centred, joined, scaled

SAFE: Final = 115.0
"""Scores up to here may go through exp2 as they are: neither it nor a sum of some hundred overflows or vanishes."""
LEAST: Final = -1e30
AT_ONCE: Final = 200_000
"""Scores that are worked on at a time on a CPU: 0.8 MB, which the cache of a core holds."""


class Stack(nn.Module):
    """One layer of G transformers side by side, those that attend (A) first. Their residual streams are centred.

    Attention is written as plain products, which beat torch's fused kernels on sequences this short and narrow:

    - Scores are powers of two, since exp2 takes a third of the time of exp where MKL computes the latter on an AMD.
    - No greatest score is taken off before exp2 where no input can make a score that needs it: what attends is
      standardised, so the weights alone bound the scores.
    - The values of a key that is absent are zero, and behind each head's values stands a 1 for a key that is present:
      it sums the weights, and becomes, divided by that sum, 1 for a query that sees something and 0 for one that sees
      nothing. The output map multiplies its bias with it.
    - Of many heads, those whose scores stay in the cache are worked on at a time.
    """

    out: Tensor
    """(A, d, H (e + 1))."""

    def __init__(self, parts: Sequence[tuple[EncoderLayer, Members]], owning: int, attending: int) -> None:
        """parts: which transformers of which group, one part behind the other. owning: how many, of those that stand
        first, have keys and values made here, of themselves."""
        super().__init__()
        d, self.heads = parts[0][0].attention_norm.d, parts[0][0].attention.heads
        self.attending = attending
        weight, bias = joined(layer.attention_norm.into(layer.attention.in_proj, m) for layer, m in parts)
        scale = torch.cat([torch.full((d,), math.log2(math.e) / math.sqrt(d // self.heads)), torch.ones(2 * d)])
        weight, bias = (weight * scale[:, None])[:attending], (bias * scale)[:attending]
        self.safe = not attending or largest_score((weight, bias), self.heads) <= SAFE
        self.query = ColumnMap(weight[:, :d], bias[:, :d])
        self.key_value = ColumnMap(weight[:owning, d:], bias[:owning, d:])
        weight, bias = centred(joined(layer.attention.out_proj.of(m) for layer, m in parts))
        by_head = weight[:attending].view(attending, d, self.heads, d // self.heads)
        shares = (bias[:attending, :, None, None] / self.heads).expand(-1, -1, self.heads, 1)
        self.register_buffer("out", torch.cat([by_head, shares], dim=-1).flatten(2))
        self.expand = ColumnMap(*joined(layer.feed_forward_norm.into(layer.expand, m) for layer, m in parts))
        self.contract = ColumnMap(*centred(joined(layer.contract.of(m) for layer, m in parts)))

    def attend(self, x: Tensor, standard: Tensor, read: Sequence[KeysValues]) -> None:
        """Adds to x (G, d, B T) what is read. standard: x, standardised. read: of those that attend, one behind the
        other."""
        d, heads = x.shape[1], self.heads
        batch = read[0].keys.shape[1]
        query = self.query(standard[: self.attending]).view(self.attending, heads, d // heads, batch, -1)
        query = query.permute(0, 3, 1, 2, 4).contiguous()  # (A, B, H, e, T)
        found = query.new_empty(self.attending, heads, d // heads + 1, batch, query.shape[-1])
        first = 0
        for source in read:
            these = slice(first, first := first + len(source.keys))
            weighted = self._weighted(query[these], source)
            sums = weighted[:, :, :, -1:].clamp(min=torch.finfo(weighted.dtype).tiny)
            torch.div(weighted, sums, out=found[these].permute(0, 3, 1, 2, 4))
        x[: self.attending].baddbmm_(self.out, found.flatten(3).flatten(1, 2))

    def _weighted(self, query: Tensor, read: KeysValues) -> Tensor:
        """query: (A, B, H, e, T). Returns sums of values under weights that do not sum to 1: (A, B, H, e + 1, T)."""
        keys, values, query = (each.flatten(0, 2) for each in (read.keys, read.values, query))
        parts = []
        for rows, transformers in _pieces(read, query.shape[-1]):
            scores = torch.bmm(keys[rows].transpose(1, 2), query[rows])  # (rows, U, T)
            causal = None if read.causal is None else read.causal[transformers, None]
            of_each = scores.view(1 if causal is None else len(causal), -1, *scores.shape[1:])
            if not self.safe:
                allowed = (values[rows, -1, :, None] > 0).view(*of_each.shape[:3], 1)
                of_each.masked_fill_(~(allowed if causal is None else allowed & (causal > 0)), LEAST)
                scores -= scores.amax(dim=1, keepdim=True)
            scores.exp2_()
            if causal is not None:
                of_each.mul_(causal)
            parts.append(torch.bmm(values[rows], scores))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(*read.values.shape[:-1], -1)

    def feed_forward(self, x: Tensor, hidden: Tensor) -> None:
        """Adds to x (G, d, N). hidden: room for (G, 4 d, N)."""
        self.contract.onto(self.expand.into(scaled(x), hidden).relu_(), x)


def _pieces(read: KeysValues, steps: int) -> Iterator[tuple[slice, slice]]:
    """Cut up A B H rows, with queries of so many steps. Yields rows, and the part of `read.causal` that is theirs."""
    transformers, batch, heads, _, keys = read.keys.shape
    each = batch * heads
    # What is exported serves batches of any size.
    if torch.compiler.is_compiling() or transformers * each * keys * steps <= AT_ONCE:
        yield slice(None), slice(None)
        return
    some = max(1, AT_ONCE // (keys * steps))
    for transformer in range(transformers):
        its = 0 if read.causal is None or len(read.causal) == 1 else transformer
        for first in range(0, each, some):
            rows = slice(transformer * each + first, transformer * each + min(first + some, each))
            yield rows, slice(its, its + 1)


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of A transformers, and which of them a query may see: those no later than it is.

    Those of an absent step are zero, but for keys.
    """

    keys: Tensor
    """([L], A, B, H, e, U)."""
    values: Tensor
    """([L], A, B, H, e + 1, U): the last is 1 for a step that is present."""
    causal: Tensor | None
    """(A, U, T) of 0 and 1, (1, U, T) where it is the same for all; None where all queries are behind all keys."""

    @classmethod
    def room(cls, present: Tensor, heads: int, d: int, causal: Tensor | None, *layers: int) -> KeysValues:
        """present: (A, B, U) of 0 and 1."""
        transformers, batch, steps = present.shape
        shape = *layers, transformers, batch, heads
        keys = present.new_empty(*shape, d // heads, steps)
        values = present.new_empty(*shape, d // heads + 1, steps)
        values[..., -1, :] = present[:, :, None]
        return cls(keys, values, causal)

    def fill(self, made: Tensor) -> None:
        """made: (A, [layers x] 2 d, B U), keys before values."""
        *layers, transformers, batch, heads, e, steps = self.keys.shape
        made = made.view(transformers, *layers, 2, heads, e, batch, steps)
        order = (*range(1, 1 + len(layers)), 0, -2, -4, -3, -1)
        self.keys.copy_(made.select(-5, 0).permute(order))
        torch.mul(made.select(-5, 1).permute(order), self.values[..., -1:, :], out=self.values[..., :-1, :])

    def layer(self, index: int) -> KeysValues:
        return KeysValues(self.keys[index], self.values[index], self.causal)

    def part(self, transformers: slice) -> KeysValues:
        """Those of some transformers, of one layer or of all."""
        causal = self.causal if self.causal is None or len(self.causal) == 1 else self.causal[transformers]
        some = (..., transformers, *(slice(None),) * 4)
        return KeysValues(self.keys[some], self.values[some], causal)


def largest_score(maps: Affine, heads: int) -> float:
    """A bound on the attention scores of standardised columns, whose length is at most sqrt(d).

    maps: of queries, scaled, keys and values: (A, 3 d, d) and (A, 3 d).
    """
    weight, bias = (each.reshape(len(each), 3, heads, -1, *each.shape[2:]) for each in maps)
    length = torch.linalg.matrix_norm(weight, ord=2) * math.sqrt(weight.shape[-1]) + bias.norm(dim=-1)  # (A, 3, H)
    return float((length[:, 0] * length[:, 1]).max())
