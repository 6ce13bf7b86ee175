"""The extractors' own networks as ONNX: from a crop, samples and token ids to what stands in their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.checkpoint import Checkpoint
from dhmd.features.expression import CROP_SIDE, ExpressionNet
from dhmd.features.speech import LogMel
from dhmd.features.text import DEFAULT_ENCODER, TextExtractor, encoder_of
from dhmd.features.voice import CONTEXT, HOP, newest
from dhmd.features.voice_network import VoiceNetwork
from dhmd.modality import Modality
from training.export.network import TOLERANCE, ExportFailed, save_onnx

WINDOW: Final = 400
"""Samples of a frame of the spectrum."""
FRAME: Final = 160


class Looking(nn.Module):
    """Crops (N, 48, 48) uint8 -> embedding (N, 64) and logits (N, 7), of each and its mirror image."""

    def __init__(self, network: ExpressionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.perceive(crops)


class Listening(nn.Module):
    """Samples (1, N) up to the end of a hop -> what the voice network adds to the rows of that hop.

    N: whole hops, at most the context of a run. The spectrum is a convolution here, as ONNX's own is not the same
    everywhere.
    """

    waves: Tensor
    mels: Tensor

    def __init__(self, network: VoiceNetwork, mels: Tensor) -> None:
        """mels: (80, 201) of each frequency in each band."""
        super().__init__()
        self.network = network
        turn = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), np.arange(WINDOW)) / WINDOW
        waves = np.concatenate([np.cos(turn), np.sin(turn)]) * np.hanning(WINDOW + 1)[:-1]
        self.register_buffer("waves", torch.from_numpy(waves[:, None].astype(np.float32)))
        self.register_buffer("mels", mels)

    def forward(self, samples: Tensor) -> Tensor:
        around = F.pad(samples[None], (WINDOW // 2, WINDOW // 2), mode="reflect")
        spectrum = F.conv1d(around, self.waves, stride=FRAME)[..., :-1]  # (1, 402, T)
        power = spectrum.square().reshape(1, 2, WINDOW // 2 + 1, -1).sum(dim=1)
        bands = (self.mels @ power).clamp(min=1e-10).log10()
        return newest(self.network, (bands.maximum(bands.max() - 8.0) + 4.0) / 4.0)


class Reading(nn.Module):
    """Token ids (N,) of one text -> the vectors of its tokens (N, 384)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.network([ids])
        return vectors


@dataclass(frozen=True, slots=True)
class Part:
    """A network of an extractor.

    input, outputs: their names in the file. example: an input of the largest size; sizes: which of its axes are free.
    smaller: another input. what: shapes and units, for people. licence: of the weights.
    """

    file: str
    network: nn.Module
    input: str
    outputs: tuple[str, ...]
    example: Tensor
    sizes: Mapping[int, Any]
    smaller: Tensor
    what: str
    licence: str

    def write(self, folder: Path) -> float:
        """Write it as ONNX; returns the greatest distance of a number from the network's.

        Raises ExportFailed where that is above `TOLERANCE`, LibraryMissing.
        """
        import onnxruntime

        network, path = self.network.eval(), folder / self.file
        with torch.no_grad():
            save_onnx(
                lambda: torch.export.export(network, (self.example,), dynamic_shapes=(dict(self.sizes),)),
                (self.input,),
                self.outputs,
                path,
            )
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            distance = 0.0
            for given in (self.example, self.smaller):
                expected = network(given)
                found = session.run(list(self.outputs), {self.input: given.numpy()})
                for one, other in zip(expected if len(self.outputs) > 1 else (expected,), found, strict=True):
                    distance = max(distance, float((one - torch.from_numpy(other)).abs().max()))
        if not distance <= TOLERANCE:
            raise ExportFailed(f"{self.file} is {distance:.2g} off the network (at most {TOLERANCE:g})")
        return distance


def parts_of(checkpoint: Checkpoint) -> tuple[Part, ...]:
    """The networks of a checkpoint's extractors. Raises ExportFailed where one cannot be written."""
    path = {m: checkpoint.encoder(m) for m in Modality}
    encoder = encoder_of(checkpoint.features[Modality.TEXT])
    if encoder != DEFAULT_ENCODER:
        raise ExportFailed(
            f"{checkpoint.name}: its words are read by {encoder}, which cannot be written as ONNX; "
            f"export a checkpoint of {DEFAULT_ENCODER}, such as base"
        )
    draw = torch.Generator().manual_seed(0)
    crops = torch.randint(256, (3, CROP_SIDE, CROP_SIDE), generator=draw, dtype=torch.uint8)
    samples = 0.1 * torch.randn(1, CONTEXT, generator=draw)
    ids = torch.randint(1000, 2000, (64,), generator=draw)
    return (
        Part(
            "face.onnx",
            Looking(ExpressionNet.load(path[Modality.VISION])),
            "crops",
            ("embedding", "logits"),
            crops,
            {0: torch.export.Dim("faces", min=1, max=4096)},
            crops[:1],
            "crops (N, 48, 48) uint8, grey, aligned -> embedding (N, 64), logits (N, 7)",
            "that of the checkpoint, see README.md",
        ),
        Part(
            "voice.onnx",
            Listening(VoiceNetwork.load(path[Modality.AUDIO]), torch.from_numpy(LogMel().filters)),
            "samples",
            ("rows",),
            samples,
            {1: HOP * torch.export.Dim("hops", min=1, max=CONTEXT // HOP)},
            samples[:, -HOP:],
            f"samples (1, N) float32 in [-1, 1], 16 kHz, mono, the newest {CONTEXT} at most, whole hops of {HOP} -> "
            "rows (4, 135) of the last hop, 80 ms each: frame features (64), embedding (64), logits (7)",
            "MIT (Whisper tiny.en, the lower layers), and that of the checkpoint, see README.md",
        ),
        Part(
            "words.onnx",
            Reading(TextExtractor(adapter=path[Modality.TEXT]).network),
            "ids",
            ("vectors",),
            ids,
            {0: torch.export.Dim("tokens", min=2, max=256)},
            ids[:3],
            "ids (N,) int64 by tokenizer.json, special tokens with them, at most 256 -> vectors (N, 384)",
            "Apache-2.0 (all-MiniLM-L6-v2), and that of the checkpoint, see README.md",
        ),
    )
