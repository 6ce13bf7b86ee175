"""Networks that DHMD is compared with: the same inputs, masks, width and transformers, without what is DHMD's own.

Shapes: B batch, T_m steps of modality m, d width, O numbers in a logit vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dhmd.modality import EDGES, Edge, Modality
from dhmd.model import DHMD, DHMDConfig
from dhmd.model.decoupling import Normaliser, Projection
from dhmd.model.dhmd import CROSS_ORDER, ResidualHead
from dhmd.model.dropout import Dropout
from dhmd.model.transformer import Transformers


@dataclass(frozen=True, slots=True)
class RivalOutput:
    """output: (B, O), the estimate."""

    output: Tensor


class Rival(nn.Module, ABC):
    """Projects the modalities as DHMD does; what becomes of them is the subclass's. It learns from the task alone."""

    def __init__(self, config: DHMDConfig) -> None:
        super().__init__()
        self.config = config
        self.normaliser = nn.ModuleDict({m: Normaliser(config.modalities[m].width) for m in Modality})
        self.text_dropout = Dropout(config.text_dropout)
        self.projection = nn.ModuleDict({m: Projection(config.modalities[m], config.d) for m in Modality})

    def forward(self, inputs: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]) -> RivalOutput:
        """inputs: (B, T_m, width_m), masks: (B, T_m) bool, by modality."""
        projected: dict[Modality, Tensor] = {}
        mask: dict[Modality, Tensor] = {}
        for m in Modality:
            x = self.normaliser[m](inputs[m])
            projected[m], mask[m] = self.projection[m](self.text_dropout(x) if m is Modality.TEXT else x, masks[m])
        return RivalOutput(self.fused(projected, mask))

    def split(self, logit: Tensor) -> dict[str, Tensor]:
        """A logit vector (..., O) as {head name: (..., size)}."""
        parts = torch.split(logit, [head.size for head in self.config.heads], dim=-1)
        return {head.name: part for head, part in zip(self.config.heads, parts, strict=True)}

    @abstractmethod
    def fused(self, projected: Mapping[Modality, Tensor], mask: Mapping[Modality, Tensor]) -> Tensor:
        """projected: (B, T_m, d), mask: (B, T_m). Returns (B, O)."""

    def _transformers(self, width: int, layers: int, dropouts: Mapping[str, float]) -> Transformers:
        config = self.config
        return Transformers(
            width,
            config.attention_heads,
            layers,
            dropouts,
            embedding_dropout=config.embedding_dropout,
            residual_dropout=config.residual_dropout,
        )


class Concatenation(Rival):
    """Early fusion: the steps of all modalities, one after the other, in one transformer."""

    def __init__(self, config: DHMDConfig) -> None:
        super().__init__(config)
        dropout = max(one.attention_dropout for one in config.modalities.values())
        self.transformer = self._transformers(config.d, config.layers, {"all": dropout})
        self.origin = nn.ParameterDict({m: nn.Parameter(torch.zeros(config.d)) for m in Modality})
        self.head = ResidualHead(config.d, config.outputs, config.output_dropout)

    def fused(self, projected: Mapping[Modality, Tensor], mask: Mapping[Modality, Tensor]) -> Tensor:
        steps = torch.cat([projected[m] + self.origin[m] for m in Modality], dim=1)
        last, _ = self.transformer.newest(
            {"all": steps}, {"all": torch.cat([mask[m] for m in Modality], 1)}, every=False
        )
        logit: Tensor = self.head(last["all"])[2]
        return logit


class CrossModal(Rival):
    """MulT (Tsai et al. 2019): each modality reads the two others, without decoupling."""

    def __init__(self, config: DHMDConfig) -> None:
        super().__init__(config)
        dropouts = {str(edge): config.modalities[edge.source].attention_dropout for edge in EDGES}
        self.cross_attention = self._transformers(config.d, config.layers, dropouts)
        text = config.modalities[Modality.TEXT].attention_dropout
        self.memory = self._transformers(2 * config.d, max(config.layers, 3), dict.fromkeys(Modality, text))
        self.head = ResidualHead(6 * config.d, config.outputs, config.output_dropout)

    def fused(self, projected: Mapping[Modality, Tensor], mask: Mapping[Modality, Tensor]) -> Tensor:
        seen = self.cross_attention(
            {str(edge): projected[edge.target] for edge in EDGES},
            {str(edge): mask[edge.source] for edge in EDGES},
            {str(edge): projected[edge.source] for edge in EDGES},
        )
        joined = {m: torch.cat([seen[str(Edge(m, other))] for other in CROSS_ORDER[m]], dim=-1) for m in Modality}
        last, _ = self.memory.newest(joined, dict(mask), every=False)
        logit: Tensor = self.head(torch.cat([last[m] for m in Modality], dim=-1))[2]
        return logit


class Linear(Rival):
    """A linear map of the mean step of each modality."""

    def __init__(self, config: DHMDConfig) -> None:
        super().__init__(config)
        self.head = nn.Linear(len(Modality) * config.d, config.outputs)

    def fused(self, projected: Mapping[Modality, Tensor], mask: Mapping[Modality, Tensor]) -> Tensor:
        means = [
            (projected[m] * mask[m][..., None]).sum(dim=1) / mask[m].sum(dim=1, keepdim=True).clamp(min=1)
            for m in Modality
        ]
        logit: Tensor = self.head(torch.cat(means, dim=-1))
        return logit


Learnable = DHMD | Rival

RIVALS: dict[str, type[Rival]] = {
    "concatenation": Concatenation,
    "crossmodal": CrossModal,
    "linear": Linear,
}
"""By the name that a configuration gives them."""
