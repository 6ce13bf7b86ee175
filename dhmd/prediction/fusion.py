"""Fusion of the newest step and the match of each space (DHMD, step 7, and the heads of each modality)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, SENTIMENT, own_heads
from dhmd.model.dhmd import ResidualHead
from dhmd.model.distillation import EDGE_TEMPERATURE, GraphDistillationUnit
from dhmd.model.readout import SHARED
from dhmd.prediction.maps import Affine, Map, affine, after, joined, places, stacked


class ModalityHeads(nn.Module):
    """The heads of a space: each modality's own sentiment, and its part in the score of an edge as target and source.

    Behind the hidden layer all of it is one affine map of [hidden, x].
    """

    def __init__(
        self, heads: Sequence[ResidualHead], graph: GraphDistillationUnit, sentiment: int, *, reads_hidden: bool
    ) -> None:
        """sentiment: its place in a logit vector. reads_hidden: the graph's representation is the hidden layer
        (homogeneous space), else the residual sum."""
        super().__init__()
        self.first = Map.of(head.first for head in heads)
        self.out = Map(*stacked(self._out(head, graph, sentiment, reads_hidden=reads_hidden) for head in heads))

    @staticmethod
    def _out(head: ResidualHead, graph: GraphDistillationUnit, sentiment: int, *, reads_hidden: bool) -> Affine:
        residual = residual_sum(head)
        width = len(residual[0])
        logit = after(affine(head.out), residual)
        representation = (torch.eye(width, 2 * width), torch.zeros(width)) if reads_hidden else residual
        node = joined(
            (after(affine(graph.from_logit), logit), after(affine(graph.from_representation), representation))
        )
        # The one output of `edge` reads [target, source].
        ends = graph.edge.weight.view(2, -1) / EDGE_TEMPERATURE
        bias = torch.cat([graph.edge.bias, graph.edge.bias.new_zeros(1)]) / EDGE_TEMPERATURE
        return joined(((logit[0][[sentiment]], logit[1][[sentiment]]), after((ends, bias), node)))

    def forward(self, x: Tensor) -> Tensor:
        """(M, B, width) -> (M, B, 3): sentiment, as target, as source."""
        out: Tensor = self.out(torch.cat([self.first(x).relu_(), x], dim=-1))
        return out


def residual_sum(head: ResidualHead) -> Affine:
    """W2 hidden + x as a map of [hidden, x]."""
    weight, bias = affine(head.second)
    return torch.cat([weight, torch.eye(len(weight))], dim=1), bias


class Fusion(nn.Module):
    """Gates, the final head, each modality's own sentiment and the edges."""

    silence: Tensor
    """(1, 3): what the head of each modality says when it is absent."""
    places: Tensor
    """(M): those that are computed, among all modalities."""
    edges: Tensor
    targets: Tensor
    sources: Tensor
    """The edges between them, among all edges; their ends, among those that are computed."""

    def __init__(self, model: DHMD, modalities: Sequence[Modality]) -> None:
        super().__init__()
        d, order = model.config.d, list(Modality)
        columns = [order.index(m) for m in modalities]
        self.register_buffer("places", places(columns))
        rows: dict[str, list[int]] = {}
        for head in model.config.heads:
            first = sum(map(len, rows.values()))
            rows[head.name] = list(range(first, first + head.size))
        self.sentiment = SENTIMENT.name in rows
        sentiment = rows[SENTIMENT.name][0] if self.sentiment else 0
        homo = {m: cast("ResidualHead", model.homo_head[m]) for m in Modality}
        hetero = {m: cast("ResidualHead", model.hetero_head[m]) for m in Modality}
        self.homo_voices = ModalityHeads([homo[m] for m in modalities], model.homo_graph, sentiment, reads_hidden=True)
        self.hetero_voices = ModalityHeads(
            [hetero[m] for m in modalities], model.hetero_graph, sentiment, reads_hidden=False
        )
        silence = [homo[m](torch.zeros(1, d))[2][:, sentiment] for m in Modality]
        self.register_buffer("silence", torch.stack(silence, dim=1))
        edges = [i for i, edge in enumerate(EDGES) if {edge.target, edge.source} <= set(modalities)]
        self.register_buffer("edges", places(edges))
        self.register_buffer("targets", places([modalities.index(EDGES[i].target) for i in edges]))
        self.register_buffer("sources", places([modalities.index(EDGES[i].source) for i in edges]))

        self.fuse_homo = Map.of(model.fuse_homo[m] for m in modalities)
        self.fuse_hetero = Map.of(model.fuse_hetero[m] for m in modalities)
        self.gate = Map.of(model.gate[m] for m in modalities)
        # Of an absent modality the fusion's bias reaches the shared gate; its own gate is closed.
        weight, bias = affine(model.shared_gate)
        for i, m in enumerate(Modality):
            if m not in modalities:
                bias = bias + weight[:, i * d : (i + 1) * d] @ affine(model.fuse_homo[m])[1]
        self.shared_gate = Map(weight[None, :, _spread(columns, d)], bias[None])
        gates = torch.cat([_spread(columns, 2 * d), torch.arange(6 * d, 9 * d)])
        weight, bias = affine(model.head.first)
        self.head_first = Map(weight[None, :, gates], bias[None])
        weight, bias = after(affine(model.head.out), residual_sum(model.head))
        shared = [row for name in SHARED for row in rows.get(name, [])]
        self.shared = len(shared)
        said = shared + [row for head in own_heads(model.config.heads) for row in rows[head.name]]
        self.head_out = Map(weight[None, said][..., torch.cat([torch.arange(9 * d), 9 * d + gates])], bias[None, said])

    def forward(self, homo: Tensor, homo_match: Tensor, hetero: Tensor, hetero_match: Tensor, there: Tensor) -> Tensor:
        """homo, homo_match: (M, B, d); hetero, hetero_match: (M, B, 2d); there: (M, B, 1). Returns (B, columns)."""
        batch = homo.shape[1]
        fused = self.fuse_homo(torch.cat([homo, homo_match], dim=-1)).transpose(0, 1).reshape(1, batch, -1)
        gates = torch.sigmoid(self.gate(self.fuse_hetero(torch.cat([hetero, hetero_match], dim=-1)))) * there
        z = torch.cat([gates.transpose(0, 1).reshape(1, batch, -1), torch.sigmoid(self.shared_gate(fused))], dim=-1)
        said = self.head_out(torch.cat([self.head_first(z).relu_(), z], dim=-1))[0]
        voices = torch.stack([self.homo_voices(homo_match), self.hetero_voices(hetero)])  # (2, M, B, 3)
        alone = self.silence.repeat(batch, 1).index_copy_(1, self.places, voices[0, :, :, 0].T)
        parts = [said[:, : self.shared], *([alone] if self.sentiment else [])]
        return torch.cat([*parts, self._edges(voices, there[..., 0]), said[:, self.shared :]], dim=-1)

    def _edges(self, voices: Tensor, there: Tensor) -> Tensor:
        """(B, 2 * 6)."""
        edges = voices.new_zeros(voices.shape[2], 2, len(EDGES))
        if len(self.edges):
            scores = voices[:, self.targets, :, 1] + voices[:, self.sources, :, 2]  # (2, edges, B)
            exists = there[self.targets] & there[self.sources]
            any_edge = exists.any(dim=0)
            shares = torch.softmax(scores.masked_fill(~exists & any_edge, -math.inf), dim=1) * any_edge
            edges.index_copy_(2, self.edges, shares.permute(2, 0, 1))
        return edges.flatten(1)


def _spread(columns: Sequence[int], width: int) -> Tensor:
    """The `width` places of each of these columns."""
    return torch.cat([torch.arange(column * width, (column + 1) * width) for column in columns])
