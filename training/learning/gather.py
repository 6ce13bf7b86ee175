"""Outputs of one batch that were computed in shares by several processes, put together again.

Some terms of the loss are not means over samples: the triplet margin is over all pairs of the batch, the edges'
regulariser is of the batch's mean, and other means are over the samples that are present or labelled. So each process
computes the loss of the whole batch from the outputs of all of them, and sends back the gradient of its own. The sum
over the processes is the gradient of one process; DDP makes a mean of it, so the loss is multiplied by their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from dhmd.modality import Modality
from dhmd.model import DHMDOutput
from training.data.batch import Batch
from training.rivals import Learnable, RivalOutput

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Leaves(nn.Module):
    """The network with its output as a plain tuple of tensors, which is what Fabric and DDP can wrap."""

    def __init__(self, model: Learnable) -> None:
        super().__init__()
        self.model = model
        self._form: DHMDOutput | RivalOutput | None = None

    def forward(self, inputs: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]) -> tuple[Tensor, ...]:
        out: DHMDOutput | RivalOutput = self.model(inputs, masks)
        if self._form is None:
            self._form = _rebuilt(out, iter([torch.empty(0)] * len(list(_leaves(out)))))
        return tuple(_leaves(out))

    def output(self, leaves: Sequence[Tensor]) -> DHMDOutput | RivalOutput:
        """The output that `forward` took apart, from leaves of any number of samples."""
        rebuilt: DHMDOutput | RivalOutput = _rebuilt(self._form, iter(leaves))
        return rebuilt


def share(batch: Batch, rank: int, world: int) -> tuple[Mapping[Modality, Tensor], Mapping[Modality, Tensor]]:
    """Inputs and masks of the samples that one of `world` processes computes. All have as many: the last sample stands
    in for what is missing, and `whole` leaves it out again."""
    count = size(batch)
    each = -(-count // world)
    chosen = torch.arange(rank * each, (rank + 1) * each).clamp(max=count - 1)
    return {m: x[chosen] for m, x in batch.inputs.items()}, {m: x[chosen] for m, x in batch.masks.items()}


def whole(fabric: Fabric, leaves: Sequence[Tensor], count: int) -> list[Tensor]:
    """leaves: (b, ...) of this process's share. Returns (count, ...) of the batch; gradients flow to this share.

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


def _leaves(value: Any) -> Iterator[Tensor]:
    """The tensors of nested dataclasses, mappings and tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in _parts(value):
            yield from _leaves(part)


def _rebuilt(form: Any, leaves: Iterator[Tensor]) -> Any:
    """Rebuilds the form of the first, with other tensors."""
    if isinstance(form, Tensor):
        return next(leaves)
    parts = [_rebuilt(part, leaves) for part in _parts(form)]
    if isinstance(form, Mapping):
        return dict(zip(form, parts, strict=True))
    return type(form)(*parts)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    return list(value)
