"""The prediction path says what the training path says, whatever is present."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT, DHMDConfig, ModalityConfig, Readout
from dhmd.prediction import Predictor
from dhmd.prediction.stack import SAFE, Stack, largest_score

WIDTH = {Modality.TEXT: 12, Modality.VISION: 9, Modality.AUDIO: 8}
"""Audio is as wide as the model, so that nothing projects it."""
KERNEL = {Modality.TEXT: 1, Modality.VISION: 3, Modality.AUDIO: 1}
STEPS = {Modality.TEXT: 7, Modality.VISION: 14, Modality.AUDIO: 10}
SUBSETS = [frozenset(chosen) for n in (1, 2, 3) for chosen in combinations(Modality, n)]
every_subset = pytest.mark.parametrize("present", SUBSETS, ids=lambda present: "+".join(sorted(present)))


def network(*, dictionary: bool = True, loudness: float = 1.0) -> DHMD:
    """Every weight and bias random; loudness: how much larger queries and keys are."""
    torch.manual_seed(3)
    config = DHMDConfig(
        modalities={m: ModalityConfig(WIDTH[m], KERNEL[m]) for m in Modality},
        heads=(EMOTION, SENTIMENT),
        d=8,
        attention_heads=2,
        layers=3,
        atoms=24,
        dictionary=dictionary,
    )
    model = DHMD(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
            if "in_proj.weight" in name:
                weight.mul_(loudness)
        for normaliser in model.normaliser.values():
            normaliser.mean.normal_()
            normaliser.std.uniform_(0.2, 2.0)
    return model


def windows(present: frozenset[Modality], share: float) -> list[Tensor]:
    """Of five samples: inputs, then masks in which `share` of the steps of each present modality stand."""
    draw = torch.Generator().manual_seed(5)
    inputs = [torch.randn(5, STEPS[m], WIDTH[m], generator=draw) * 3 for m in Modality]
    masks = [(torch.rand(5, STEPS[m], generator=draw) < share) & (m in present) for m in Modality]
    return [*inputs, *masks]


@pytest.mark.parametrize("share", [1.0, 0.6, 0.1], ids=["whole", "with gaps", "hardly there"])
@every_subset
def test_as_the_training_path(present: frozenset[Modality], share: float) -> None:
    """Both of a predictor of these modalities alone and of one that computes all."""
    model = network()
    given = windows(present, share)
    with torch.inference_mode():
        expected = Readout(model, activations=True)(*given)
        for computed, alone in product((present, frozenset(Modality)), (False, True)):
            found = Predictor(model, STEPS, computed, alone=alone, activations=True)(*given)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        plain = Predictor(model, STEPS, present)(*given)
    torch.testing.assert_close(plain, expected[:, : plain.shape[1]], atol=1e-5, rtol=0)


@every_subset
def test_without_a_dictionary(present: frozenset[Modality]) -> None:
    model = network(dictionary=False)
    given = windows(present, 0.6)
    with torch.inference_mode():
        torch.testing.assert_close(
            Predictor(model, STEPS, present, activations=True)(*given), Readout(model)(*given), atol=1e-5, rtol=0
        )


def test_scores_that_exp_could_not_take() -> None:
    model = network(loudness=12.0)
    predictor = Predictor(model, STEPS)
    assert not any(module.safe for module in predictor.modules() if isinstance(module, Stack))
    for share in (1.0, 0.6):
        given = windows(frozenset(Modality), share)
        with torch.inference_mode():
            torch.testing.assert_close(predictor(*given), Readout(model)(*given), atol=1e-4, rtol=0)


def test_weights_are_copied() -> None:
    model = network()
    predictor, given = Predictor(model, STEPS), windows(frozenset(Modality), 1.0)
    with torch.inference_mode():
        before = predictor(*given)
    with torch.no_grad():
        for weight in [*model.parameters(), *model.buffers()]:
            weight.zero_()
    with torch.inference_mode():
        assert torch.equal(predictor(*given), before)


def test_what_an_absent_modality_holds_is_not_read() -> None:
    model = network()
    present = frozenset({Modality.VISION})
    text, vision, audio, *masks = windows(present, 1.0)
    predictor = Predictor(model, STEPS, present)
    with torch.inference_mode():
        found = predictor(torch.full_like(text, torch.nan), vision, torch.full_like(audio, torch.nan), *masks)
        torch.testing.assert_close(found, Readout(model)(text, vision, audio, *masks), atol=1e-5, rtol=0)


def test_no_standardised_row_scores_above_the_bound() -> None:
    """A row along the greatest direction of a head reaches it nearly."""
    torch.manual_seed(0)
    heads, d = 2, 8
    weight, bias = torch.randn(1, 3 * d, d), torch.randn(1, 3 * d)
    bound = largest_score((weight, bias), heads)
    rows = torch.nn.functional.layer_norm(torch.randn(20_000, d) ** 3, (d,))
    query, key, _ = (rows @ weight[0].T + bias[0]).view(-1, 3, heads, d // heads).unbind(1)
    scores = query.norm(dim=-1).amax(dim=0) * key.norm(dim=-1).amax(dim=0)
    assert bound * 0.5 < scores.max() <= bound


def test_the_trained_model_needs_no_greatest_score(base_model: DHMD) -> None:
    predictor = Predictor(base_model, dict.fromkeys(Modality, 20))
    stacks = [module for module in predictor.modules() if isinstance(module, Stack)]
    assert stacks
    assert all(stack.safe for stack in stacks), f"some score may pass {SAFE}"


@pytest.fixture(scope="module")
def base_model() -> DHMD:
    from dhmd.checkpoint import load

    return load("base").model


def test_as_the_reference(golden: Any) -> None:
    steps = {m: x.shape[1] for m, x in golden.inputs.items()}
    masks = [torch.ones(x.shape[:2], dtype=torch.bool) for x in golden.inputs.values()]
    predictor = Predictor(golden.model, steps)
    with torch.inference_mode():
        found = predictor(*(golden.inputs[m] for m in Modality), *masks)
    expected = [golden["out.output_logit"], *(golden[f"out.logits_{letter}_homo"] for letter in "lva")]
    expected += [golden[f"edges.{space}"].T for space in ("homo", "hetero")]
    assert found.shape[1] == 1 + 3 + 2 * len(EDGES)
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("loudness", [1.0, 30.0], ids=["bounded scores", "unbounded scores"])
def test_nothing_is_asked_of_the_device(alone: bool, loudness: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph captures neither waits for a number nor reads another device: here one that holds none."""
    predictor = Predictor(network(loudness=loudness), STEPS, alone=alone).to("meta")
    given = [window.to("meta") for window in windows(frozenset(Modality), 1.0)]
    with pytest.raises(RuntimeError, match="meta"):
        predictor(*given)  # on a CPU it looks where the windows begin
    monkeypatch.setattr("dhmd.prediction.predictor._first", lambda _: 0)  # as on a GPU
    columns = predictor(*given)
    assert (columns.device.type, columns.shape[0]) == ("meta", 5)
