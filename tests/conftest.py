"""Fixtures for all tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dhmd.modality import Modality
from dhmd.model import DHMD, SENTIMENT, DHMDConfig, ModalityConfig

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers, corpora and clips beside the repository; not part of it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the folder 'shared' beside the repository ({SHARED})")
    return SHARED


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

    @property
    def labels(self) -> Tensor:
        """(B,) sentiment."""
        return self["in.label"][:, 0]


@pytest.fixture(scope="session", params=["dhmd_aligned", "dhmd_unaligned"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    """Each golden file in turn; the reference's names are mapped here, not in the model."""
    return Golden(shared / "golden" / f"{request.param}.npz")
