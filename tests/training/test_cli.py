"""`dhmd-train` at the edge: bad input ends with one line that names the cause, help that teaches."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dhmd.checkpoint import load
from dhmd.modality import Modality
from dhmd.yaml_config import ConfigInvalid
from realtime.programs.run import run
from realtime.settings import RunSettings
from training.cli import main
from training.cli.commands import CORPORA
from training.config import FitConfig, read_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def complaint(argv: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with that status."""
    assert main(argv) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nnetwrk:\n  d: 8\n", "line 2: unknown key 'netwrk'; did you mean 'network'?"),
        ("name: x\nnetwork:\n  layers: 2\n  depth: 3\n", "line 4: unknown key 'network.depth'"),
        ("name: x\nnetwork: {d: 33}\n", "line 2: 'network': d=33 must be even"),
        ("name: x\nlosses:\n  rec: 1\n  rex: 1\n", "line 4: unknown key 'losses.rex'"),
        ("name: x\noptimisation:\n  batch: many\n", "line 3: 'optimisation.batch': input should be a valid integer"),
        ("name: x\nmanifests: meld\n", "line 2: 'manifests': input should be a valid list"),
        ("name: x\nstart: base\nnetwork: {d: 32}\n", "leave `network` out"),
        ("name: x\nrehearsal: {windows: 4}\n", "leave `rehearsal` out"),
        ("name: x\ncomposition:\n  subsets: {face: 1}\n", "line 2: 'composition': subsets: 'face': 1.0; each of text,"),
        ("name: x\ncomposition:\n  subsets: {text: 0}\n", "at least one share must be above 0"),
        ("name: [x\n", "not YAML"),
        ("- x\n", "expected `key: value` lines"),
        ("seed: 1\n", "'name' is missing"),
    ],
)
def test_a_bad_configuration_is_named_by_its_line(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid):
        read_config(path)
    assert told in complaint(["fit", str(path)], 2, capsys)


def test_what_an_extra_would_add_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> None:
        import transformers  # noqa: F401

    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("training.cli.flags.does.fit", run)
    assert complaint(["fit", "x.yaml"], 1, capsys).endswith("; pip install 'dhmd[train]'")


def test_missing_things_are_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere, base = str(tmp_path / "nowhere"), str(CONFIGS / "base.yaml")
    (tmp_path / "my.csv").write_text("id,emotion,text\n1,sad,oh no\n")
    (tmp_path / "odd.csv").write_text("id,emotion,text,mood\n1,sad,oh no,bored\n")
    here = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    own = [*here, "--manifest", "my", "--run", str(tmp_path / "run")]
    assert "`dhmd-train prepare ravdess`" in complaint(["fit", base, *here], 2, capsys)
    assert "nowhere.csv: no such file" in complaint(["extract", f"{nowhere}.csv", *here], 2, capsys)
    assert "cannot be read" in complaint(["fit", nowhere], 2, capsys)
    assert "fer2013.zip" in complaint(["prepare", "fer2013", "--corpora", nowhere], 1, capsys)
    absent = ["extract", "my", *here, "--encoders", nowhere]
    assert "text.safetensors is not there" in complaint(absent, 1, capsys)
    finetune = str(CONFIGS / "finetune.yaml")
    assert "names no manifests" in complaint(["fit", finetune, *here], 2, capsys)
    assert "leave --encoders out" in complaint(["fit", finetune, *own, "--encoders", nowhere], 2, capsys)
    assert "no run to resume" in complaint(["fit", base, *own, "--resume"], 1, capsys)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "log.json").write_text("[]")
    assert "holds a run already" in complaint(["fit", base, *own], 1, capsys)
    assert "another configuration" in complaint(["fit", base, *own, "--resume"], 1, capsys)
    (tmp_path / "run" / "config.json").write_text('{"manifests": ["my"]}')
    for command in ("evaluate", "plot", "export"):
        unfinished = [
            command,
            "--checkpoint",
            str(tmp_path / "run"),
            *(["--out", nowhere] if command != "evaluate" else []),
        ]
        assert "not finished" in complaint(unfinished, 1, capsys)
    assert "leave out such rows" not in complaint(
        ["fit", base, *here, "--manifest", str(tmp_path / "odd.csv")], 2, capsys
    )
    assert "no checkpoint at" in complaint(["evaluate", "--checkpoint", nowhere, *here], 1, capsys)
    assert "`dhmd-train prepare all`" in complaint(["evaluate", *here], 1, capsys)


def test_all_faults_of_a_manifest_are_told_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.csv").write_text("id,emotion,image\n1,bored,gone.png\n2,sad,\n")
    assert main(["extract", str(tmp_path / "my.csv"), "--cache", str(tmp_path / "cache")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert "row 2: unknown emotion 'bored'" in lines[0]
    assert "gone.png: no such file" in lines[1]
    assert "row 3: has no modality" in lines[2]


def test_too_little_to_learn_from_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.csv").write_text("id,split,emotion,text\n1,test,sad,oh no\n")
    argv = ["--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run"), "--jobs", "1"]
    argv = ["fit", str(CONFIGS / "finetune.yaml"), "--manifest", str(tmp_path / "my.csv"), *argv]
    assert main(argv) == 1
    assert "nothing to learn from" in capsys.readouterr().err


CLIPS = {
    "mead_happy.mp4": ("train", "happy", ""),
    "single_face_smile.mp4": ("validation", "joy", ""),
    "grid_swwp2s.mpg": ("train", "calm", "set white with p two soon"),
}


@pytest.mark.timeout(600)
def test_own_clips_become_a_checkpoint_that_runs_live(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three commands of the README, with a shorter training."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{clip},{split},{emotion},{shared / 'clips' / clip},{text},0,1.2"
        for clip, (split, emotion, text) in CLIPS.items()
    ]
    Path("my.csv").write_text("\n".join(["id,split,emotion,video,text,start,end", *rows]) + "\n")
    config = (CONFIGS / "finetune.yaml").read_text()
    short = re.sub(r"epochs: \d+", "epochs: 1", re.sub(r"steps: \d+", "steps: 2", config))
    short = re.sub(r"per_class: \d+", "per_class: 1", re.sub(r"batch: \d+", "batch: 2", short))
    Path("finetune.yaml").write_text(short)
    # Of what base was measured on a part is at hand: one corpus is extracted, the other is not.
    Path("data").mkdir()
    lines = [f"{i},test,{('happy', 'sad')[i % 2]},{('what joy', 'oh no')[i % 2]} {i}" for i in range(20)]
    Path("data/meld.csv").write_text("\n".join(["id,split,emotion,text", *lines]) + "\n")
    Path("data/goemotions.csv").write_text("id,split,emotion,text\n1,test,sad,never seen before\n")
    assert main(["extract", "data/meld.csv", "--jobs", "1"]) == 0
    capsys.readouterr()
    assert main(["extract", "my.csv", "--jobs", "1"]) == 0
    assert "3 utterances have their features in cache; nothing was perceived in 0" in capsys.readouterr().out
    assert main(["fit", "finetune.yaml", "--manifest", "my.csv", "--jobs", "1"]) == 0
    checkpoint = load("runs/finetune/checkpoint")
    begun = load("base")
    assert checkpoint.features == begun.features
    assert checkpoint.calibration == begun.calibration
    for m in Modality:
        assert torch.equal(checkpoint.model.normaliser[m].mean, begun.model.normaliser[m].mean)
    assert checkpoint.digest != begun.digest
    card = (checkpoint.folder / "README.md").read_text()
    assert "began from the checkpoint `base`" in card
    assert "Beside each batch of 2, 16 imagined windows" in card
    assert "There were no test utterances." in card
    kept = re.search(r"What it kept: in ([\d.]+) % of imagined windows", card)
    assert kept is not None
    assert 90 < float(kept[1]) <= 100
    (row,) = (line.split(" | ") for line in card.splitlines() if line.startswith("| meld |"))
    assert row[1] == "20"
    assert 50 <= float(row[2]) == float(row[3])  # two short steps change nothing
    assert "goemotions" not in card
    assert main(["evaluate", "--checkpoint", "runs/finetune/checkpoint", "--manifest", "my.csv", "--split", "all"]) == 0
    measured = json.loads(capsys.readouterr().out.split("checkpoint: runs/finetune/checkpoint\n")[1])
    assert (measured["n"], measured["coverage"]) == (3, 1.0)
    assert "vision" in measured["by_modalities"]
    live = RunSettings(
        source=str(shared / "clips" / "single_face_smile.mp4"),
        pace="max",
        broker="none",
        checkpoint="runs/finetune/checkpoint",
        estimates="x.jsonl",
        duration=1.0,
    )
    run(live, Console(file=io.StringIO()))
    assert len(Path("x.jsonl").read_text().splitlines()) == 10


def test_help_shows_the_path_from_corpora_to_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    order = [
        told.index(f"dhmd-train {command}")
        for command in ("prepare", "encoder", "extract data", "fit configs/base", "evaluate  ")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("name", ["base", "finetune"])
def test_the_shipped_configurations_are_valid(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    assert isinstance(config, FitConfig)
    assert config.name == name
    assert set(config.manifests) <= set(CORPORA)


def test_threads_of_training_wait_without_spinning() -> None:
    """As torch reads when it is loaded."""
    code = "import os, sys, training.cli; assert 'torch' not in sys.modules; training.cli.main(['fit'])"
    told = "import atexit; atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'])); "
    run = subprocess.run([sys.executable, "-c", told + code], capture_output=True, text=True, check=False, timeout=120)
    assert run.stdout.split() == ["passive"]
