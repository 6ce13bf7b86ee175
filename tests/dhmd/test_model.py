"""What DHMD promises beyond the reference: any window length, any subset of modalities, one row at a time."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, DHMDConfig, ModalityConfig
from dhmd.model.attention import CPUAttention, attend
from dhmd.model.dictionary import sparsemax
from dhmd.model.dropout import dropout
from dhmd.model.transformer import Transformers

WIDTH = {Modality.TEXT: 12, Modality.VISION: 9, Modality.AUDIO: 7}
SUBSETS = [set(c) for n in (1, 2, 3) for c in combinations(Modality, n)]


@pytest.fixture(scope="module")
def model() -> DHMD:
    torch.manual_seed(0)
    config = DHMDConfig(
        modalities={m: ModalityConfig(w, kernel=3) for m, w in WIDTH.items()},
        d=8,
        attention_heads=2,
        layers=2,
        atoms=24,
    )
    return DHMD(config).eval()


def draw(batch: int, steps: dict[Modality, int]) -> dict[Modality, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, steps[m], WIDTH[m], generator=generator) for m in Modality}


def keep(inputs: dict[Modality, Tensor], kept: set[Modality]) -> dict[Modality, Tensor]:
    return {m: torch.full(x.shape[:2], m in kept) for m, x in inputs.items()}


@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(sorted(kept)))
def test_an_absent_modality_has_no_influence_no_gate_and_no_edge(model: DHMD, kept: set[Modality]) -> None:
    inputs = draw(4, {Modality.TEXT: 11, Modality.VISION: 20, Modality.AUDIO: 15})
    noise = {m: x if m in kept else torch.randn_like(x) * 5 for m, x in inputs.items()}
    with torch.inference_mode():
        out, again = (model(x, keep(inputs, kept)) for x in (inputs, noise))
    assert torch.isfinite(out.output).all()
    assert torch.equal(out.output, again.output)
    for m in Modality:
        assert bool((out.gates[m] == 0).all()) == (m not in kept)
    for edges in (out.homogeneous.edges, out.heterogeneous.edges):
        expected = 1.0 if len(kept) > 1 else 0.0
        torch.testing.assert_close(edges.sum(1), torch.full((4,), expected))
        for i, edge in enumerate(EDGES):
            assert bool((edges[:, i] > 0).all()) == (set(edge) <= kept)


def test_rows_of_a_batch_do_not_touch_each_other(model: DHMD) -> None:
    inputs = draw(4, {Modality.TEXT: 11, Modality.VISION: 20, Modality.AUDIO: 15})
    masks = keep(inputs, set(Modality))
    masks[Modality.TEXT][1] = False
    masks[Modality.AUDIO][2, 5:] = False
    with torch.inference_mode():
        together = model(inputs, masks).output
        alone = torch.cat(
            [
                model({m: x[i : i + 1] for m, x in inputs.items()}, {m: x[i : i + 1] for m, x in masks.items()}).output
                for i in range(4)
            ]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_one_checkpoint_takes_any_window_length(model: DHMD) -> None:
    with torch.inference_mode():
        for steps in (3, 7, 64):
            out = model(draw(2, dict.fromkeys(Modality, steps)))
            assert out.output.shape == (2, 8)
            assert torch.isfinite(out.output).all()
        with pytest.raises(ValueError, match="shorter than the kernel"):
            model(draw(2, dict.fromkeys(Modality, 2)))


def test_no_step_sees_the_future(model: DHMD) -> None:
    inputs = draw(1, dict.fromkeys(Modality, 12))
    changed = {m: x.clone() for m, x in inputs.items()}
    for x in changed.values():
        x[:, -1] += 3.0
    mask = torch.ones(1, 12, dtype=torch.bool)
    with torch.inference_mode():
        c, other = (
            model.shared_encoder(model.projection[Modality.AUDIO](x[Modality.AUDIO], mask)[0])
            for x in (inputs, changed)
        )
        before, after = (
            model.self_attention({Modality.AUDIO: x}, {Modality.AUDIO: mask[:, :10]})[Modality.AUDIO]
            for x in (c, other)
        )
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9], after[:, 9])


def test_the_dictionary_does_not_shape_the_trunk(model: DHMD) -> None:
    inputs = draw(2, dict.fromkeys(Modality, 9))
    out = model(inputs)
    sum(out.homogeneous.match[m].feature.sum() for m in Modality).backward()  # type: ignore[union-attr]
    assert model.shared_encoder.weight.grad is None
    assert model.homo_dictionary.atoms.grad is not None
    model.zero_grad(set_to_none=True)


def test_sparsemax_is_the_projection_onto_the_simplex() -> None:
    scores = torch.tensor([[2.0, 1.5, -1.0], [0.1, 0.1, 0.1], [5.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    expected = torch.tensor([[0.75, 0.25, 0.0], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(sparsemax(scores), expected)
    assert torch.autograd.gradcheck(sparsemax, torch.randn(3, 5, dtype=torch.float64, requires_grad=True))


@pytest.fixture
def sequences() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    steps = {"a": 6, "b": 9, "c": 6}
    return {name: torch.randn(3, t, 8, generator=generator, requires_grad=True) for name, t in steps.items()}


def test_a_group_is_its_transformers_one_by_one(sequences: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    group = Transformers(8, 2, 2, dict.fromkeys(sequences, 0.0))
    masks = {name: torch.rand(x.shape[:2]) < 0.7 for name, x in sequences.items()}
    masks["c"][0] = False
    source = {name: torch.randn(3, 7, 8) for name in sequences}
    seen = {name: torch.rand(3, 7) < 0.7 for name in sequences}
    together, across = group(sequences, masks), group(sequences, seen, source)
    newest, every = group.newest(sequences, masks, every=True)
    for name, x in sequences.items():
        torch.testing.assert_close(together[name], group({name: x}, masks)[name])
        torch.testing.assert_close(across[name], group({name: x}, seen, source)[name])
        torch.testing.assert_close(every[name], together[name])
        for row, mask in enumerate(masks[name]):
            last = together[name][row, mask.nonzero()[-1, 0]] if mask.any() else torch.zeros(8)
            torch.testing.assert_close(newest[name][row], last)


def test_attention_with_dropout_has_the_gradient_of_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    fixed = (torch.rand(1000, generator=generator) < 0.6).double()
    monkeypatch.setattr("dhmd.model.attention.keep", lambda count, *_: fixed[:count])
    q, k, v = (torch.randn(2, 2, t, 4, dtype=torch.float64, requires_grad=True) for t in (3, 5, 5))
    bias = torch.zeros(2, 2, 3, 5, dtype=torch.float64).masked_fill(torch.rand(2, 2, 3, 5) < 0.3, -1e9)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, bias, 2, [0.4, 0.0]), (q, k, v))
    kept_all = CPUAttention.apply(q, k, v, bias, 2, (0.0, 0.0))
    torch.testing.assert_close(kept_all, attend(q, k, v, bias, 2, [0.0, 0.0]))


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(200_001), 0.3)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
