"""The predictor: windows in, readout out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.modality import Modality
from dhmd.model import DHMD
from dhmd.model.dictionary import sparsemax
from dhmd.model.transformer import newest_present
from dhmd.prediction.embedding import Embedding
from dhmd.prediction.fusion import Fusion
from dhmd.prediction.maps import copied
from dhmd.prediction.matching import Matching
from dhmd.prediction.trunk import Trunk


class Predictor(nn.Module):
    """Gives what `Readout` gives of the same weights, to rounding, for windows of a fixed number of steps.

    The weights are copied: a model that learns on needs a new predictor.
    """

    common: Tensor

    @torch.no_grad()
    def __init__(
        self,
        model: DHMD,
        steps: Mapping[Modality, int],
        present: Iterable[Modality] = tuple(Modality),
        *,
        activations: bool = False,
    ) -> None:
        """steps: of the windows. present: modalities that may be present, one at least; of others nothing is read or
        computed, and they count as absent. activations: as of `Readout`."""
        super().__init__()
        self.atoms = model.atoms if activations else 0
        chosen = frozenset(present)
        self.given = [i for i, m in enumerate(Modality) if m in chosen]
        modalities = [m for m in Modality if m in chosen]
        self.embedding = nn.ModuleList(Embedding(model, m) for m in modalities)
        kernels = [cast("Embedding", embedding).kernel for embedding in self.embedding]
        self.steps = [steps[m] - kernel + 1 for m, kernel in zip(modalities, kernels, strict=True)]
        self.register_buffer("common", copied(model.shared_encoder.weight))
        self.trunk = Trunk(model, modalities, self.steps)
        homo, hetero = model.homo_dictionary, model.hetero_dictionary
        self.homo_matching = None if homo is None else Matching(homo, modalities)
        self.hetero_matching = None if hetero is None else Matching(hetero, modalities)
        self.fusion = Fusion(model, modalities)

    def forward(self, *windows: Tensor) -> Tensor:
        """windows and result as of `Readout`."""
        x, mask = self._embedded(windows)
        there = mask.any(dim=-1)[..., None]  # (M, B, 1)
        at = newest_present(mask)
        common = self.common @ x
        own, every = self.trunk(x, mask)
        last_homo = self.trunk.own_norm(_taken(own, at)).transpose(1, 2) * there
        last_hetero = _taken(every, at).transpose(1, 2) * there
        if self.homo_matching is None or self.hetero_matching is None:
            steps = common.view(len(common), -1, *mask.shape[1:]) * mask[:, None]
            mean = steps.sum(dim=-1).transpose(1, 2) / mask.sum(dim=2)[..., None].clamp(min=1)
            match_homo, match_hetero = F.normalize(mean, dim=-1), F.normalize(last_hetero, dim=-1)
            return cast("Tensor", self.fusion(last_homo, match_homo, last_hetero, match_hetero, there))
        absent = torch.where(mask, 0.0, -math.inf)[..., None]
        best = torch.stack([self.homo_matching(common, absent), self.hetero_matching(every, absent)])
        used = sparsemax(torch.where(there, best, 0.0)) * there  # (2, M, B, K)
        match_homo = F.normalize(used[0] @ self.homo_matching.atoms, dim=-1)
        match_hetero = F.normalize(used[1] @ self.hetero_matching.atoms, dim=-1)
        columns = cast("Tensor", self.fusion(last_homo, match_homo, last_hetero, match_hetero, there))
        if not self.atoms:
            return columns
        activations = used.new_zeros(2, len(Modality), columns.shape[0], self.atoms)
        activations.index_copy_(1, self.fusion.places, used)
        return torch.cat([columns, activations.permute(2, 0, 1, 3).flatten(1)], dim=-1)

    def _embedded(self, windows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """X (M, d, B T) and its mask (M, B, T), padded to the longest."""
        longest = max(self.steps)
        rows, masks = [], []
        for place, embedding, steps in zip(self.given, self.embedding, self.steps, strict=True):
            x, mask = embedding(windows[place], windows[len(Modality) + place])
            rows.append(F.pad(x, (0, 0, 0, longest - steps)) if steps < longest else x)
            masks.append(F.pad(mask, (0, longest - steps)) if steps < longest else mask)
        return torch.stack(rows).permute(0, 3, 1, 2).flatten(2), torch.stack(masks)


def _taken(x: Tensor, at: Tensor) -> Tensor:
    """Takes of (M, d, B T) the step `at` (M, B) of each sample: (M, d, B)."""
    steps = x.unflatten(-1, (at.shape[1], -1))  # type: ignore[no-untyped-call]
    return cast("Tensor", steps.gather(3, at[:, None, :, None].expand(-1, x.shape[1], -1, 1))[..., 0])
