"""What the Makefile and the lock promise to someone on a fresh machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-extras.lock", "requirements-dev.lock")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs Debian's package make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what the set-up reads, and no environment yet."""
    for path in (TOP / "Makefile", TOP / "pyproject.toml", *TOP.glob("requirements*.lock")):
        shutil.copy(path, tmp_path)
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # A make that runs these tests hands its own options down through the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def python_that(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def locked(name: str) -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (TOP / name).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


LIVE, EXTRAS, DEV = map(locked, LOCKS)
TORCH = locked("requirements-torch.lock")


def declared(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml names, of a live run or of extras."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = [line for extra in extras for line in optional[extra]] if extras else project["dependencies"]
    return {canonicalize_name(wanted.name): wanted for wanted in map(Requirement, lines)}


def test_make_alone_lists_every_target() -> None:
    listed = re.findall(r"^make (\w+) +\S", make(TOP).stdout, re.MULTILINE)
    daily = ["help", "setup", "extras", "demo", "test", "lint", "clean"]
    assert sorted(listed) == sorted([*daily, "soak", "bench", "accuracy", "people", "image", "clip", "lock"])


def test_an_old_python_is_named(clone: Path) -> None:
    old = python_that(clone, '[ "$1" = --version ] && echo Python 3.9.2 && exit; exit 1')
    done = make(clone, "setup", old)
    assert done.returncode != 0
    assert re.search(r"error: .*is Python 3\.9\.2, and Python 3\.11 or newer is needed; install it", done.stderr)
    assert not (clone / ".venv").exists()


def test_a_missing_python_is_named(clone: Path) -> None:
    done = make(clone, "setup", "PYTHON=python3.nowhere")
    assert done.returncode != 0
    assert re.search(r"error: 'python3\.nowhere' .*Python 3\.11 or newer is needed", done.stderr)


def test_a_missing_venv_module_is_named(clone: Path) -> None:
    bare = python_that(clone, 'case "$2" in *ensurepip*) exit 1;; esac')
    done = make(clone, "setup", bare)
    assert done.returncode != 0
    assert "error: this Python has no venv module; install it (Debian: apt-get install python3-venv)" in done.stderr
    assert not (clone / ".venv").exists()


def test_finished_steps_are_not_repeated_until_their_input_changes(clone: Path) -> None:
    environment = clone / ".venv"
    environment.mkdir()
    for age, stamp in enumerate(("dev", "extras", "installed", "locked", "created")):
        (environment / stamp).touch()
        os.utime(environment / stamp, (time.time() + 60 - age,) * 2)
    assert "pip install" not in make(clone, "--dry-run", "setup").stdout
    assert "pip install" not in make(clone, "--dry-run", "lint").stdout
    os.utime(environment / "locked", (0, 0))
    again = make(clone, "--dry-run", "setup").stdout
    assert re.search(r"--require-hashes .*-r requirements\.lock", again)
    assert "-m venv" not in again


@pytest.mark.parametrize(("target", "read"), [("demo", 1), ("setup", 1), ("extras", 2), ("test", 3), ("lint", 3)])
def test_each_target_installs_what_it_needs(clone: Path, target: str, read: int) -> None:
    """The demo needs nothing of training and tests."""
    assert tuple(re.findall(r"pip install .*-r (\S+\.lock)", make(clone, "--dry-run", target).stdout)) == LOCKS[:read]


@pytest.mark.parametrize(
    ("extras", "pins"),
    [
        ((), {**TORCH, **LIVE}),
        (("export", "lsl", "osc", "train"), {**LIVE, **EXTRAS}),
        (("dev",), {**LIVE, **EXTRAS, **DEV}),
    ],
    ids=["live", "extras", "dev"],
)
def test_every_requirement_is_locked_within_its_range(extras: tuple[str, ...], pins: dict[str, str]) -> None:
    wanted = declared(*extras)
    assert wanted.keys() <= pins.keys()
    assert [str(one) for name, one in wanted.items() if not one.specifier.contains(pins[name])] == []


def test_a_live_run_needs_nothing_of_training_and_tests() -> None:
    assert not LIVE.keys() & (declared("export", "lsl", "osc", "train").keys() | {"pytest", "mypy", "playwright"})
    assert len(LIVE | EXTRAS | DEV) == len(LIVE) + len(EXTRAS) + len(DEV)


def test_there_is_one_opencv_and_it_draws_no_windows() -> None:
    """Two overwrite each other's files."""
    assert [name for pins in (LIVE, EXTRAS, DEV) for name in pins if "opencv" in name] == ["opencv-python-headless"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes_and_no_address_is_recorded(name: str) -> None:
    text = (TOP / name).read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(name)) > 5
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "torch" not in locked(name)
    assert not re.search(r"://|^-", text, re.MULTILINE)


def test_torch_has_hashes() -> None:
    assert "--hash=sha256:" in (TOP / "requirements-torch.lock").read_text()
