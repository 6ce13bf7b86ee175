"""`dhmd-train` at the edge: bad input ends with one line that names the cause, help that teaches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dhmd.yaml_config import ConfigInvalid
from training.cli import main
from training.config import read_config

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
        ("name: x\ncorpora: [meld, friends]\n", "line 2: 'corpora': no corpus is called 'friends'; there are ravdess"),
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
    assert told in complaint(["fit", str(path), "--corpora", str(tmp_path)], 2, capsys)


def test_missing_things_are_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere, base = str(tmp_path / "nowhere"), str(CONFIGS / "base.yaml")
    here = ["--corpora", str(tmp_path), "--cache", str(tmp_path / "cache"), "--run", str(tmp_path / "run")]
    assert "nowhere is no folder" in complaint(["extract", "--corpora", nowhere], 1, capsys)
    assert "cannot be read" in complaint(["fit", nowhere, "--corpora", str(tmp_path)], 2, capsys)
    absent = [*here, "--expression", nowhere]
    assert "train it with `dhmd-train expression`" in complaint(["fit", base, *absent], 1, capsys)
    network = tmp_path / "expression.safetensors"
    network.write_bytes(b"")
    assert "ravdess_speech_16k.zip is not there" in complaint(
        ["fit", base, *here, "--expression", str(network)], 1, capsys
    )
    assert "no run to go on with" in complaint(["fit", base, *here, "--resume"], 1, capsys)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "holds a run already" in complaint(["fit", base, *here], 1, capsys)
    assert "another configuration" in complaint(["fit", base, *here, "--resume"], 1, capsys)
    checkpoint = ["evaluate", "--corpora", str(tmp_path), "--checkpoint", nowhere]
    assert "no checkpoint at" in complaint(checkpoint, 1, capsys)


def test_a_damaged_clip_is_named(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import zipfile

    shutil.copytree(shared / "corpora" / "text", tmp_path / "text")
    with zipfile.ZipFile(tmp_path / "ravdess_speech_16k.zip", "w") as archive:
        archive.writestr("03-01-03-01-01-01-01.flac", b"no sound")
    config = tmp_path / "x.yaml"
    config.write_text("name: x\ncorpora: [ravdess]\n")
    from dhmd.features.expression import ExpressionNet

    ExpressionNet().save(tmp_path / "expression.safetensors")
    argv = ["fit", str(config), "--corpora", str(tmp_path), "--cache", str(tmp_path / "cache")]
    argv += ["--run", str(tmp_path / "run"), "--expression", str(tmp_path / "expression.safetensors")]
    assert "ravdess/03-01-03-01-01-01-01" in complaint(argv, 1, capsys)


def test_help_shows_the_path_from_corpora_to_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    order = [told.index(f"dhmd-train {command}") for command in ("expression", "extract", "fit", "evaluate")]
    assert order == sorted(order)


def test_the_shipped_configuration_is_valid() -> None:
    config = read_config(CONFIGS / "base.yaml")
    assert config.name == "base"
    assert config.network.d % config.network.attention_heads == 0
