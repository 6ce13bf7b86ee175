"""The transformers (DHMD, steps 2, 3 and 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn

from dhmd.modality import Edge, Modality
from dhmd.model import DHMD
from dhmd.model.decoupling import Decoupler
from dhmd.model.dhmd import CROSS_ORDER
from dhmd.model.transformer import EncoderLayer, Members, StackedNorm, newest_present, sinusoidal_positions
from dhmd.prediction.maps import Affine, ColumnMap, centred, copied, places, scaled
from dhmd.prediction.stack import KeysValues, Stack

Pair = tuple[Modality, Modality]
"""Target and source of a cross-modal transformer."""
WIDTH: Final = 8
"""Steps are padded to a multiple of it: products whose width is none take up to half as long again."""


class Band(NamedTuple):
    """Rows of modalities that are padded to one length, about from the first step at which one of them is present.

    first: that step; rows: X (M, d, B T); mask: (M, B, T) bool.
    """

    first: int
    rows: Tensor
    mask: Tensor


class Trunk(nn.Module):
    """Homogeneous, cross-modal and memory transformers, for windows of a fixed number of steps.

    The transformers whose targets are in one band are a branch.
    """

    def __init__(self, model: DHMD, bands: Sequence[Sequence[Modality]], steps: Mapping[Modality, int]) -> None:
        """steps: T'_m of each modality."""
        super().__init__()
        self.branches = nn.ModuleList(Branch(model, place, bands, steps) for place in range(len(bands)))

    def forward(self, bands: Sequence[Band]) -> list[tuple[Tensor, Tensor]]:
        """Returns of each band the homogeneous transformers' newest step (M, d, B) and H (M, 2d, B T)."""
        branches = cast("Sequence[Branch]", self.branches)
        embedded = [branch.embedded(band) for branch, band in zip(branches, bands, strict=True)]
        return [branch(hidden, embedded, bands) for branch, (hidden, _) in zip(branches, embedded, strict=True)]


class Branch(nn.Module):
    """The transformers whose targets are in one band.

    The stack of the first two kinds: homogeneous transformers, then cross-modal ones by the band of their source, the
    own band first, then cross-modal ones whose source is absent: they read nothing, and what is left of them is their
    feed-forward. Of the homogeneous ones only the newest step is read, so their last layer computes no other.
    """

    queries: Tensor
    """(G): the target of each transformer among the modalities of the band."""
    crossed: Tensor
    """The cross-modal transformers, by target and source, among those of the branch."""
    spaces: Tensor
    """(G, d, d): the encoder (private or shared) of each transformer, scaled as its embedding is; centred."""
    positions: Tensor
    """(d, T), centred."""
    joined_scale: Tensor
    joined_shift: Tensor
    """(M, 2d, 1, 1) and (M, 2d, 1, T): the last norm of the cross-modal transformers, and the embedding of memory."""

    def __init__(
        self, model: DHMD, place: int, bands: Sequence[Sequence[Modality]], steps: Mapping[Modality, int]
    ) -> None:
        super().__init__()
        self.place, self.d, self.heads = place, model.config.d, model.config.attention_heads
        d, targets, length = self.d, bands[place], padded(steps, bands[place])
        self.count = len(targets)
        by_source, unread = _pairs(bands, place)
        read = [pair for pairs in by_source.values() for pair in pairs]
        order, pairs = _order(bands, place), _targeted(targets)
        self.register_buffer("queries", places([targets.index(target) for target, _ in order]))
        self.register_buffer("crossed", places([order.index(pair) - len(targets) for pair in pairs]))

        private = {m: cast("Decoupler", model.decoupler[m]).encoder.weight for m in targets}
        encoders = [model.shared_encoder.weight if t == s else private[t] for t, s in order]
        embedding = torch.stack(encoders) * math.sqrt(d), sinusoidal_positions(length, d, model.shared_encoder.weight)
        spaces, positions = centred(embedding)
        self.register_buffer("spaces", spaces)
        self.register_buffer("positions", copied(positions.T))

        crosses = [cast("EncoderLayer", layer) for layer in model.cross_attention.layers]
        alones = [cast("EncoderLayer", layer) for layer in model.self_attention.layers]
        reading = [band for band, pairs in by_source.items() if pairs or band == place]
        self.readings = nn.ModuleList(Reading(model, place, band, bands, steps) for band in reading)
        selves = Members(tuple(list(Modality).index(m) for m in targets), whole=False)
        crossing = [_crossing(model, some) for some in (read, unread) if some]
        attending = self.count + len(read)
        self.stacks = nn.ModuleList(
            Stack([(alone, selves), *((cross, members) for members in crossing)], self.count, attending)
            for cross, alone in zip(crosses[:-1], alones[:-1], strict=True)
        )
        self.last = Stack([(crosses[-1], members) for members in crossing], 0, len(read))
        self.newest = Stack([(alones[-1], selves)], self.count, self.count)
        self.memory = nn.ModuleList(
            Stack([(cast("EncoderLayer", layer), selves)], self.count, self.count) for layer in model.memory.layers
        )
        scale, shift = (
            each.view(self.count, 2 * d, 1, 1) * math.sqrt(2 * d)
            for each in model.cross_attention.norm.of(_crossing(model, pairs))
        )
        self.register_buffer("joined_scale", scale)
        self.register_buffer("joined_shift", shift + sinusoidal_positions(length, 2 * d, shift).T[:, None])
        self.own_norm, self.memory_norm = (Norm(group.norm, selves) for group in (model.self_attention, model.memory))

    def embedded(self, band: Band) -> tuple[Tensor, Tensor]:
        """Returns what the transformers begin with, (G, d, B T), and the same standardised."""
        positions = self.positions[:, band.first :].repeat(1, band.mask.shape[1])
        hidden = torch.baddbmm(positions, self.spaces, band.rows[self.queries])
        return hidden, scaled(hidden)

    def forward(
        self, hidden: Tensor, embedded: Sequence[tuple[Tensor, Tensor]], bands: Sequence[Band]
    ) -> tuple[Tensor, Tensor]:
        """hidden: its own; embedded: of all branches. Returns the newest step of the homogeneous transformers
        (M, d, B) and H (M, 2d, B T)."""
        band, standard = bands[self.place], embedded[self.place][1]
        (count, batch, steps), d = band.mask.shape, self.d
        wide = hidden.new_empty(len(hidden), 4 * d, batch * steps)
        own, crossing = slice(0, count), slice(count, None)
        read = [
            reading(embedded[reading.band][1], bands[reading.band], band.first)
            for reading in cast("Sequence[Reading]", self.readings)
        ]
        for index, stack in enumerate(cast("Sequence[Stack]", self.stacks)):
            now = [each.layer(index) for each in read]
            now[0].part(own).fill(stack.key_value(standard[own]))
            stack.attend(hidden, standard, now)
            stack.feed_forward(hidden, wide)
            standard = scaled(hidden)

        around, *others = (each.layer(len(self.stacks)) for each in read)
        newest = self._newest(hidden[own], standard[own], around.part(own), band.mask)
        crossed = hidden[crossing]
        if self.last.attending:
            beside = around.part(crossing)
            self.last.attend(crossed, standard[crossing], [*([beside] if len(beside.keys) else []), *others])
        self.last.feed_forward(crossed, wide[crossing])

        # What a target reads of its two sources stands one below the other.
        joint = scaled(crossed)[self.crossed].view(count, 2 * d, batch, steps)
        memory = torch.addcmul(self.joined_shift[..., band.first :], joint, self.joined_scale).flatten(2)
        memory -= memory.mean(dim=1, keepdim=True)
        kept = KeysValues.room(band.mask.to(memory.dtype), self.heads, 2 * d, around.part(own).causal)
        wide = memory.new_empty(count, 8 * d, batch * steps)
        for stack in cast("Sequence[Stack]", self.memory):
            standard = scaled(memory)
            kept.fill(stack.key_value(standard))
            stack.attend(memory, standard, [kept])
            stack.feed_forward(memory, wide)
        return newest, self.memory_norm(memory)

    def _newest(self, hidden: Tensor, standard: Tensor, read: KeysValues, mask: Tensor) -> Tensor:
        """The last layer of the homogeneous transformers at the newest step, which sees all that are present."""
        read.fill(self.newest.key_value(standard))
        at = newest_present(mask)
        hidden, standard = taken(hidden, at), taken(standard, at)
        self.newest.attend(hidden, standard, [KeysValues(read.keys, read.values, None)])
        self.newest.feed_forward(hidden, hidden.new_empty(len(hidden), 4 * self.d, hidden.shape[-1]))
        return cast("Tensor", self.own_norm(hidden))


class Reading(nn.Module):
    """What the transformers of one branch read of one band: keys and values of all layers in one product."""

    sources: Tensor
    """Of each cross-modal transformer that reads: one of the band's own branch whose target is what it reads."""
    modalities: Tensor
    """What each transformer reads, among the modalities of the band: homogeneous ones first, in their own band."""
    causal: Tensor
    """As of `KeysValues`."""

    def __init__(
        self, model: DHMD, place: int, band: int, bands: Sequence[Sequence[Modality]], steps: Mapping[Modality, int]
    ) -> None:
        """place: of the branch among all; band: that is read."""
        super().__init__()
        self.band, self.own = band, len(bands[band]) if band == place else 0
        pairs, there = _pairs(bands, place)[0][band], _order(bands, band)
        beside = [next(i for i, (t, s) in enumerate(there) if t == source != s) for _, source in pairs]
        self.register_buffer("sources", places(beside))
        read = [*bands[band][: self.own], *(source for _, source in pairs)]
        self.register_buffer("modalities", places([bands[band].index(m) for m in read]))
        keys, queries = padded(steps, bands[band]), padded(steps, bands[place])
        own = [(m, m) for m in bands[band][: self.own]]
        late = [abs(steps[target] - steps[source]) for target, source in own + pairs]
        causal = [torch.ones(queries, keys).tril(offset).T for offset in (late if len(set(late)) > 1 else late[:1])]
        self.register_buffer("causal", copied(torch.stack(causal)))
        crosses = [cast("EncoderLayer", layer) for layer in model.cross_attention.layers]
        self.maps = ColumnMap(*_keys_and_values(crosses, _crossing(model, pairs), model.config.d)) if pairs else None
        self.layers, self.heads, self.d = len(crosses), model.config.attention_heads, model.config.d

    def forward(self, standard: Tensor, band: Band, first: int) -> KeysValues:
        """standard: what the transformers of the band's own branch begin with, standardised. first: of the branch that
        reads. Returns keys and values of all layers; those of homogeneous transformers are still to be filled in."""
        present = band.mask[self.modalities].to(standard.dtype)
        room = KeysValues.room(present, self.heads, self.d, self.causal[:, band.first :, first:], self.layers)
        if self.maps is not None:
            room.part(slice(self.own, None)).fill(self.maps(standard[self.sources]))
        return room


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


def padded(steps: Mapping[Modality, int], band: Iterable[Modality]) -> int:
    """Number of steps of a band."""
    return -(-max(steps[m] for m in band) // WIDTH) * WIDTH


def taken(x: Tensor, at: Tensor) -> Tensor:
    """Takes of (M, d, B T) the step `at` (M, B) of each sample: (M, d, B)."""
    steps = x.unflatten(-1, (at.shape[1], -1))  # type: ignore[no-untyped-call]
    return cast("Tensor", steps.gather(3, at[:, None, :, None].expand(-1, x.shape[1], -1, 1))[..., 0])


def _targeted(targets: Sequence[Modality]) -> list[Pair]:
    return [(target, source) for target in targets for source in CROSS_ORDER[target]]


def _pairs(bands: Sequence[Sequence[Modality]], place: int) -> tuple[dict[int, list[Pair]], list[Pair]]:
    """Returns the cross-modal transformers of a branch by the band of their source, and those whose source is absent.

    The own band comes first, so that they stand beside the homogeneous transformers, which read it, too.
    """
    pairs = _targeted(bands[place])
    by_source = {place: [pair for pair in pairs if pair[1] in bands[place]]}
    for band, modalities in enumerate(bands):
        if band != place:
            by_source[band] = [pair for pair in pairs if pair[1] in modalities]
    return by_source, [pair for pair in pairs if not any(pair[1] in modalities for modalities in bands)]


def _order(bands: Sequence[Sequence[Modality]], place: int) -> list[Pair]:
    """Returns target and source of the transformers of a branch, as they stand."""
    by_source, unread = _pairs(bands, place)
    return [*((m, m) for m in bands[place]), *(pair for pairs in by_source.values() for pair in pairs), *unread]


def _crossing(model: DHMD, pairs: Sequence[Pair]) -> Members:
    names = model.cross_attention.names
    return Members(tuple(names.index(str(Edge(target, source))) for target, source in pairs), whole=False)


def _keys_and_values(layers: Sequence[EncoderLayer], members: Members, d: int) -> Affine:
    """The maps of all layers, behind each other: (members, L 2 d, d)."""
    into = [layer.attention_norm.into(layer.attention.in_proj, members) for layer in layers]
    return torch.cat([weight[:, d:] for weight, _ in into], dim=1), torch.cat([bias[:, d:] for _, bias in into], dim=1)
