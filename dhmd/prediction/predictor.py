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
from dhmd.model.decoupling import Projection
from dhmd.model.dictionary import sparsemax
from dhmd.model.transformer import newest_present
from dhmd.prediction.embedding import Embedding
from dhmd.prediction.fusion import Fusion
from dhmd.prediction.maps import copied
from dhmd.prediction.matching import Matching
from dhmd.prediction.trunk import WIDTH, Band, Trunk, padded, taken


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
        alone: bool = False,
        activations: bool = False,
    ) -> None:
        """steps: of the windows. present: modalities that may be present, one at least; of others nothing is read or
        computed, and they count as absent. alone: for one window at a time, or to be exported: all modalities are
        padded to one length; for many at a time those of one length go together, and steps at which none is present
        are left out. activations: as of `Readout`."""
        super().__init__()
        self.atoms = model.atoms if activations else 0
        chosen = frozenset(present)
        self.steps = {m: steps[m] - cast("Projection", model.projection[m]).kernel + 1 for m in Modality if m in chosen}
        bands: dict[int, list[Modality]] = {}
        for m, count in self.steps.items():
            bands.setdefault(0 if alone else count, []).append(m)
        self.bands = list(bands.values())
        modalities = [m for band in self.bands for m in band]
        self.embedding = nn.ModuleDict({m: Embedding(model, m) for m in modalities})
        self.register_buffer("common", copied(model.shared_encoder.weight))
        self.trunk = Trunk(model, self.bands, self.steps)
        homo, hetero = model.homo_dictionary, model.hetero_dictionary
        self.homo_matching, self.hetero_matching = (
            None if dictionary is None else nn.ModuleList(Matching(dictionary, band) for band in self.bands)
            for dictionary in (homo, hetero)
        )
        self.fusion = Fusion(model, modalities)

    def forward(self, *windows: Tensor) -> Tensor:
        """windows and result as of `Readout`."""
        bands = [self._embedded(windows, band) for band in self.bands]
        masks = [band.mask for band in bands]
        there = torch.cat([mask.any(dim=-1) for mask in masks])[..., None]  # (M, B, 1)
        common = [self.common @ band.rows for band in bands]
        newest, every = zip(*self.trunk(bands), strict=True)
        last_homo = torch.cat(newest).transpose(1, 2) * there
        last = torch.cat([taken(each, newest_present(mask)) for each, mask in zip(every, masks, strict=True)])
        last_hetero = last.transpose(1, 2) * there
        if self.homo_matching is None or self.hetero_matching is None:
            mean = torch.cat([_mean(each, mask) for each, mask in zip(common, masks, strict=True)])
            match_homo, match_hetero = F.normalize(mean, dim=-1), F.normalize(last_hetero, dim=-1)
            return cast("Tensor", self.fusion(last_homo, match_homo, last_hetero, match_hetero, there))
        absent = [torch.where(mask, 0.0, -math.inf)[..., None] for mask in masks]
        best = torch.stack([_best(self.homo_matching, common, absent), _best(self.hetero_matching, every, absent)])
        used = sparsemax(torch.where(there, best, 0.0)) * there  # (2, M, B, K)
        match_homo, match_hetero = (
            F.normalize(atoms @ cast("Matching", matching[0]).atoms, dim=-1)
            for atoms, matching in zip(used, (self.homo_matching, self.hetero_matching), strict=True)
        )
        columns = cast("Tensor", self.fusion(last_homo, match_homo, last_hetero, match_hetero, there))
        if not self.atoms:
            return columns
        activations = used.new_zeros(2, len(Modality), columns.shape[0], self.atoms)
        activations.index_copy_(1, self.fusion.places, used)
        return torch.cat([columns, activations.permute(2, 0, 1, 3).flatten(1)], dim=-1)

    def _embedded(self, windows: Sequence[Tensor], band: Sequence[Modality]) -> Band:
        rows, masks = [], []
        for m in band:
            place = list(Modality).index(m)
            x, mask = self.embedding[m](windows[place], windows[len(Modality) + place])
            more = padded(self.steps, band) - self.steps[m]
            rows.append(F.pad(x, (0, 0, 0, more)))
            masks.append(F.pad(mask, (0, more)))
        every = torch.stack(masks)
        first = _first(every)
        return Band(first, torch.stack(rows)[:, :, first:].permute(0, 3, 1, 2).flatten(2), every[:, :, first:])


def _first(mask: Tensor) -> int:
    """A step of (M, B, T) before which nothing is present, or 0 where that is not to be asked.

    What is traced, captured or exported serves other masks, and a GPU would be waited for.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if tracing or torch.compiler.is_compiling() or mask.is_cuda:
        return 0
    return int(mask.flatten(0, 1).any(dim=0).to(torch.uint8).argmax()) // WIDTH * WIDTH


def _best(matching: Iterable[nn.Module], x: Sequence[Tensor], absent: Sequence[Tensor]) -> Tensor:
    """The greatest score of each atom, of all bands: (M, B, K)."""
    return torch.cat([one(*given) for one, *given in zip(matching, x, absent, strict=True)])


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x (M, d, B T) over the steps that are present: (M, B, d)."""
    steps = x.view(len(x), -1, *mask.shape[1:]) * mask[:, None]
    return steps.sum(dim=-1).transpose(1, 2) / mask.sum(dim=2)[..., None].clamp(min=1)
