"""Every loss term against the reference numbers, and what masks and absent modalities mean for it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT, DHMDConfig, ModalityConfig
from training.config import Weights
from training.data.batch import Labels
from training.learning import losses

LETTER = {"l": Modality.TEXT, "v": Modality.VISION, "a": Modality.AUDIO}
WIDTH = {Modality.TEXT: 6, Modality.VISION: 5, Modality.AUDIO: 4}


def test_every_term_matches_the_reference(golden: Any) -> None:
    model, out = golden.model, golden.out
    labels = Labels({"sentiment": golden.labels})
    gap, same = losses.relation(model.config.heads, labels)
    stored = {m: golden[f"out.c_{letter}_sim"] for letter, m in LETTER.items()}
    task = losses.task(model, out, labels)
    homo = losses.homogeneous_distillation(out, out.present, model.homo_graph.prior, 10)
    hetero = losses.heterogeneous_distillation(out, out.present, model.hetero_graph.prior, 10)
    dict_homo, dict_hetero = losses.dictionary(out, gap, same)
    ours = {
        "rec": losses.reconstruction(out),
        "cyc": losses.cycle(out),
        "margin": losses.margin(stored, out.present, gap, same),
        "dict_homo": dict_homo,
        "dict_hetero": dict_hetero,
        "homo_gd.logit": homo.logit,
        "homo_gd.repr": homo.representation,
        "homo_gd.reg": homo.regulariser,
        "hetero_gd.logit": hetero.logit,
        "hetero_gd.repr": hetero.representation,
        "hetero_gd.reg": hetero.regulariser,
        "task.output_logit": task["output"],
        "task.logits_c": task["shared"],
    }
    for letter, m in LETTER.items():
        ours[f"task.logits_{letter}_homo"] = task[f"homo.{m}"]
        ours[f"task.logits_{letter}_hetero"] = task[f"hetero.{m}"]
    assert {f"loss.{name}" for name in ours} == {key for key in golden.arrays if key.startswith("loss.")}
    for name, value in ours.items():
        torch.testing.assert_close(
            value, golden[f"loss.{name}"], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture
def model() -> DHMD:
    torch.manual_seed(0)
    modalities = {m: ModalityConfig(width) for m, width in WIDTH.items()}
    return DHMD(DHMDConfig(modalities=modalities, d=8, attention_heads=2, layers=2, atoms=12)).eval()


def batch(size: int, seed: int = 0) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = {m: torch.randn(size, 7, width, generator=generator) for m, width in WIDTH.items()}
    return inputs, {m: torch.ones(size, 7, dtype=torch.bool) for m in Modality}


def written_out(rows: Tensor, label: Tensor) -> float:
    """The triplet margin as its definition reads, one triplet at a time."""
    anchors = []
    for i in range(len(rows)):
        pairs = [
            max(
                0.0,
                0.15 * abs(float(label[i] - label[n]))
                - float(F.cosine_similarity(rows[i], rows[p], dim=0))
                + float(F.cosine_similarity(rows[i], rows[n], dim=0)),
            )
            for p in range(len(rows))
            for n in range(len(rows))
            if p != i and label[p] == label[i] and label[n] != label[i]
        ]
        if pairs:
            anchors.append(sum(pairs) / len(pairs))
    return sum(anchors) / len(anchors)


def test_margin_over_what_is_present_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(3)
    features = {m: torch.randn(8, 5, generator=generator) for m in Modality}
    present = torch.rand(8, 3, generator=generator) > 0.3
    label = torch.tensor([1.0, 1.0, -2.0, 0.5, torch.nan, -2.0, 0.5, 3.0])
    gap, same = losses.relation((SENTIMENT,), Labels({"sentiment": label}))
    chosen = present.T & ~label.isnan()
    rows = torch.cat([features[m][chosen[i]] for i, m in enumerate(Modality)])
    labels = torch.cat([label[chosen[i]] for i in range(3)])
    ours = losses.margin(features, present, gap, same)
    assert float(ours) == pytest.approx(written_out(rows, labels), abs=1e-6)


def test_margin_has_the_gradient_of_its_value() -> None:
    generator = torch.Generator().manual_seed(4)
    label = torch.tensor([0, 1, 0, 2, 1])
    gap, same = losses.relation((EMOTION,), Labels({"emotion": label}))
    present = torch.ones(5, 3, dtype=torch.bool)
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: losses.margin(dict(zip(Modality, x, strict=True)), present, gap.double(), same), x
    )


def test_an_absent_modality_and_an_unknown_label_add_nothing(model: DHMD) -> None:
    inputs, masks = batch(6)
    masks[Modality.AUDIO][:] = False
    known = Labels({"emotion": torch.tensor([0, 1, 2, 0, 1, -1]), "sentiment": torch.full((6,), torch.nan)})
    out = model(inputs, masks)
    task = losses.task(model, out, known)
    assert task[f"homo.{Modality.AUDIO}"] == 0
    assert task[f"hetero.{Modality.AUDIO}"] == 0
    expected = F.cross_entropy(model.split(out.output)["emotion"][:5], known.values["emotion"][:5])
    torch.testing.assert_close(task["output"], expected)
    loss, terms = losses.total(model, out, known, Weights())
    loss.backward()
    assert model.projection[Modality.AUDIO].conv.weight.grad.abs().max() == 0
    assert model.projection[Modality.VISION].conv.weight.grad.abs().max() > 0
    assert set(terms) == {field.name for field in fields(Weights)} - {"regulariser", "temperature", "rehearsal"}


def test_rehearsal_is_the_divergence_of_the_classes_and_the_distance_of_the_numbers(model: DHMD) -> None:
    out = model({m: torch.randn(4, 5, width) for m, width in WIDTH.items()})
    assert losses.rehearsal(model, out, out.output.detach()).item() == pytest.approx(0, abs=1e-6)
    said = torch.randn_like(out.output)
    now, before = model.split(out.output), model.split(said)
    was = before["emotion"].softmax(dim=-1)
    expected = (was * (was.log() - now["emotion"].log_softmax(dim=-1))).sum(dim=-1).mean()
    expected = expected + (now["sentiment"] - before["sentiment"]).abs().mean()
    torch.testing.assert_close(losses.rehearsal(model, out, said), expected)


def test_masked_steps_do_not_enter_the_step_losses(model: DHMD) -> None:
    inputs, masks = batch(4)
    masks[Modality.VISION][:, :5] = False
    other = {m: torch.where(masks[m][..., None], x, x + 9) for m, x in inputs.items()}
    first, second = model(inputs, masks), model(other, masks)
    for term in (losses.reconstruction, losses.cycle, losses.orthogonality):
        torch.testing.assert_close(term(first), term(second))
    whole = model(inputs)
    assert losses.reconstruction(whole) != losses.reconstruction(first)


def test_teachers_are_not_moved_by_their_students(model: DHMD) -> None:
    inputs, masks = batch(4)
    out = model(inputs, masks)
    prior = torch.zeros(6)
    prior[[str(e) for e in EDGES].index(f"{Modality.TEXT}->{Modality.VISION}")] = 1.0
    edges_off = torch.zeros_like(out.homogeneous.edges)
    branch = type(out.homogeneous)(
        out.homogeneous.last, out.homogeneous.match, out.homogeneous.representation, out.homogeneous.logit, edges_off
    )
    losses._logit_distillation(branch, out.present, prior).backward()
    assert model.homo_head[Modality.VISION].out.weight.grad.abs().max() > 0
    assert model.homo_head[Modality.TEXT].out.weight.grad.abs().max() == 0


def test_the_product_is_that_of_the_modalities_that_are_there_and_moves_the_estimate_alone(model: DHMD) -> None:
    inputs, masks = batch(3)
    masks[Modality.AUDIO][0] = False
    for m in (Modality.AUDIO, Modality.VISION):
        masks[m][1] = False  # words alone: nothing to multiply
    out, temperature = model(inputs, masks), {Modality.TEXT: 2.0}
    said = {m: model.split(out.homogeneous.logit[m])["emotion"] / temperature.get(m, 1.0) for m in Modality}
    estimate = model.split(out.output)["emotion"].softmax(dim=1)
    expected = []
    for i, present in ((0, [Modality.TEXT, Modality.VISION]), (2, list(Modality))):
        together = torch.stack([said[m][i].softmax(dim=0) for m in present]).prod(dim=0)
        target = together / together.sum()
        expected.append((target * (target / estimate[i]).log()).sum())
    loss = losses.product(model, out, temperature)
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert model.head.out.weight.grad.abs().max() > 0
    assert model.homo_head[Modality.TEXT].out.weight.grad is None


def test_without_emotions_there_is_no_product() -> None:
    modalities = {m: ModalityConfig(width) for m, width in WIDTH.items()}
    model = DHMD(DHMDConfig(modalities=modalities, heads=(SENTIMENT,), d=8, attention_heads=2, layers=1, atoms=12))
    assert losses.product(model, model(*batch(4)), {}) == 0


def test_strangers_who_disagree_teach_each_other_nothing(model: DHMD) -> None:
    inputs, masks = batch(4)
    emotion = torch.tensor([0, 1, -1, 2])
    labels = Labels({"emotion": emotion, "sentiment": torch.full((4,), torch.nan)})
    assert losses.known(model.config.heads, labels).tolist() == [True, True, False, True]
    _, terms = losses.total(model, model(inputs, masks), labels, Weights())
    agreed = emotion >= 0
    kept = model({m: x[agreed] for m, x in inputs.items()}, {m: mask[agreed] for m, mask in masks.items()})
    _, without = losses.total(
        model, kept, Labels({name: value[agreed] for name, value in labels.values.items()}), Weights()
    )
    for name in ("task", "homo", "hetero", "mar", "dict"):
        torch.testing.assert_close(terms[name], without[name])
    assert terms["product"] != without["product"]


def test_samples_weigh_as_told(model: DHMD) -> None:
    inputs, masks = batch(2)
    out = model(inputs, masks)
    value = torch.tensor([2.0, -1.0])
    unknown = torch.tensor([-1, -1])
    labels = Labels({"sentiment": value, "emotion": unknown}, {"sentiment": torch.tensor([1.0, 0.25])})
    error = (model.split(out.output)["sentiment"][:, 0] - value).abs()
    torch.testing.assert_close(losses.task(model, out, labels)["output"], (error[0] + 0.25 * error[1]) / 2)


def test_without_a_dictionary_features_stand_for_themselves() -> None:
    modalities = {m: ModalityConfig(width) for m, width in WIDTH.items()}
    model = DHMD(DHMDConfig(modalities=modalities, d=8, attention_heads=2, layers=1, dictionary=False))
    assert not any("dictionary" in name for name in model.state_dict())
    inputs, masks = batch(4)
    masks[Modality.AUDIO][2] = False
    out = model(inputs, masks)
    for branch in (out.homogeneous, out.heterogeneous):
        lengths = torch.stack([branch.match[m].feature.norm(dim=1) for m in Modality], dim=1)
        torch.testing.assert_close(lengths, out.present.float())
    labels = Labels({"sentiment": torch.zeros(4), "emotion": torch.tensor([0, 1, 1, 0])})
    loss, terms = losses.total(model, out, labels, Weights())
    assert loss.isfinite()
    assert terms["dict"] == 0
    assert terms["mar"] > 0
