"""Devices that a run computes on: the CPU, a GPU, or many processes under torchrun, through Lightning Fabric."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING

import torch

from dhmd.errors import DeviceUnavailable, extra

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@cache
def fabric() -> Fabric:
    """The one Fabric of this process, launched: it holds the device, the precision and the group of processes.

    Under `torchrun` every process takes one GPU of its machine (nccl), or shares the CPU (gloo), and gradients are
    averaged over all of them (DDP). Otherwise there is one process, with a GPU where there is one. The network runs in
    bfloat16 where the GPU has it, the losses and the optimiser in float32. Raises DeviceUnavailable, LibraryMissing.
    """
    with extra("train", "dhmd-train fit"):
        from lightning_fabric import Fabric
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # every process would tell of its start
    cuda = torch.cuda.is_available()
    half = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if cuda and local > torch.cuda.device_count():
        raise DeviceUnavailable(
            f"{local} processes for {torch.cuda.device_count()} GPUs: start torchrun with --nproc-per-node "
            f"{torch.cuda.device_count()}, or on the CPU with CUDA_VISIBLE_DEVICES= in front"
        )
    made = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision="bf16-mixed" if half else "32-true",
    )
    made.launch()
    return made


def first() -> bool:
    """Tells whether this is the process that writes files and speaks."""
    return fabric().is_global_zero
