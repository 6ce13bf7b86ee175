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
from dhmd.model.transformer import EncoderLayer, Members, StackedNorm, sinusoidal_positions
from dhmd.prediction.maps import Affine, ColumnMap, centred, copied, places, scaled
from dhmd.prediction.stack import AttentionMask, KeysValues, Stack

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
    """(G, d, d): the encoder (private or shared) of each transformer, scaled as its embedding is; centred."""
    positions: Tensor
    """(d, T), centred."""
    causal: Tensor
    """(A, 1, 1, U, T) of 0 and 1."""
    joined_scale: Tensor
    joined_shift: Tensor
    """(M, 2d, 1, 1) and (M, 2d, 1, T): the last norm of the cross-modal transformers, and the embedding of memory."""

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
        encoders = [model.shared_encoder.weight if t == s else private[t] for t, s in order]
        embedding = torch.stack(encoders) * math.sqrt(d), sinusoidal_positions(longest, d, model.shared_encoder.weight)
        spaces, positions = centred(embedding)
        self.register_buffer("spaces", spaces)
        self.register_buffer("positions", copied(positions.T))
        late = [abs(steps[key] - steps[query]) for query, key in zip(queries, keys, strict=False)]
        causal = torch.stack([torch.ones(longest, longest).tril(offset).T for offset in late])
        self.register_buffer("causal", copied(causal[:, None, None]))

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
        self.read_of = ColumnMap(*_keys_and_values(crosses, crossing(read), d)) if read else None
        self.memory = nn.ModuleList(
            Stack([(cast("EncoderLayer", layer), selves)], 0, len(modalities)) for layer in model.memory.layers
        )
        scale, shift = (
            each.view(len(modalities), 2 * d, 1, 1) * math.sqrt(2 * d)
            for each in model.cross_attention.norm.of(crossing(pairs))
        )
        self.register_buffer("joined_scale", scale)
        self.register_buffer("joined_shift", shift + sinusoidal_positions(longest, 2 * d, shift).T[:, None])
        self.own_norm, self.memory_norm = (Norm(group.norm, selves) for group in (model.self_attention, model.memory))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x: (M, d, B T), mask: (M, B, T). Returns the homogeneous transformers' output (M, d, B T) before its norm,
        `own_norm`, and H (M, 2d, B T)."""
        (count, batch, steps), d = mask.shape, self.d
        seen = AttentionMask.of(self.causal, mask[self.keys])
        scores = x.new_empty(self.attending, batch, self.heads, steps, steps)

        hidden = torch.baddbmm(self.positions.repeat(1, batch), self.spaces, x[self.queries])
        standard = scaled(hidden)
        own = slice(self.reading, self.attending)
        read = KeysValues.room(seen, self.heads, d, len(self.stacks))
        if self.read_of is not None:
            read[:, : self.reading].fill(self.read_of(standard[self.sources]), seen.present[: self.reading])
        wide = x.new_empty(len(hidden), 4 * d, batch * steps)
        for index, stack in enumerate(cast("Sequence[Stack]", self.stacks)):
            if index:
                standard = scaled(hidden)
            read[index, own].fill(stack.key_value(standard[own]), seen.present[own])
            stack.attend(hidden, standard, read[index,], seen, scores)
            stack.feed_forward(hidden, wide)

        # What a target reads of its two sources stands one below the other.
        joint = scaled(hidden[self.crossed]).view(count, 2 * d, batch, steps)
        memory = torch.addcmul(self.joined_shift, joint, self.joined_scale).flatten(2)
        memory -= memory.mean(dim=1, keepdim=True)
        seen, scores = seen.behind(self.reading), scores[self.reading :]
        read = KeysValues.room(seen, self.heads, 2 * d)
        wide = x.new_empty(count, 8 * d, batch * steps)
        for stack in cast("Sequence[Stack]", self.memory):
            standard = scaled(memory)
            read.fill(stack.key_value(standard), seen.present)
            stack.attend(memory, standard, read, seen, scores)
            stack.feed_forward(memory, wide)
        return hidden[own], self.memory_norm(memory)


class Norm(nn.Module):
    """The last layer norms of several transformers."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: StackedNorm, members: Members) -> None:
        super().__init__()
        scale, shift = norm.of(members)
        self.register_buffer("scale", copied(scale[..., None]))
        self.register_buffer("shift", copied(shift[..., None]))

    def forward(self, x: Tensor) -> Tensor:
        """Centred (M, d, N) -> (M, d, N)."""
        return torch.addcmul(self.shift, scaled(x), self.scale)


def _keys_and_values(layers: Sequence[EncoderLayer], members: Members, d: int) -> Affine:
    """The maps of all layers, behind each other: (members, L 2 d, d)."""
    into = [layer.attention_norm.into(layer.attention.in_proj, members) for layer in layers]
    return torch.cat([weight[:, d:] for weight, _ in into], dim=1), torch.cat([bias[:, d:] for _, bias in into], dim=1)
