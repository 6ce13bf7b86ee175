"""Dictionary matching (DHMD, steps 4 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.modality import Modality
from dhmd.model.dictionary import Dictionary
from dhmd.prediction.maps import ColumnMap, Map, after, after_norm, copied, stacked, standardise


class Matching(nn.Module):
    """The query maps of several modalities, the last of them one with the atoms."""

    atoms: Tensor

    def __init__(self, dictionary: Dictionary, modalities: Sequence[Modality]) -> None:
        super().__init__()
        queries = [cast("nn.Sequential", dictionary.query[m]) for m in modalities]
        scores = dictionary.atoms * dictionary.scale, torch.zeros(len(dictionary.atoms))
        self.first = ColumnMap(*stacked(after_norm(query[1], query[0]) for query in queries))
        self.second = Map(*stacked(after(scores, after_norm(query[4], query[3])) for query in queries))
        self.register_buffer("atoms", copied(dictionary.atoms))

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        """x: (M, width, B T); absent: (M, B, T, 1), -inf for a step that is not there. Returns the greatest score of
        each atom, (M, B, K)."""
        query = standardise(F.gelu(self.first(standardise(x))))
        scores: Tensor = self.second(query.transpose(1, 2))  # in rows: the greatest of each atom is found across them
        return scores.view(*absent.shape[:3], -1).add_(absent).amax(dim=2)
