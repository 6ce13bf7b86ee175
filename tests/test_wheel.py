"""What `pip install` and `uv tool install` bring: a wheel that runs where nothing of the repository is."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime.demo import CLIP
from realtime.messages.estimate import Estimate

TOP = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "dhmd", "realtime", "training")


def done(*command: str | Path, cwd: Path) -> str:
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=cwd, env=surroundings, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for part in PARTS:
        if (TOP / part).is_dir():
            shutil.copytree(TOP / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / part, tree)
    done(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment, with the wheel in it. Its libraries are those of the one that runs, except
    that what stands in this folder is not to be seen from there."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
    own = sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)})
    Path(own, "libraries.pth").write_text(sysconfig.get_path("purelib"))
    wheel = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", built[1])
    done(sys.executable, "-m", "pip", "--python", programs / "python", *wheel, cwd=environment)
    return programs


def test_a_file_is_run_by_the_wheel_alone(installed: Path, make_media: Callable[..., Path], tmp_path: Path) -> None:
    clip = make_media("short.mp4", "-i", str(CLIP), "-t", "2", "-c", "copy")
    where = done(installed / "python", "-c", "import realtime; print(realtime.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    run = ("run", "--source", clip, "--pace", "max", "--broker", "none", "--estimates", "made.jsonl")
    done(installed / "dhmd-live", *run, cwd=tmp_path)
    made = [Estimate.model_validate_json(line) for line in (tmp_path / "made.jsonl").read_bytes().splitlines()]
    assert 18 <= len(made) <= 22
    assert made[-1].modalities.vision.present


def test_the_wheel_says_what_it_is(built: tuple[Path, Path], installed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(wheel.read(metadata))
    assert {name.partition("/")[0] for name in names} == {"dhmd", "realtime", "training", metadata.partition("/")[0]}
    assert told["Name"] == "dhmd"
    assert set(told.get_all("Provides-Extra", [])) == {"export", "lsl", "osc", "train", "dev"}
    assert f"dhmd-live {told['Version']}" == done(installed / "dhmd-live", "--version", cwd=tmp_path).strip()


def test_the_source_archive_holds_what_the_wheel_does(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive, zipfile.ZipFile(built[1]) as wheel:
        sources = {name.partition("/")[2] for name in archive.getnames()}
        missing = {name for name in wheel.namelist() if ".dist-info/" not in name} - sources
    assert not missing
