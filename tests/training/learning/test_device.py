"""What training computes on, and what is said where it is not there."""

from __future__ import annotations

import sys

import pytest
import torch

from dhmd.errors import DeviceUnavailable, LibraryMissing
from training.learning.device import fabric, first


def test_alone_a_process_is_the_first_and_only_one() -> None:
    assert first()
    assert fabric().world_size == 1
    assert fabric() is fabric()


def test_more_processes_than_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DeviceUnavailable, match="2 processes for 1 GPUs: start torchrun with --nproc-per-node 1"):
        fabric.__wrapped__()


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(LibraryMissing, match=r"needs lightning_fabric; pip install 'dhmd\[train\]'"):
        fabric.__wrapped__()
