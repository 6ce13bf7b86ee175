"""Graph distillation units: who teaches whom, sample by sample (Li et al. 2023 and 2026, after Luo et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dhmd.modality import EDGES, Modality

PRIOR_TEMPERATURE = 0.25
EDGE_TEMPERATURE = 8.0
HOMOGENEOUS_PRIOR = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0)
HETEROGENEOUS_PRIOR = (0.0, 0.0, 1.0, 0.0, 1.0, 1.0)


class GraphDistillationUnit(nn.Module):
    """Weighs the six directed edges between the modalities from their logits and representations."""

    prior: Tensor

    def __init__(self, outputs: int, width: int, hidden: int, prior: tuple[float, ...]) -> None:
        super().__init__()
        self.from_logit = nn.Linear(outputs, hidden)
        self.from_representation = nn.Linear(width, hidden)
        self.edge = nn.Linear(4 * hidden, 1)
        self.register_buffer("prior", torch.softmax(torch.tensor(prior) / PRIOR_TEMPERATURE, dim=0), persistent=False)

    def forward(
        self, logits: Mapping[Modality, Tensor], representations: Mapping[Modality, Tensor], present: Tensor
    ) -> Tensor:
        """logits: (B, outputs) each; representations: (B, width) each; present: (B, 3) bool.

        Returns (B, 6) weights in the order of `EDGES` that sum to 1 over the edges whose two ends are present,
        and are all zero when fewer than two modalities are.
        """
        node = {
            m: torch.cat([self.from_logit(logits[m]), self.from_representation(representations[m])], dim=-1)
            for m in Modality
        }
        score = torch.cat([self.edge(torch.cat([node[e.target], node[e.source]], dim=-1)) for e in EDGES], dim=-1)
        order = list(Modality)
        targets = [order.index(e.target) for e in EDGES]
        sources = [order.index(e.source) for e in EDGES]
        exists = present[:, targets] & present[:, sources]
        any_edge = exists.any(dim=-1, keepdim=True)
        score = (score / EDGE_TEMPERATURE).masked_fill(~exists & any_edge, float("-inf"))
        return torch.softmax(score, dim=-1) * any_edge
