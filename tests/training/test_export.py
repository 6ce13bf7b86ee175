"""An exported file says what the model says, for any batch and every set of modalities, or it is not written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from dhmd.checkpoint import Checkpoint, load, subset_name
from dhmd.modality import Modality
from dhmd.model import COLUMNS, Readout
from training import export as exporting
from training.cli import main
from training.data.compose import SUBSETS
from training.export import FORMATS, Exported, ExportFailed, distance_from, export, windows_of

Windows = tuple[Tensor, ...]
Run = Callable[[Windows], Tensor]
Opened = tuple[Run, dict[str, Any]]
ANY = torch.Generator().manual_seed(11)


@pytest.fixture(scope="module")
def base(untrained_checkpoint: Path) -> Checkpoint:
    """As wide as the one that ships, with fewer layers: exporting that takes two minutes."""
    return load(untrained_checkpoint)


def open_pt2(path: Path) -> Opened:
    extra = {"dhmd.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    return (lambda windows: module(*windows)), json.loads(extra["dhmd.json"])


def open_onnx(path: Path) -> Opened:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    contract = json.loads(session.get_modelmeta().custom_metadata_map["dhmd.json"])

    def run(windows: Windows) -> Tensor:
        feed = {name: window.numpy() for name, window in zip(contract["inputs"], windows, strict=True)}
        return torch.from_numpy(session.run([contract["output"]], feed)[0])

    return run, contract


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """Both formats are written of the same trace of the network, which takes as long as all else here."""
    trace, kept = exporting._program, []

    def once(readout: Readout, checkpoint: Checkpoint) -> ExportedProgram:
        kept.extend([] if kept else [trace(readout, checkpoint)])
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_program", once)
        yield


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest,
    untrained_checkpoint: Path,
    traced_once: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Opened:
    """A checkpoint after `dhmd-train export`, opened as a stranger would."""
    path = tmp_path_factory.mktemp("exported") / f"base.{request.param}"
    asked = ["--checkpoint", str(untrained_checkpoint), "--format", request.param, "--out", str(path)]
    assert main(["export", *asked]) == 0
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return {"onnx": open_onnx, "pt2": open_pt2}[request.param](path)


@pytest.mark.parametrize("present", SUBSETS, ids=subset_name)
@pytest.mark.parametrize(("batch", "share"), [(1, 1.0), (1, 0.3), (2, 0.5), (5, 0.8)])
def test_the_file_says_what_the_model_says(
    exported: Opened, base: Checkpoint, present: frozenset[Modality], batch: int, share: float
) -> None:
    run, _ = exported
    windows = windows_of(Exported.of(base), present, batch, share, ANY)
    with torch.no_grad():
        expected, found = Readout(base.model)(*windows), run(windows)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-4)


def test_the_file_declares_all_it_needs(exported: Opened, base: Checkpoint) -> None:
    run, contract = exported
    assert contract["digest"] == base.digest
    assert contract["features"]["audio"] == json.loads(json.dumps(base.features[Modality.AUDIO].to_dict()))
    assert contract["temperature"] == base.calibration.temperature
    windows = windows_of(Exported.of(base), frozenset(Modality), 2, 1.0, ANY)
    with torch.no_grad():
        columns = dict(zip(contract["columns"], run(windows).T, strict=True))
        out = base.model(dict(zip(Modality, windows[:3], strict=True)), dict(zip(Modality, windows[3:], strict=True)))
    torch.testing.assert_close(columns["emotion sad"], base.model.split(out.output)["emotion"][:, 2], atol=1e-4, rtol=0)
    alone = base.model.split(out.homogeneous.logit[Modality.AUDIO])["sentiment"][:, 0]
    torch.testing.assert_close(columns["sentiment of audio alone"], alone, atol=1e-4, rtol=0)
    edge = out.heterogeneous.edges[:, 0]
    torch.testing.assert_close(columns["heterogeneous edge vision->text"], edge, atol=1e-4, rtol=0)


def test_windows_are_masked_as_asked(base: Checkpoint) -> None:
    windows = windows_of(Exported.of(base), frozenset({Modality.VISION}), 4, 0.5, ANY)
    text, vision, audio = windows[3:]
    assert not text.any()
    assert not audio.any()
    assert 0.3 < vision.float().mean() < 0.7


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
@pytest.mark.parametrize("at", [0, 5, len(COLUMNS) - 1])
def test_a_wrong_number_is_named(base: Checkpoint, at: int, wrong: float) -> None:
    readout = Readout(base.model)

    def run(windows: Windows) -> Tensor:
        out: Tensor = readout(*windows).clone()
        if windows[3].any() and windows[5].any():  # text and audio
            out[-1, at] += wrong
        return out

    with torch.no_grad(), pytest.raises(ExportFailed, match=rf"'{COLUMNS[at]}' with text\+audio present"):
        distance_from(readout, run, Exported.of(base))


def test_a_file_that_is_off_replaces_nothing(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "base.pt2"
    out.write_text("the last good one")
    monkeypatch.setattr(exporting, "_write_pt2", lambda readout, checkpoint, path: path.write_text("a wrong one"))
    monkeypatch.setattr(exporting, "read_pt2", lambda path: lambda windows: Readout(base.model)(*windows) + 0.01)
    assert main(["export", "--checkpoint", str(base.folder), "--format", "pt2", "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "0.01 off the model" in line
    assert [one.read_text() for one in tmp_path.iterdir()] == ["the last good one"]


def test_a_missing_folder_is_named_before_any_work(base: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="nowhere is not a folder"):
        export(Exported.of(base), "onnx", tmp_path / "nowhere" / "base.onnx")


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "--format", "onnx", "--out", str(tmp_path / "base.onnx")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("pip install onnxscript")
    assert not list(tmp_path.iterdir())
