"""A trained network as one file: ONNX, or torch.export's `.pt2`.

The file holds `Predictor` with a free batch dimension, and as JSON what one needs to use it (`contract_of`). It is kept
only if it says what the model says, for every set of modalities.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from dhmd.checkpoint import CONTRACT, Checkpoint, subset_name
from dhmd.errors import DHMDError, extra
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.model import DHMD, Readout, columns, own_heads
from dhmd.prediction import Predictor
from training.data.compose import SUBSETS

FORMATS: Final = ("onnx", "pt2")
TOLERANCE: Final = 1e-4
INPUTS: Final = (*Modality, *(f"{m}_mask" for m in Modality))
OUTPUT: Final = "readout"
FREE_BATCH: Final = {"windows": tuple({0: torch.export.Dim("batch")} for _ in INPUTS)}

Run = Callable[[tuple[Tensor, ...]], Tensor]


class ExportFailed(DHMDError):
    """A model could not be exported, or the file does not say what the model says."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that is to be exported. steps: of its windows; contract: what one needs to use the file, as JSON."""

    model: DHMD
    steps: Mapping[Modality, int]
    contract: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Exported:
        steps = {m: spec.steps for m, spec in checkpoint.features.items()}
        return cls(checkpoint.model, steps, contract_of(checkpoint))


def write_network(exported: Exported, kind: str, path: Path) -> float:
    """Write a file in one of `FORMATS`. Returns the greatest distance from the model.

    Raises ExportFailed when a number of the file is more than `TOLERANCE` off, LibraryMissing.
    """
    write, read = {"onnx": (_write_onnx, read_onnx), "pt2": (_write_pt2, read_pt2)}[kind]
    predictor = Predictor(exported.model, exported.steps, alone=True).eval()
    readout = Readout(exported.model).eval()
    with torch.no_grad():
        write(predictor, exported, path)
        return distance_from(readout, read(path), exported)


def distance_from(readout: Readout, run: Run, exported: Exported) -> float:
    """The greatest distance of `run` from `readout` on random windows of every set of modalities, whole and with gaps.

    Raises ExportFailed when it is above `TOLERANCE`.
    """
    draw = torch.Generator().manual_seed(0)
    worst = 0.0
    for subset in SUBSETS:
        for batch, share in ((1, 1.0), (3, 0.6)):
            windows = windows_of(exported, subset, batch, share, draw)
            expected, found = readout(*windows), run(windows)
            distance = (found - expected).abs()
            if found.shape != expected.shape or not bool((distance <= TOLERANCE).all()):
                column = columns(exported.model.config.heads)[int(distance.nan_to_num(torch.inf).amax(dim=0).argmax())]
                raise ExportFailed(
                    f"the exported file is {float(distance.max()):.2g} off the model (at most {TOLERANCE:g}) in "
                    f"{column!r} with {subset_name(subset)} present: nothing was written; try the other --format"
                )
            worst = max(worst, float(distance.max()))
    return worst


def windows_of(
    exported: Exported, present: frozenset[Modality], batch: int, share: float, draw: torch.Generator
) -> tuple[Tensor, ...]:
    """Random rows as wide and as large as real ones, (batch, steps, width), then masks (batch, steps) in which `share`
    of the steps of each present modality stand."""
    inputs, masks = [], []
    for m in Modality:
        statistics = exported.model.normaliser[m].state_dict()
        rows = torch.randn(batch, exported.steps[m], len(statistics["mean"]), generator=draw)
        inputs.append(rows * statistics["std"] + statistics["mean"])
        stands = torch.rand(batch, exported.steps[m], generator=draw) < share
        stands[:, -1] = True
        masks.append(stands & (m in present))
    return (*inputs, *masks)


def contract_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that one needs to use the file: names of inputs and output, columns, features, heads of its own,
    calibration, and the statistics by which it normalises rows itself."""
    calibration, model = checkpoint.calibration, checkpoint.model
    return {
        "checkpoint": checkpoint.name,
        "digest": checkpoint.digest,
        "inputs": list(INPUTS),
        "output": OUTPUT,
        "columns": list(columns(model.config.heads)),
        "emotions": list(EMOTIONS),
        "heads": [asdict(head) | {"scale": list(head.scale)} for head in own_heads(model.config.heads)],
        "features": {m: checkpoint.features[m].to_dict() for m in Modality},
        "temperature": dict(calibration.temperature),
        "sentiment_half_width": dict(calibration.sentiment_half_width),
        "normaliser": {
            m: {name: value.tolist() for name, value in model.normaliser[m].state_dict().items()} for m in Modality
        },
    }


def _program(predictor: Predictor, exported: Exported) -> ExportedProgram:
    """Made from a batch of two, since torch takes a size of one for a constant."""
    windows = windows_of(exported, frozenset(Modality), 2, 1.0, torch.Generator().manual_seed(1))
    return torch.export.export(predictor, windows, dynamic_shapes=FREE_BATCH)


def _write_pt2(predictor: Predictor, exported: Exported, path: Path) -> None:
    contract = json.dumps(exported.contract)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that buffers are parts of larger ones
        torch.export.save(_program(predictor, exported), path, extra_files={CONTRACT: contract})


def _write_onnx(predictor: Predictor, exported: Exported, path: Path) -> None:
    contract = json.dumps(exported.contract)
    save_onnx(lambda: _program(predictor, exported), INPUTS, (OUTPUT,), path, {CONTRACT: contract})


def save_onnx(
    program: Callable[[], ExportedProgram],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: Path,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write what `program` makes as ONNX, under these names. Raises ExportFailed, LibraryMissing."""
    with extra("train", "ONNX"):
        import onnxscript  # noqa: F401
    # It reports operators of packages that are not installed and not used.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program(), input_names=list(inputs), output_names=list(outputs), dynamo=True, verbose=False
        )
    if made is None:
        raise ExportFailed("torch made no ONNX program; try --format pt2")
    made.model.metadata_props.update(metadata)
    made.save(path)


def read_pt2(path: Path) -> Run:
    """The function that a `.pt2` holds."""
    module = torch.export.load(path).module()
    return lambda windows: module(*windows)


def read_onnx(path: Path) -> Run:
    """The function that an ONNX file holds, run by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(windows: tuple[Tensor, ...]) -> Tensor:
        feed = {name: window.numpy() for name, window in zip(INPUTS, windows, strict=True)}
        return torch.from_numpy(session.run([OUTPUT], feed)[0])

    return run
