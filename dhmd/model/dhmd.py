"""DHMD: decoupled hierarchical multimodal distillation (Li, Wang, Ding, Zhang, Lu, Guan; IEEE TPAMI 2026).

Shapes: B batch, T_m steps of modality m, T'_m = T_m - kernel + 1, d width, O numbers in a logit vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.modality import EDGES, Edge, Modality
from dhmd.model.config import DHMDConfig
from dhmd.model.decoupling import Decoupled, Decoupler, Normaliser, Projection
from dhmd.model.dictionary import Dictionary, Match, unmatched
from dhmd.model.distillation import HETEROGENEOUS_PRIOR, HOMOGENEOUS_PRIOR, GraphDistillationUnit
from dhmd.model.dropout import Dropout
from dhmd.model.transformer import Transformers

PerModality = dict[Modality, Tensor]


@dataclass(frozen=True, slots=True)
class Branch:
    """Holds what one space (homogeneous or heterogeneous) says, modality by modality."""

    last: PerModality
    """Transformer output at the last present step: h^c (B, d), h^s (B, 2d)."""
    match: dict[Modality, Match]
    """Dictionary matching: c (B, d), s (B, 2d), with activations (B, K)."""
    representation: PerModality
    """What the graph unit reads: (B, d) or (B, 2d)."""
    logit: PerModality
    """(B, O)."""
    edges: Tensor
    """(B, 6), in the order of `EDGES`."""


@dataclass(frozen=True, slots=True)
class DHMDOutput:
    """Everything the losses and the estimate need."""

    output: Tensor
    """(B, O): the estimate."""
    shared_logit: Tensor
    """(B, O): logit_c, from the joint homogeneous features."""
    projected: PerModality
    """X_m (B, T'_m, d)."""
    decoupled: dict[Modality, Decoupled]
    """C_m, S_m, R_m, S'_m, each (B, T'_m, d)."""
    mask: PerModality
    """(B, T'_m) bool: steps that are present."""
    present: Tensor
    """(B, 3) bool, in modality order."""
    similarity: PerModality
    """(B, d): C_m pooled over its present steps and mapped, for the margin loss."""
    homogeneous: Branch
    heterogeneous: Branch
    gates: PerModality
    """g_m (B, 2d)."""


class ResidualHead(nn.Module):
    """x -> W2 relu(W1 x) + x, with dropout after the relu, and a linear output on top."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, width) -> hidden relu(W1 x) (B, width), residual sum (B, width), logit (B, outputs)."""
        hidden = F.relu(self.first(x))
        residual = self.second(self.dropout(hidden)) + x
        return hidden, residual, self.out(residual)


class DHMD(nn.Module):
    """The network. Any window length, any subset of modalities down to one; see `forward`."""

    def __init__(self, config: DHMDConfig) -> None:
        super().__init__()
        self.config = config
        d, outputs, dropout = config.d, config.outputs, config.output_dropout

        def transformers(width: int, layers: int, dropout_of: Mapping[str, Modality]) -> Transformers:
            return Transformers(
                width,
                config.attention_heads,
                layers,
                {name: config.modalities[m].attention_dropout for name, m in dropout_of.items()},
                embedding_dropout=config.embedding_dropout,
                residual_dropout=config.residual_dropout,
            )

        self.normaliser = nn.ModuleDict({m: Normaliser(config.modalities[m].width) for m in Modality})
        self.text_dropout = Dropout(config.text_dropout)
        self.projection = nn.ModuleDict({m: Projection(config.modalities[m], d) for m in Modality})
        self.shared_encoder = nn.Linear(d, d, bias=False)
        self.decoupler = nn.ModuleDict({m: Decoupler(d) for m in Modality})
        self.margin_projection = nn.ModuleDict({m: nn.Linear(d, d) for m in Modality})

        self.self_attention = transformers(d, config.layers, {m: m for m in Modality})
        self.shared_head = ResidualHead(3 * d, outputs, dropout)
        self.homo_dictionary = self._dictionary(d)
        self.homo_head = nn.ModuleDict({m: ResidualHead(d, outputs, dropout) for m in Modality})
        self.homo_graph = GraphDistillationUnit(outputs, d, config.homo_hidden, HOMOGENEOUS_PRIOR)

        self.cross_attention = transformers(d, config.layers, {str(e): e.source for e in EDGES})
        self.memory = transformers(2 * d, max(config.layers, 3), dict.fromkeys(Modality, Modality.TEXT))
        self.hetero_dictionary = self._dictionary(2 * d)
        self.hetero_head = nn.ModuleDict({m: ResidualHead(2 * d, outputs, dropout) for m in Modality})
        self.hetero_graph = GraphDistillationUnit(outputs, 2 * d, config.hetero_hidden, HETEROGENEOUS_PRIOR)

        self.fuse_homo = nn.ModuleDict({m: nn.Linear(2 * d, d) for m in Modality})
        self.fuse_hetero = nn.ModuleDict({m: nn.Linear(4 * d, 2 * d) for m in Modality})
        self.gate = nn.ModuleDict({m: nn.Linear(2 * d, 2 * d) for m in Modality})
        self.shared_gate = nn.Linear(3 * d, 3 * d)
        self.head = ResidualHead(9 * d, outputs, dropout)

    def forward(self, inputs: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor] | None = None) -> DHMDOutput:
        """Reads inputs (B, T_m, width_m) float, and masks (B, T_m) bool, true where a row stands; None: all present.

        A modality without a present step is absent: it is attended to by none, its gate and its edges are zero.
        """
        if masks is None:
            masks = {m: x.new_ones(x.shape[:2], dtype=torch.bool) for m, x in inputs.items()}
        projected: PerModality = {}
        mask: PerModality = {}
        for m in Modality:
            x = self.normaliser[m](inputs[m])
            if m is Modality.TEXT:
                x = self.text_dropout(x)
            projected[m], mask[m] = self.projection[m](x, masks[m])
        present = torch.stack([mask[m].any(dim=1) for m in Modality], dim=1)
        decoupled = {m: self.decoupler[m](projected[m], self.shared_encoder) for m in Modality}

        homogeneous, shared_logit = self._homogeneous(decoupled, mask, present)
        heterogeneous = self._heterogeneous(decoupled, mask, present)

        fused = {m: self._fuse(self.fuse_homo[m], homogeneous, m) for m in Modality}
        shared_gate = torch.sigmoid(self.shared_gate(torch.cat([fused[m] for m in Modality], dim=-1)))
        gates = {
            m: torch.sigmoid(self.gate[m](self._fuse(self.fuse_hetero[m], heterogeneous, m))) * present[:, i : i + 1]
            for i, m in enumerate(Modality)
        }
        _, _, output = self.head(torch.cat([*gates.values(), shared_gate], dim=-1))
        return DHMDOutput(
            output=output,
            shared_logit=shared_logit,
            projected=projected,
            decoupled=decoupled,
            mask=mask,
            present=present,
            similarity={m: self.margin_projection[m](_mean(decoupled[m].homogeneous, mask[m])) for m in Modality},
            homogeneous=homogeneous,
            heterogeneous=heterogeneous,
            gates=gates,
        )

    @property
    def atoms(self) -> int:
        """K, atoms in the dictionary of each space; 0 where there is none."""
        return self.config.atoms if self.config.dictionary else 0

    def _dictionary(self, width: int) -> Dictionary | None:
        config = self.config
        return Dictionary(config.atoms, width, config.temperature) if config.dictionary else None

    def split(self, logit: Tensor) -> dict[str, Tensor]:
        """A logit vector (..., O) as {head name: (..., size)}."""
        parts = torch.split(logit, [head.size for head in self.config.heads], dim=-1)
        return {head.name: part for head, part in zip(self.config.heads, parts, strict=True)}

    def _homogeneous(
        self, decoupled: Mapping[Modality, Decoupled], mask: PerModality, present: Tensor
    ) -> tuple[Branch, Tensor]:
        """Steps 3 and 4."""
        c = {m: decoupled[m].homogeneous for m in Modality}
        last, _ = self.self_attention.newest(c, mask, every=False)
        _, _, shared_logit = self.shared_head(torch.cat([last[m] for m in Modality], dim=-1))
        if self.homo_dictionary is None:
            match = {m: unmatched(_mean(c[m], mask[m])) for m in Modality}
        else:
            match = {m: self.homo_dictionary(m, c[m], mask[m]) for m in Modality}
        heads = {m: self.homo_head[m](match[m].feature) for m in Modality}
        representation = {m: hidden for m, (hidden, _, _) in heads.items()}
        logit = {m: logit for m, (_, _, logit) in heads.items()}
        edges = self.homo_graph(logit, representation, present)
        return Branch(last, match, representation, logit, edges), shared_logit

    def _heterogeneous(self, decoupled: Mapping[Modality, Decoupled], mask: PerModality, present: Tensor) -> Branch:
        """Steps 5 and 6. Sources of a target stand in the paper's order: L [A, V], V [L, A], A [L, V]."""
        s = {m: decoupled[m].heterogeneous for m in Modality}
        seen = self.cross_attention(
            {str(e): s[e.target] for e in EDGES},
            {str(e): mask[e.source] for e in EDGES},
            {str(e): s[e.source] for e in EDGES},
        )
        joined = {
            target: torch.cat([seen[str(Edge(target, source))] for source in sources], dim=-1)
            for target, sources in CROSS_ORDER.items()
        }
        last, every = self.memory.newest(joined, mask, every=self.config.dictionary)
        if self.hetero_dictionary is None:
            match = {m: unmatched(last[m]) for m in Modality}
        else:
            match = {m: self.hetero_dictionary(m, every[m], mask[m]) for m in Modality}
        heads = {m: self.hetero_head[m](last[m]) for m in Modality}
        representation = {m: residual for m, (_, residual, _) in heads.items()}
        logit = {m: logit for m, (_, _, logit) in heads.items()}
        return Branch(last, match, representation, logit, self.hetero_graph(logit, representation, present))

    @staticmethod
    def _fuse(linear: nn.Module, branch: Branch, m: Modality) -> Tensor:
        fused: Tensor = linear(torch.cat([branch.last[m], branch.match[m].feature], dim=-1))
        return fused


CROSS_ORDER: dict[Modality, tuple[Modality, Modality]] = {
    Modality.TEXT: (Modality.AUDIO, Modality.VISION),
    Modality.VISION: (Modality.TEXT, Modality.AUDIO),
    Modality.AUDIO: (Modality.TEXT, Modality.VISION),
}
"""For each target, the order in which what it read from the two sources is concatenated (step 5)."""


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, T, d) over the present steps: (B, d); zeros where there is none."""
    return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
