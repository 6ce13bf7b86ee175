"""An exported folder says what the model says, for any batch and every set of modalities, or it is not written; and its
example says what a live run says, where there is no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import wave
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

import realtime.demo
from dhmd.checkpoint import Calibration, Checkpoint, CheckpointInvalid, encoder_path, load, save, subset_name
from dhmd.contract import Word
from dhmd.features.expression import ExpressionNet, aligned_crop
from dhmd.features.face import FaceExtractor
from dhmd.features.text import TextExtractor
from dhmd.features.voice import VoiceExtractor
from dhmd.features.voice_network import VoiceNetwork
from dhmd.modality import Modality
from dhmd.model import COLUMNS, DHMD, Head, Readout
from realtime.messages.estimate import Dropped, Estimate, ModelName, own_numbers
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.recognition.attribution import Attribution
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import Engine
from training.cli import main
from training.data import media
from training.data.compose import SUBSETS
from training.export import network as exporting
from training.export.network import FORMATS, Exported, ExportFailed, distance_from, windows_of

Windows = tuple[Tensor, ...]
Run = Callable[[Windows], Tensor]
Opened = tuple[Run, dict[str, Any], Path]
ANY = torch.Generator().manual_seed(11)
END_S = 3.6
"""Within the demo clip's first sentence, after more sound than the voice network sees at once."""
WORDS = "Wonderful news, we won the prize, and I am so happy."
OWN = (
    Head("mood", "classification", 2, ("engaged", "bored")),
    Head("valence", "regression", 1, low=1.0, high=5.0, unit="points"),
)


@pytest.fixture(scope="module")
def base(untrained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """As wide as the one that ships, with fewer layers, as exporting that takes two minutes; with heads of its own."""
    plain, folder = load(untrained_checkpoint), tmp_path_factory.mktemp("own")
    for m in Modality:
        shutil.copyfile(encoder_path(untrained_checkpoint, m), encoder_path(folder, m))
    torch.manual_seed(0)
    config, every = plain.model.config, subset_name(Modality)
    save(
        folder,
        name="own",
        model=DHMD(replace(config, heads=(*config.heads, *OWN))),
        features=plain.features,
        calibration=Calibration({every: 1.5, f"mood: {every}": 3.0}, {every: 1.0, f"valence: {every}": 0.5}),
        training={},
        card="Weights by chance.\n",
    )
    return load(folder)


def open_pt2(folder: Path) -> Opened:
    extra = {"dhmd.json": ""}
    module = torch.export.load(folder / "network.pt2", extra_files=extra).module()
    return (lambda windows: module(*windows)), json.loads(extra["dhmd.json"]), folder


def open_onnx(folder: Path) -> Opened:
    session = onnxruntime.InferenceSession(folder / "network.onnx", providers=["CPUExecutionProvider"])
    contract = json.loads((folder / "dhmd.json").read_text())

    def run(windows: Windows) -> Tensor:
        feed = {name: window.numpy() for name, window in zip(contract["inputs"], windows, strict=True)}
        return torch.from_numpy(session.run([contract["output"]], feed)[0])

    return run, contract, folder


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
    request: pytest.FixtureRequest, base: Checkpoint, traced_once: None, tmp_path_factory: pytest.TempPathFactory
) -> Opened:
    """A checkpoint after `dhmd-train export`, opened as a stranger would."""
    folder = tmp_path_factory.mktemp("exported") / "own"
    assert main(["export", "--checkpoint", str(base.folder), "--format", request.param, "--out", str(folder)]) == 0
    assert [one.name for one in folder.parent.iterdir()] == [folder.name]
    return {"onnx": open_onnx, "pt2": open_pt2}[request.param](folder)


@pytest.fixture(scope="module")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with numpy, ONNX Runtime and tokenizers, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    here = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs", "onnxruntime", "tokenizers"):
        (packages / name).symlink_to(here / name)
    return folder / "bin" / "python"


def example(python: Path, folder: Path, *words: str | Path) -> dict[str, Any]:
    """What the example of an exported folder prints, run from elsewhere."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-B", folder / "example.py", *words],
        cwd=python.parent,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def perceived(base: Checkpoint, folder: Path) -> WindowCut:
    """The window of a live run up to `END_S` of the demo clip, and its input as files in `folder`."""
    clip = Path(realtime.demo.__file__).parent / "demo.mp4"
    path = {m: encoder_path(base.folder, m) for m in Modality}
    window = SlidingWindow(base.features, torch.device("cpu"))
    samples = np.round(media.sound(clip)[0][: round(16_000 * END_S)] * 32767).astype("<i2")
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    window.append(
        Modality.AUDIO,
        VoiceExtractor(VoiceNetwork.load(path[Modality.AUDIO])).push(samples.astype(np.float32) / 32768, 0.0),
    )
    seen: dict[str, list[Any]] = {"crops": [], "blendshapes": [], "pose": [], "times_s": []}
    with FaceExtractor(ExpressionNet.load(path[Modality.VISION]), "image") as extractor:
        for picture in media.pictures(clip):
            if picture.time_s > END_S:
                break
            if picture.time_s < END_S - 1.0 or not extractor.due(picture.time_s):
                continue
            looked = extractor.push(picture.image(), picture.time_s)
            assert looked.landmarks is not None
            window.append(Modality.VISION, looked.rows)
            seen["crops"].append(aligned_crop(picture.image(), looked.landmarks))
            seen["blendshapes"].append(looked.rows.values[0, :52])
            seen["pose"].append(looked.rows.values[0, 52:55])
            seen["times_s"].append(picture.time_s)
    np.savez(folder / "face.npz", **{name: np.array(value) for name, value in seen.items()})
    said = [Word(word, 0.0, END_S) for word in WORDS.split()]
    window.append(Modality.TEXT, TextExtractor(adapter=path[Modality.TEXT]).extract(said))
    return window.cut(END_S)


def live(base: Checkpoint, cut: WindowCut) -> Estimate:
    """What a live run publishes of a window."""
    engine, attribution = Engine(base, torch.device("cpu")), Attribution()
    inference = engine.infer(cut)
    attribution.known(cut, inference)
    for _ in range(6):
        attribution.measure(engine, cut, inference)
    known = attribution.known(cut, inference)
    assert known is not None
    top = max(zip(known.emotions, exporting.EMOTIONS, strict=True))[1]
    return build_estimate(
        cut,
        known,
        top,
        stream="example",
        seq=0,
        epoch_unix=0.0,
        faces=1,
        transcript=WORDS,
        capture_to_estimate_ms=None,
        timed=False,
        dropped=Dropped(video=0, audio=0),
        model=ModelName(name=base.name, checkpoint=base.digest),
    )


def leaves(told: Any, place: str = "") -> dict[str, Any]:
    """Every value in nested lists and objects, by its place."""
    if not isinstance(told, dict | list | tuple):
        return {place: told}
    parts = told.items() if isinstance(told, dict) else enumerate(told)
    return {where: value for key, one in parts for where, value in leaves(one, f"{place}/{key}").items()}


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_the_example_says_what_a_live_run_says(
    exported: Opened, base: Checkpoint, plain_python: Path, tmp_path: Path
) -> None:
    _, contract, folder = exported
    assert {"LICENSE", "NOTICE", "README.md", "tokenizer.json", *contract["files"]} <= {
        p.name for p in folder.iterdir()
    }
    expected = live(base, perceived(base, tmp_path))
    given = ("--face", tmp_path / "face.npz", "--sound", tmp_path / "sound.wav", "--words", WORDS)
    found = leaves(Estimate.model_validate(example(plain_python, folder, *given)).model_dump(mode="json"))
    wanted = leaves(expected.model_dump(mode="json"))
    assert found.keys() == wanted.keys()
    assert {"/extra/mood/top", "/extra/valence/low", "/modalities/text/influence"} < found.keys()
    numbers = [key for key, value in wanted.items() if isinstance(value, float)]
    assert len(numbers) > 65
    assert {key: found[key] for key in numbers} == pytest.approx({key: wanted[key] for key in numbers}, abs=1e-3)
    assert {k: v for k, v in found.items() if k not in numbers} == {k: v for k, v in wanted.items() if k not in numbers}

    # A part of it, and nothing at all.
    alone = Estimate.model_validate(example(plain_python, folder, "--sound", tmp_path / "sound.wav"))
    assert (alone.modalities.audio.present, alone.modalities.vision.present) == (True, False)
    assert alone.modalities.audio.influence == 1.0
    nothing = Estimate.model_validate(example(plain_python, folder))
    assert (nothing.emotions, nothing.top, nothing.valence, nothing.extra) == (None, None, None, {})


@pytest.mark.parametrize("exported", ["pt2"], indirect=True)
def test_a_program_runs_live(exported: Opened, base: Checkpoint, tmp_path: Path) -> None:
    *_, folder = exported
    program = folder / "network.pt2"
    cpu = torch.device("cpu")
    plain, other = Engine(load(folder), cpu), Engine(load(program), cpu)
    for present in (frozenset(Modality), frozenset({Modality.AUDIO}), frozenset({Modality.TEXT, Modality.VISION})):
        windows = windows_of(Exported.of(base), frozenset(Modality), 1, 1.0, ANY)
        inputs, masks = (dict(zip(Modality, part, strict=True)) for part in (windows[:3], windows[3:]))
        # What an attribution asks for: a part of a window that shows more.
        cut = WindowCut(0.0, 5.0, inputs, masks, dict.fromkeys(Modality, 5.0), present)
        expected, found = plain.infer(cut), other.infer(cut)
        assert expected is not None
        assert found is not None
        assert found.emotions == pytest.approx(expected.emotions, abs=1e-5)
        assert own_numbers(found.extra) == pytest.approx(own_numbers(expected.extra), abs=1.1e-4)
        (again,) = other.infer_many([cut])
        assert again is not None
        assert again.emotions == pytest.approx(expected.emotions, abs=1e-5)

    shutil.copytree(folder, tmp_path / "mixed")
    config = json.loads((folder / "config.json").read_text()) | {"name": "another"}
    (tmp_path / "mixed" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointInvalid, match=r"network.pt2 was exported of another checkpoint; export it again"):
        Engine(load(tmp_path / "mixed" / "network.pt2"), cpu)
    with zipfile.ZipFile(tmp_path / "mixed" / "network.pt2", "a") as archive:
        archive.writestr("network/data/constants/more_constants_config.json", '{"config": {"x": {"use_pickle": true}}}')
    with pytest.raises(CheckpointInvalid, match=r"no exported program \(it holds pickled objects\)"):
        Engine(load(tmp_path / "mixed" / "network.pt2"), cpu)
    (tmp_path / "mixed" / "network.pt2").write_bytes(b"PK no program")
    with pytest.raises(CheckpointInvalid, match=r"network.pt2 is no exported program \(.*; export it again"):
        Engine(load(tmp_path / "mixed" / "network.pt2"), cpu)


@pytest.mark.parametrize("present", SUBSETS, ids=subset_name)
@pytest.mark.parametrize(("batch", "share"), [(1, 1.0), (1, 0.3), (2, 0.5), (5, 0.8)])
def test_the_file_says_what_the_model_says(
    exported: Opened, base: Checkpoint, present: frozenset[Modality], batch: int, share: float
) -> None:
    run, *_ = exported
    windows = windows_of(Exported.of(base), present, batch, share, ANY)
    with torch.no_grad():
        expected, found = Readout(base.model)(*windows), run(windows)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-4)


def test_the_file_declares_all_it_needs(exported: Opened, base: Checkpoint) -> None:
    run, contract, _ = exported
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


def test_a_folder_that_is_off_is_not_written(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "_write_pt2", lambda readout, checkpoint, path: path.write_text("a wrong one"))
    monkeypatch.setattr(exporting, "read_pt2", lambda path: lambda windows: Readout(base.model)(*windows) + 0.01)
    asked = ["export", "--checkpoint", str(base.folder), "--format", "pt2", "--out"]
    assert main([*asked, str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "0.01 off the model" in line
    assert list(tmp_path.iterdir()) == []


def test_where_a_folder_cannot_be_is_said_before_any_work(
    base: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["export", "--checkpoint", str(base.folder), "--out"]
    assert main([*asked, str(tmp_path / "nowhere" / "out")]) == 1
    (tmp_path / "mine.txt").write_text("mine")
    assert main([*asked, str(tmp_path)]) == 1
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "nowhere is not a folder" in first
    assert "is there already" in second
    assert [one.read_text() for one in tmp_path.iterdir()] == ["mine"]


def test_a_missing_package_is_named(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "--checkpoint", str(base.folder), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith("ONNX needs onnxscript; pip install 'dhmd[train]'")
    assert not list(tmp_path.iterdir())
