"""Scaled dot-product attention of a group of transformers, with dropout that is cheap on a CPU.

Shapes: G transformers, B batch, T steps of the query, U steps of keys and values, d width, H heads, e = d / H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dhmd.model.dropout import keep


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, heads: int, rates: Sequence[float]) -> Tensor:
    """Reads values v where queries q match keys k. Returns (G, B, T, d).

    q: (G, B, T, d); k, v: (G, B, U, d); bias: (G, B, T, U), added to the scores; rates: dropout on each transformer's
    attention weights.
    """
    if q.device.type == "cpu" and any(rates):
        out: Tensor = CPUAttention.apply(q, k, v, bias, heads, tuple(rates))  # type: ignore[no-untyped-call]
        return out
    if len(set(rates)) > 1:
        one_each = (attend(q[[g]], k[[g]], v[[g]], bias[[g]], heads, [rate]) for g, rate in enumerate(rates))
        return torch.cat(list(one_each))
    query, key, value = (x.reshape(-1, x.shape[2], heads, x.shape[3] // heads).transpose(1, 2) for x in (q, k, v))
    read = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.flatten(0, 1)[:, None], dropout_p=rates[0])
    return read.transpose(1, 2).reshape(q.shape)


class CPUAttention(torch.autograd.Function):
    """Attention with dropout, one transformer after the other so that its (B, H, T, U) weights stay in the cache.

    torch's own, given a dropout, lays out masks that cost more than the matrix products. Products with a side of e, a
    handful of numbers, run four times faster with that side first: hence the transposed results.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, heads: int, rates: tuple[float, ...]
    ) -> Tensor:
        ctx.heads, ctx.rates = heads, rates
        saved: list[Tensor] = []
        out = q.new_empty(q.shape)
        for g, rate in enumerate(rates):
            rows = [_by_head(x[g], heads) for x in (q, k, v)]
            query, key, value = rows
            scores = torch.bmm(query * (1 / math.sqrt(query.shape[-1])), key.transpose(1, 2))  # (B H, T, U)
            scores.view(q.shape[1], heads, *scores.shape[1:]).add_(bias[g][:, None])
            weights = torch.softmax(scores, dim=-1)
            dropped = weights
            if rate:
                dropped = torch.mul(weights, keep(weights.numel(), rate, weights).view(weights.shape), out=scores)
            read = torch.bmm(value.transpose(1, 2), dropped.transpose(1, 2))  # (B H, e, T)
            _put(out[g], read, 1 / (1 - rate))
            saved += [*rows, weights, dropped]
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        saved, rates, heads = ctx.saved_tensors, ctx.rates, ctx.heads
        to_query = gradient.new_empty(gradient.shape)
        steps = saved[1].shape[1]
        to_key, to_value = (gradient.new_empty(*gradient.shape[:2], steps, gradient.shape[3]) for _ in range(2))
        for g, rate in enumerate(rates):
            query, key, value, weights, dropped = saved[5 * g : 5 * g + 5]
            back = _by_head(gradient[g], heads)  # (B H, T, e)
            to_scores = torch.bmm(back, value.transpose(1, 2)).mul_(dropped)
            to_scores.addcmul_(weights, to_scores.sum(dim=-1, keepdim=True), value=-1)
            _put(to_value[g], torch.bmm(back.transpose(1, 2), dropped), 1 / (1 - rate))
            scale = 1 / math.sqrt(query.shape[-1]) / (1 - rate)
            _put(to_query[g], torch.bmm(key.transpose(1, 2), to_scores.transpose(1, 2)), scale)
            _put(to_key[g], torch.bmm(query.transpose(1, 2), to_scores), scale)
        return to_query, to_key, to_value, None, None, None


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, steps, d) -> (B H, steps, e)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2).flatten(0, 1)


def _put(out: Tensor, read: Tensor, factor: float) -> None:
    """(B H, e, steps) times `factor` into (B, steps, d)."""
    torch.mul(read.view(out.shape[0], -1, read.shape[2]).transpose(1, 2), factor, out=out)
