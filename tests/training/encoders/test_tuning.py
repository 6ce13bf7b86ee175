"""Tuning goes on from its state file, and from no other than its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.encoders.tuning import Group, Plan, tune
from training.errors import RunDamaged
from training.learning.run_files import read_state, write_state

STEPS = 5


class Adapted(nn.Module):
    """A frozen layer, one that learns, and buffers that change."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(6, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.encoder(x)))
        return out


def tuned(state: Path, cut_after: int = 3) -> tuple[Adapted, list[dict[str, Any]]]:
    model = Adapted()
    measured = []

    def losses(epoch: int) -> Iterator[Tensor]:
        draw = torch.Generator().manual_seed(epoch)
        for _ in range(STEPS):
            yield model(torch.randn(4, 6, generator=draw)).square().mean()

    def measure() -> dict[str, float]:
        measured.append(1.0)
        if len(measured) > cut_after:
            raise KeyboardInterrupt
        return {"made": 0.5}

    groups = [Group([*model.norm.parameters(), *model.head.parameters()], 1e-2, 0.01)]
    return model, tune(model, groups, Plan(epochs=3, batch=4, warm_up=2), losses, STEPS, measure, state)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """The state of a run that was cut in its second epoch."""
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "cut.pt", cut_after=1)
    return tmp_path / "cut.pt"


def assert_the_same(state: Path, whole: Path) -> None:
    (model, log), (expected, expected_log) = tuned(state), tuned(whole)
    assert log == expected_log
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_cut_run_goes_on_to_the_same_weights_and_keeps_no_frozen_ones(cut: Path, tmp_path: Path) -> None:
    state = read_state(cut)
    assert state is not None
    assert len(state["log"]) == 1
    assert {name.split(".")[0] for name in state["model"]} == {"norm", "head"}
    assert_the_same(cut, tmp_path / "whole.pt")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["model"].pop("head.bias"),
        lambda state: state["model"].pop("norm.running_mean"),
        lambda state: state["model"].update(other=torch.zeros(2)),
        lambda state: state["model"].update({"encoder.weight": torch.zeros(4, 6)}),
        lambda state: state["model"].update({"head.bias": torch.zeros(3)}),
        lambda state: state["optimiser"].update(param_groups=[]),
        lambda state: state.pop("log"),
        lambda state: state.update(model=None),
    ],
    ids=["lacks a weight", "lacks a buffer", "another", "a frozen one", "shape", "optimiser", "no log", "no weights"],
)
def test_a_state_that_does_not_fit_is_refused(cut: Path, tmp_path: Path, change: Any) -> None:
    state = read_state(cut)
    assert state is not None
    change(state)
    write_state(cut, state)
    with pytest.raises(RunDamaged, match=r"cut\.pt is damaged, or another version wrote it: delete it, and the same"):
        tuned(cut)


def test_without_a_damaged_state_it_begins_anew(cut: Path, tmp_path: Path) -> None:
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(RunDamaged) as raised:
        tuned(cut)
    assert "--resume" not in str(raised.value)
    cut.unlink()
    assert_the_same(cut, tmp_path / "whole.pt")
