"""Parity with the reference numbers in `shared/golden`; the reference's names are mapped here, not in the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, SENTIMENT, DHMDConfig, DHMDOutput, ModalityConfig

LETTER = {"l": Modality.TEXT, "v": Modality.VISION, "a": Modality.AUDIO}
FIELD = {Modality.TEXT: "text", Modality.VISION: "video", Modality.AUDIO: "audio"}
KERNEL = {Modality.TEXT: 5, Modality.AUDIO: 3, Modality.VISION: 1}
QUERY_MODEL = {"txt": Modality.TEXT, "img": Modality.VISION, "acoustic": Modality.AUDIO}
UNUSED = re.compile(
    r"proj[12]_[lva]_low\.|out_layer_[lva]_low\.|_high_sd\.|proj_cosine_|align_c_|logit_scale|version$|_float_tensor$"
)

TRANSFORMER_PARTS = {
    "self_attn.in_proj_weight": "attention.in_proj.weight",
    "self_attn.in_proj_bias": "attention.in_proj.bias",
    "self_attn.out_proj": "attention.out_proj",
    "layer_norms.0": "attention_norm",
    "layer_norms.1": "feed_forward_norm",
    "fc1": "expand",
    "fc2": "contract",
    "layer_norm.": "norm.",
}

RULES: list[tuple[str, str]] = [
    (r"proj_([lva])\.", r"projection.{0}.conv."),
    (r"encoder_s_([lva])\.", r"decoupler.{0}.encoder."),
    (r"decoder_([lva])\.", r"decoupler.{0}.decoder."),
    (r"encoder_c\.", "shared_encoder."),
    (r"self_attentions_c_([lva])\.", r"self_attention.{0}."),
    (r"trans_([lva])_mem\.", r"memory.{0}."),
    (r"trans_([lva])_with_([lva])\.", r"cross_attention.{1}->{0}."),
    (r"proj1_c\.", "shared_head.first."),
    (r"proj2_c\.", "shared_head.second."),
    (r"out_layer_c\.", "shared_head.out."),
    (r"proj1_([lva])_low_dict\.", r"homo_head.{0}.first."),
    (r"proj2_([lva])_low_dict\.", r"homo_head.{0}.second."),
    (r"out_layer_([lva])_low_dict\.", r"homo_head.{0}.out."),
    (r"proj1_([lva])_high\.", r"hetero_head.{0}.first."),
    (r"proj2_([lva])_high\.", r"hetero_head.{0}.second."),
    (r"out_layer_([lva])_high\.", r"hetero_head.{0}.out."),
    (r"proj_([lva])_fusion_c\.", r"fuse_homo.{0}."),
    (r"proj_([lva])_fusion_s\.", r"fuse_hetero.{0}."),
    (r"weight_([lva])\.", r"gate.{0}."),
    (r"weight_c\.", "shared_gate."),
    (r"proj1\.", "head.first."),
    (r"proj2\.", "head.second."),
    (r"out_layer\.", "head.out."),
    (r"(homo|hetero)_dict\.space_dict", r"{0}_dictionary.atoms"),
    (r"(homo|hetero)_dict\.(img|txt|acoustic)_query_model\.q_map\.", r"{0}_dictionary.query.{1}."),
    (r"(homo|hetero)_gd\.W_logit\.", r"{0}_graph.from_logit."),
    (r"(homo|hetero)_gd\.W_repr\.", r"{0}_graph.from_representation."),
    (r"(homo|hetero)_gd\.W_edge\.", r"{0}_graph.edge."),
]


def translate(name: str) -> str:
    """A weight's name in the reference -> its name in ours."""
    for pattern, ours in RULES:
        found = re.match(pattern, name)
        if found:
            groups = [{**LETTER, **QUERY_MODEL}.get(g, g) for g in found.groups()]
            rest = name[found.end() :]
            for theirs, mine in TRANSFORMER_PARTS.items():
                rest = rest.replace(theirs, mine)
            return ours.format(*groups) + rest
    raise KeyError(name)


class Golden:
    """One golden file, and our model with its weights."""

    def __init__(self, path: Path) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = dict(np.load(path))
        self.inputs = {m: torch.from_numpy(self.arrays[f"in.{FIELD[m]}"]) for m in Modality}
        config = DHMDConfig(
            modalities={m: ModalityConfig(self.inputs[m].shape[2], KERNEL[m]) for m in Modality},
            heads=(SENTIMENT,),
            d=10,
            attention_heads=2,
            layers=2,
            atoms=16,
        )
        self.model = DHMD(config).eval()
        state = self.model.state_dict()
        given = {
            translate(key[2:]): torch.from_numpy(value)
            for key, value in self.arrays.items()
            if key.startswith("w.") and not UNUSED.search(key[2:])
        }
        shaped = {
            name: value.squeeze(-1) if value.ndim == 3 and state[name].ndim == 2 else value
            for name, value in given.items()
        }
        missing, unexpected = self.model.load_state_dict(shaped, strict=False)
        assert not unexpected
        assert all("normaliser" in name or "margin_projection" in name for name in missing), missing
        with torch.inference_mode():
            self.out = self.model(self.inputs)

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])


@pytest.fixture(scope="module", params=["dhmd_aligned", "dhmd_unaligned"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared / "golden" / f"{request.param}.npz")


def expectations(golden: Golden, out: DHMDOutput) -> Iterator[tuple[str, Tensor]]:
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


def test_every_output_and_edge_matches_the_reference(golden: Golden) -> None:
    ours = dict(expectations(golden, golden.out))
    owed = {key for key in golden.arrays if key.startswith(("out.", "edges.", "gd_prior."))}
    owed -= {f"out.{name}" for letter in LETTER for name in (f"c_{letter}_sim", f"proj_s_{letter}")}
    assert set(ours) == owed
    for key, value in ours.items():
        torch.testing.assert_close(value, golden[key], atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_a_masked_step_weighs_nothing_whatever_it_holds(golden: Golden) -> None:
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in golden.inputs.items()}
    masks[Modality.AUDIO][:, :4] = False
    masks[Modality.VISION][:, 2] = False
    masks[Modality.TEXT][:, -2:] = False
    other = {m: torch.where(masks[m][..., None], x, torch.full_like(x, 7.0)) for m, x in golden.inputs.items()}
    with torch.inference_mode():
        first, second = golden.model(golden.inputs, masks), golden.model(other, masks)
    torch.testing.assert_close(first.output, second.output, atol=1e-6, rtol=0)
    assert not torch.allclose(first.output, golden.out.output, atol=1e-4)


def test_an_edge_names_its_target_first(golden: Golden) -> None:
    assert [f"{e.target[0]}<-{e.source[0]}" for e in EDGES] == ["t<-v", "t<-a", "v<-t", "v<-a", "a<-t", "a<-v"]
