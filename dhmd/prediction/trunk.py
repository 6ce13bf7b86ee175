"""The transformers (DHMD, steps 2, 3 and 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dhmd.modality import Edge, Modality
from dhmd.model import DHMD
from dhmd.model.decoupling import Decoupler
from dhmd.model.dhmd import CROSS_ORDER
from dhmd.model.transformer import EncoderLayer, Members, StackedNorm, sinusoidal_positions, standardise
from dhmd.prediction.maps import Affine, Map, joined, places
from dhmd.prediction.stack import Read, Seen, Stack

Pair = tuple[Modality, Modality]
"""Target and source of a cross-modal transformer."""


class Trunk(nn.Module):
    """Homogeneous, cross-modal and memory transformers, for windows of a fixed number of steps.

    The stack of the first two: cross-modal transformers with a source that is computed, then the homogeneous ones, then
    cross-modal ones whose source is absent: they read nothing, and what is left of them is their feed-forward.
    """

    queries: Tensor
    keys: Tensor
    """(G), (A): the modality of each transformer's target and source."""
    sources: Tensor
    """Of each source that is read a transformer whose target it is."""
    crossed: Tensor
    """The cross-modal transformers, by target and source."""
    spaces: Tensor
    """(G, d, d): the encoder (private or shared) of each transformer, scaled as its embedding is."""
    positions: Tensor
    """(T, d)."""
    causal: Tensor
    """(A, 1, 1, U, T) of 0 and 1."""
    joined_scale: Tensor
    joined_shift: Tensor
    """(M, 1, 1, 2d) and (M, 1, T, 2d): the last norm of the cross-modal transformers, and the embedding of memory."""

    def __init__(self, model: DHMD, modalities: Sequence[Modality], steps: Sequence[int]) -> None:
        """steps: T'_m of each modality; shorter ones are padded to the longest."""
        super().__init__()
        self.d, self.heads = model.config.d, model.config.attention_heads
        d, place, longest = self.d, list(modalities).index, max(steps)
        pairs: list[Pair] = [(target, source) for target in modalities for source in CROSS_ORDER[target]]
        read = [pair for pair in pairs if pair[1] in modalities]
        unread = [pair for pair in pairs if pair[1] not in modalities]
        self.reading, self.attending = len(read), len(read) + len(modalities)
        own: list[Pair] = [(m, m) for m in modalities]
        order = read + own + unread
        queries = [place(target) for target, _ in order]
        keys = [place(source) for _, source in read + own]
        self.register_buffer("queries", places(queries))
        self.register_buffer("keys", places(keys))
        self.register_buffer("sources", places([queries.index(place(source)) for _, source in read]))
        self.register_buffer("crossed", places([order.index(pair) for pair in pairs]))

        private = {m: cast("Decoupler", model.decoupler[m]).encoder.weight for m in modalities}
        spaces = [model.shared_encoder.weight if t == s else private[t] for t, s in order]
        self.register_buffer("spaces", (torch.stack(spaces).transpose(1, 2) * math.sqrt(d)).contiguous())
        self.register_buffer("positions", sinusoidal_positions(longest, d, self.spaces))
        late = [abs(steps[key] - steps[query]) for query, key in zip(queries, keys, strict=False)]
        causal = torch.stack([torch.ones(longest, longest).tril(offset).T for offset in late])
        self.register_buffer("causal", causal[:, None, None].contiguous())

        def crossing(pairs: Sequence[Pair]) -> Members:
            names = model.cross_attention.names
            return Members(tuple(names.index(str(Edge(target, source))) for target, source in pairs), whole=False)

        selves = Members(tuple(list(Modality).index(m) for m in modalities), whole=False)
        crosses = [cast("EncoderLayer", layer) for layer in model.cross_attention.layers]
        alones = [cast("EncoderLayer", layer) for layer in model.self_attention.layers]
        self.stacks = nn.ModuleList()
        for cross, alone in zip(crosses, alones, strict=True):
            parts = [(cross, crossing(read)), (alone, selves), (cross, crossing(unread))]
            self.stacks.append(Stack([part for part in parts if part[1].places], self.reading, self.attending))
        self.read_of = Map(*_keys_and_values(crosses, crossing(read), d)) if read else None
        self.memory = nn.ModuleList(
            Stack([(cast("EncoderLayer", layer), selves)], 0, len(modalities)) for layer in model.memory.layers
        )
        scale, shift = (
            each.view(len(modalities), 1, 1, 2 * d) * math.sqrt(2 * d)
            for each in model.cross_attention.norm.of(crossing(pairs))
        )
        self.register_buffer("joined_scale", scale)
        self.register_buffer("joined_shift", shift + sinusoidal_positions(longest, 2 * d, shift))
        self.own_norm, self.memory_norm = (Norm(group.norm, selves) for group in (model.self_attention, model.memory))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x: (M, B, T, d), mask: (M, B, T). Returns the homogeneous transformers' output (M, B, T, d) before its norm,
        `own_norm`, and H (M, B, T, 2d)."""
        count, batch, steps, d = x.shape
        seen = Seen(self.causal, mask[self.keys])
        scores = x.new_empty(self.attending, batch, self.heads, steps, steps)

        hidden = torch.baddbmm(self.positions.repeat(batch, 1)[None], x.flatten(1, 2)[self.queries], self.spaces)
        standard = standardise(hidden)
        own = slice(self.reading, self.attending)
        read = Read.room(seen, self.heads, d, len(self.stacks))
        if self.read_of is not None:
            read[:, : self.reading].fill(self.read_of(standard[self.sources]), seen.present[: self.reading])
        wide = x.new_empty(len(hidden), batch * steps, 4 * d)
        for index, stack in enumerate(cast("Sequence[Stack]", self.stacks)):
            if index:
                standard = standardise(hidden)
            read[index, own].fill(stack.key_value(standard[own]), seen.present[own])
            stack.attend(hidden, standard, read[index,], seen, scores)
            stack.feed_forward(hidden, wide)

        crossed = standardise(hidden[self.crossed]).view(count, 2, batch, steps, d)
        joint = crossed.permute(0, 2, 3, 1, 4).reshape(count, batch, steps, 2 * d)
        memory = torch.addcmul(self.joined_shift, joint, self.joined_scale).flatten(1, 2)
        seen, scores = seen.of(self.reading), scores[self.reading :]
        read = Read.room(seen, self.heads, 2 * d)
        wide = x.new_empty(count, batch * steps, 8 * d)
        for stack in cast("Sequence[Stack]", self.memory):
            standard = standardise(memory)
            read.fill(stack.key_value(standard), seen.present)
            stack.attend(memory, standard, read, seen, scores)
            stack.feed_forward(memory, wide)
        return hidden[own].view(x.shape), self.memory_norm(memory.view(joint.shape))


class Norm(nn.Module):
    """The last layer norms of several transformers."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: StackedNorm, members: Members) -> None:
        super().__init__()
        scale, shift = norm.of(members)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, T, d) -> (M, B, T, d)."""
        return torch.addcmul(self.shift, standardise(x), self.scale)


def _keys_and_values(layers: Sequence[EncoderLayer], members: Members, d: int) -> Affine:
    """Of all layers, behind each other: (members, L 2 d, d)."""
    into = [layer.attention_norm.into(layer.attention.in_proj, members) for layer in layers]
    weight, bias = joined((weight[:, d:].transpose(0, 1), bias[:, d:].T) for weight, bias in into)
    return weight.transpose(0, 1), bias.T
