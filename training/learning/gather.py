"""Outputs of one batch that were computed in shares by several processes, put together again.

Some terms of the loss are not means over samples: the triplet margin is over all pairs of the batch, the edges'
regulariser is of the batch's mean, and other means are over the samples that are present or labelled. So each process
computes the loss of the whole batch from the outputs of all of them, and sends back the gradient of its own. The sum
over the processes is the gradient of one process; DDP makes a mean of it, so the loss is multiplied by their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, distributed, nn
from torch.export import register_dataclass
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from dhmd.modality import Modality
from dhmd.model import Branch, DHMDOutput
from training.data.batch import Batch
from training.rivals import Learnable, RivalOutput

if TYPE_CHECKING:
    from lightning_fabric import Fabric

for kind in (Branch, DHMDOutput, RivalOutput):
    register_dataclass(kind)


class Leaves(nn.Module):
    """The network with its output as a plain tuple of tensors, which is what Fabric and DDP can wrap."""

    def __init__(self, model: Learnable) -> None:
        super().__init__()
        self.model = model
        self._form: TreeSpec | None = None

    def forward(self, inputs: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]) -> tuple[Tensor, ...]:
        leaves, self._form = tree_flatten(self.model(inputs, masks))
        return tuple(leaves)

    def output(self, leaves: Sequence[Tensor]) -> DHMDOutput | RivalOutput:
        """The output that `forward` took apart, from leaves of any number of samples."""
        return cast("DHMDOutput | RivalOutput", tree_unflatten(leaves, cast("TreeSpec", self._form)))


def share(batch: Batch, rank: int, world: int) -> tuple[Mapping[Modality, Tensor], Mapping[Modality, Tensor]]:
    """Inputs and masks of the samples that one of `world` processes computes. All have as many: the last sample stands
    in for what is missing, and `whole` leaves it out again."""
    count = size(batch)
    each = -(-count // world)
    chosen = torch.arange(rank * each, (rank + 1) * each).clamp(max=count - 1)
    return {m: x[chosen] for m, x in batch.inputs.items()}, {m: x[chosen] for m, x in batch.masks.items()}


def whole(fabric: Fabric, leaves: Sequence[Tensor], count: int) -> list[Tensor]:
    """Joins leaves (b, ...) of the processes' shares to (count, ...) of the batch; gradients flow to this one's share.

    One exchange for all of them: side by side as float32, in which flags are exact too.
    """
    row = torch.cat([leaf.reshape(len(leaf), -1).float() for leaf in leaves], dim=1)  # (b, numbers)
    rows = row.new_empty(fabric.world_size * len(row), row.shape[1])
    distributed.all_gather(list(rows.chunk(fabric.world_size)), row.detach())
    rows[fabric.global_rank * len(row) :][: len(row)] = row
    columns = torch.split(rows[:count], [leaf[0].numel() for leaf in leaves], dim=1)
    return [column.reshape(count, *leaf.shape[1:]).to(leaf.dtype) for column, leaf in zip(columns, leaves, strict=True)]


def size(batch: Batch) -> int:
    """Its samples."""
    return len(next(iter(batch.inputs.values())))
