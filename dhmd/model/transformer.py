"""The causal transformers of every branch (Tsai et al. 2019, MulT), with masks for steps that are missing.

Transformers of one shape stand side by side in a group: their weights are stacked, and those whose sequences are
equally long run as one.

Shapes: G transformers of a group, B batch, T steps of the query, U steps of keys and values, d width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.model.attention import attend
from dhmd.model.dropout import dropout

Name = TypeVar("Name", bound=str)


def sinusoidal_positions(steps: int, d: int, like: Tensor) -> Tensor:
    """(steps, d): all sines, then all cosines (tensor2tensor form), positions counted from 1."""
    half = d // 2
    frequency = torch.exp(
        torch.arange(half, dtype=torch.float32, device=like.device) * (-math.log(10_000.0) / (half - 1))
    )
    angle = torch.arange(1, steps + 1, dtype=torch.float32, device=like.device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)


def visible(query_steps: int, key_mask: Tensor) -> Tensor:
    """Marks the keys a query may see: causal (j <= i + |U - T|) and present.

    key_mask: (..., U) bool. Returns (..., T, U) bool.
    """
    key_steps = key_mask.shape[-1]
    causal = torch.ones(query_steps, key_steps, dtype=torch.bool, device=key_mask.device)
    causal = causal.tril(abs(key_steps - query_steps))
    return causal & key_mask[..., None, :]


def newest_present(mask: Tensor) -> Tensor:
    """(..., T) bool -> (...) index of the last step that is present; T - 1 where none is."""
    return mask.shape[-1] - 1 - mask.flip(-1).to(torch.uint8).argmax(dim=-1)


class AttentionBias(NamedTuple):
    """Holds what the queries of a group see, the same for each layer."""

    bias: Tensor
    """(G, B, T, U): 0 where a query sees a key, -inf where it does not. A query that may see nothing sees all, and
    what it read is dropped."""
    any: Tensor
    """(G, B, T, 1): 1 for a query that sees something, else 0."""

    @classmethod
    def of(cls, allowed: Tensor, like: Tensor) -> AttentionBias:
        """allowed: (G, B, T, U) bool."""
        sees_any = allowed.any(dim=-1, keepdim=True)
        bias = torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~(allowed | ~sees_any), float("-inf"))
        return cls(bias, sees_any.to(like.dtype))


class Members(NamedTuple):
    """The transformers of a group that run together."""

    places: tuple[int, ...]
    whole: bool
    """These are all, in their order."""

    def of(self, stacked: Tensor) -> Tensor:
        """Their part of (G, ...)."""
        if self.whole:
            return stacked
        first, *others = self.places
        return stacked[list(self.places)] if others else stacked[first : first + 1]


class StackedLinear(nn.Module):
    """G linear maps. weight: (G, outputs, inputs); bias: (G * outputs), flat as biases are, which take no decay."""

    def __init__(self, group: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(group, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(group * outputs))
        for one in self.weight:
            nn.init.xavier_uniform_(one)

    def of(self, members: Members) -> tuple[Tensor, Tensor]:
        """Their weight (G, outputs, inputs) and bias (G, outputs)."""
        return members.of(self.weight), members.of(self.bias.view(self.weight.shape[:2]))


class StackedNorm(nn.Module):
    """The scale and shift of G layer norms, flat: (G * d)."""

    def __init__(self, group: int, d: int) -> None:
        super().__init__()
        self.d = d
        self.weight = nn.Parameter(torch.ones(group * d))
        self.bias = nn.Parameter(torch.zeros(group * d))

    def of(self, members: Members) -> tuple[Tensor, Tensor]:
        """Their scale and shift (G, d)."""
        return members.of(self.weight.view(-1, self.d)), members.of(self.bias.view(-1, self.d))

    def into(self, linear: StackedLinear, members: Members) -> tuple[Tensor, Tensor]:
        """Weight and bias of the linear maps that follow, with scale and shift taken into them."""
        weight, bias = linear.of(members)
        scale, shift = self.of(members)
        return weight * scale[:, None], torch.baddbmm(bias[..., None], weight, shift[..., None])[..., 0]


def standardise(x: Tensor) -> Tensor:
    """A layer norm without its scale and shift."""
    return F.layer_norm(x, x.shape[-1:])


def mapped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Maps x (G, B, T, inputs) by weight (G, outputs, inputs) and bias (G, outputs) to (G, B, T, outputs)."""
    out = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.transpose(1, 2))
    return out.view(*x.shape[:3], -1)


class Attention(nn.Module):
    """Multi-head attention with biases; `in_proj` stacks query, key and value maps."""

    def __init__(self, d: int, heads: int, dropouts: Sequence[float]) -> None:
        super().__init__()
        self.heads = heads
        self.dropouts = tuple(dropouts)
        self.in_proj = StackedLinear(len(dropouts), d, 3 * d)
        self.out_proj = StackedLinear(len(dropouts), d, d)

    def forward(
        self, query: Tensor, source: Tensor | None, norm: StackedNorm, seen: AttentionBias, members: Members
    ) -> Tensor:
        """query: (G, B, T, d); source: (G, B, U, d), None for self-attention; both standardised, and `norm` to be
        applied to them. Returns (G, B, T, d); zeros for a query that sees nothing, so an absent modality adds nothing
        to the residual stream.
        """
        d = query.shape[-1]
        weight, bias = norm.into(self.in_proj, members)
        if source is None:
            q, k, v = mapped(query, weight, bias).chunk(3, dim=-1)
        else:
            q = mapped(query, weight[:, :d], bias[:, :d])
            k, v = mapped(source, weight[:, d:], bias[:, d:]).chunk(2, dim=-1)
        rates = [self.dropouts[i] if self.training else 0.0 for i in members.places]
        read = attend(q, k, v, seen.bias, self.heads, rates)
        return mapped(read, *self.out_proj.of(members)) * seen.any


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward; the query's layer norm is applied to the source too."""

    def __init__(self, d: int, heads: int, attention_dropouts: Sequence[float], residual_dropout: float) -> None:
        super().__init__()
        group = len(attention_dropouts)
        self.attention = Attention(d, heads, attention_dropouts)
        self.attention_norm = StackedNorm(group, d)
        self.feed_forward_norm = StackedNorm(group, d)
        self.expand = StackedLinear(group, d, 4 * d)
        self.contract = StackedLinear(group, 4 * d, d)
        self.residual_dropout = residual_dropout

    def forward(self, x: Tensor, source: Tensor | None, seen: AttentionBias, members: Members) -> Tensor:
        """x: (G, B, T, d); source: (G, B, U, d), standardised, None for self-attention. Returns (G, B, T, d)."""
        rate = self.residual_dropout if self.training else 0.0
        x = x + dropout(self.attention(standardise(x), source, self.attention_norm, seen, members), rate)
        hidden = F.relu(mapped(standardise(x), *self.feed_forward_norm.into(self.expand, members)))
        return x + dropout(mapped(dropout(hidden, rate), *self.contract.of(members)), rate)


class Transformers(nn.Module):
    """Named transformers of one shape: self-attention, or attention to a source that is embedded once (DHMD, step 5).

    attention_dropouts: name -> dropout on that transformer's attention weights.
    """

    def __init__(
        self,
        d: int,
        heads: int,
        layers: int,
        attention_dropouts: Mapping[str, float],
        *,
        embedding_dropout: float = 0.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.names = tuple(attention_dropouts)
        self.scale = math.sqrt(d)
        rates = tuple(attention_dropouts.values())
        self.layers = nn.ModuleList(EncoderLayer(d, heads, rates, residual_dropout) for _ in range(layers))
        self.norm = StackedNorm(len(rates), d)
        self.embedding_dropout = embedding_dropout

    def forward(
        self, x: Mapping[Name, Tensor], mask: Mapping[Name, Tensor], source: Mapping[Name, Tensor] | None = None
    ) -> dict[Name, Tensor]:
        """Runs any of the group, by name: x (B, T, d); mask (B, U) bool over the keys, (B, T) without a source; source
        (B, U, d). Returns (B, T, d)."""
        out: dict[Name, Tensor] = {}
        for names, members in self._together(x, mask):
            stacked, masks = _stacked(x, names), _stacked(mask, names)
            seen = AttentionBias.of(visible(stacked.shape[2], masks), stacked)
            read = None if source is None else standardise(self._embed(_stacked(source, names)))
            hidden = self._embed(stacked)
            for layer in self.layers:
                hidden = layer(hidden, read, seen, members)
            out.update(zip(names, self._normed(hidden, members), strict=True))
        return out

    def newest(
        self, x: Mapping[Name, Tensor], mask: Mapping[Name, Tensor], *, every: bool
    ) -> tuple[dict[Name, Tensor], dict[Name, Tensor]]:
        """Self-attention, of which the gradient reaches the newest present step alone.

        By name: x (B, T, d), mask (B, T). Returns the newest step (B, d), zeros where none is present; and, if asked
        for, every step (B, T, d), detached. What is not asked for is not computed in the last layer.
        """
        last: dict[Name, Tensor] = {}
        steps: dict[Name, Tensor] = {}
        for names, members in self._together(x, mask):
            hidden, masks = self._embed(_stacked(x, names)), _stacked(mask, names)
            seen = AttentionBias.of(visible(hidden.shape[2], masks), hidden)
            *before, final = self.layers
            for layer in before:
                hidden = layer(hidden, None, seen, members)
            if every:
                with torch.no_grad():
                    steps.update(zip(names, self._normed(final(hidden, None, seen, members), members), strict=True))
            at = newest_present(masks)[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
            sees = AttentionBias.of(masks[:, :, None], hidden)  # the newest step sees all that are present
            one = final(hidden.gather(2, at), standardise(hidden), sees, members)
            there = masks.any(dim=-1)[..., None]
            last.update(zip(names, self._normed(one, members)[:, :, 0] * there, strict=True))
        return last, steps

    def _embed(self, x: Tensor) -> Tensor:
        """(G, B, T, d) -> (G, B, T, d): scaled, with positions."""
        embedded = x * self.scale + sinusoidal_positions(x.shape[2], x.shape[3], x)
        return dropout(embedded, self.embedding_dropout if self.training else 0.0)

    def _normed(self, x: Tensor, members: Members) -> Tensor:
        scale, shift = self.norm.of(members)
        return torch.addcmul(shift[:, None, None], standardise(x), scale[:, None, None])

    def _together(self, x: Mapping[Name, Tensor], mask: Mapping[Name, Tensor]) -> list[tuple[list[Name], Members]]:
        """The names in `x` by equal numbers of steps, in the group's order."""
        equal: dict[tuple[int, int], list[Name]] = {}
        for name in sorted(x, key=self.names.index):
            equal.setdefault((x[name].shape[1], mask[name].shape[1]), []).append(name)
        return [
            (names, Members(tuple(self.names.index(n) for n in names), len(names) == len(self.names)))
            for names in equal.values()
        ]


def _stacked(x: Mapping[Name, Tensor], names: Sequence[Name]) -> Tensor:
    return torch.stack([x[name] for name in names])
