"""Parity with the reference numbers in `shared/golden`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMDOutput

LETTER = {"l": Modality.TEXT, "v": Modality.VISION, "a": Modality.AUDIO}


def expectations(golden: Any, out: DHMDOutput) -> Iterator[tuple[str, Tensor]]:
    """(name in the golden file, our tensor in its layout)."""
    yield "out.output_logit", out.output
    yield "out.logits_c", out.shared_logit
    yield "out.dict_c", golden.model.homo_dictionary.atoms
    yield "out.dict_s", golden.model.hetero_dictionary.atoms
    yield "edges.homo", out.homogeneous.edges.T
    yield "edges.hetero", out.heterogeneous.edges.T
    yield "gd_prior.homo", golden.model.homo_graph.prior
    yield "gd_prior.hetero", golden.model.hetero_graph.prior
    for letter, m in LETTER.items():
        parts = out.decoupled[m]
        yield f"out.origin_{letter}", out.projected[m].transpose(1, 2)
        yield f"out.recon_{letter}", parts.reconstruction.transpose(1, 2)
        yield f"out.s_{letter}_r", parts.heterogeneous_again.transpose(1, 2)
        yield f"out.s_{letter}", parts.heterogeneous.transpose(0, 1)
        yield f"out.c_{letter}", parts.homogeneous.transpose(0, 1)
        yield f"out.c_{letter}_dict", out.homogeneous.match[m].feature
        yield f"out.s_{letter}_dict", out.heterogeneous.match[m].feature
        yield f"out.repr_{letter}_homo", out.homogeneous.representation[m]
        yield f"out.repr_{letter}_hetero", out.heterogeneous.representation[m]
        yield f"out.logits_{letter}_homo", out.homogeneous.logit[m]
        yield f"out.logits_{letter}_hetero", out.heterogeneous.logit[m]
        yield f"out.last_h_{letter}", out.gates[m]


def test_every_output_and_edge_matches_the_reference(golden: Any) -> None:
    ours = dict(expectations(golden, golden.out))
    owed = {key for key in golden.arrays if key.startswith(("out.", "edges.", "gd_prior."))}
    owed -= {f"out.{name}" for letter in LETTER for name in (f"c_{letter}_sim", f"proj_s_{letter}")}
    assert set(ours) == owed
    for key, value in ours.items():
        torch.testing.assert_close(value, golden[key], atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_a_masked_step_weighs_nothing_whatever_it_holds(golden: Any) -> None:
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in golden.inputs.items()}
    masks[Modality.AUDIO][:, :4] = False
    masks[Modality.VISION][:, 2] = False
    masks[Modality.TEXT][:, -2:] = False
    other = {m: torch.where(masks[m][..., None], x, torch.full_like(x, 7.0)) for m, x in golden.inputs.items()}
    with torch.inference_mode():
        first, second = golden.model(golden.inputs, masks), golden.model(other, masks)
    torch.testing.assert_close(first.output, second.output, atol=1e-6, rtol=0)
    assert not torch.allclose(first.output, golden.out.output, atol=1e-4)


def test_an_edge_names_its_target_first(golden: Any) -> None:
    assert [f"{e.target[0]}<-{e.source[0]}" for e in EDGES] == ["t<-v", "t<-a", "v<-t", "v<-a", "a<-t", "a<-v"]
