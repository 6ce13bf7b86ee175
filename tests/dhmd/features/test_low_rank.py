"""Low-rank adaptation: nothing at first, then the same whether it stands beside the weights or in them."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from dhmd.features.low_rank import adapt, adapter_of, merge


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Linear(6, 10)
        self.contract = nn.Linear(10, 6)
        self.other = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.other(self.contract(torch.relu(self.expand(x))))
        return out


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block()).eval()


def learned(model: nn.Module) -> nn.Module:
    """A copy whose adapter is not zero any more."""
    adapted = deepcopy(model)
    for parameter in adapt(adapted, ("expand", "contract"), rank=2):
        nn.init.normal_(parameter, std=0.3)
    return adapted.eval()


def test_at_first_it_adds_nothing(model: nn.Module) -> None:
    x = torch.randn(3, 6)
    adapted = deepcopy(model)
    adapt(adapted, ("expand", "contract"), rank=2)
    torch.testing.assert_close(adapted.eval()(x), model(x))


def test_only_the_adapter_learns(model: nn.Module) -> None:
    adapted = deepcopy(model)
    parameters = adapt(adapted, ("expand", "contract"), rank=2)
    assert len(parameters) == 2 * 2 * 2
    assert {p for p in adapted.parameters() if p.requires_grad} == set(parameters)
    assert set(adapter_of(adapted)) == {
        f"{i}.{name}.{part}" for i in (0, 1) for name in ("expand", "contract") for part in ("down", "up")
    }


def test_merged_it_says_the_same(model: nn.Module) -> None:
    x, adapted = torch.randn(3, 6), learned(model)
    assert not torch.allclose(adapted(x), model(x), atol=1e-3)
    merge(model, adapter_of(adapted))
    torch.testing.assert_close(model(x), adapted(x))


def test_an_adapter_of_another_model_does_not_fit(model: nn.Module) -> None:
    adapter = adapter_of(learned(model))
    with pytest.raises(AttributeError):
        merge(nn.Sequential(nn.Linear(6, 6)), adapter)
    with pytest.raises(RuntimeError):
        merge(model, {name: tensor[..., :1] for name, tensor in adapter.items()})
    with pytest.raises(ValueError, match="not a linear map is called query"):
        adapt(model, ("query",), rank=2)
