"""What the Makefile and the lock promise to someone on a fresh machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs Debian's package make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what the set-up reads, and no environment yet."""
    for name in ("Makefile", "requirements.lock", "requirements-torch.lock", "pyproject.toml"):
        shutil.copy(TOP / name, tmp_path)
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


def locked() -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (TOP / "requirements.lock").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def declared() -> list[Requirement]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]


def test_make_alone_lists_every_target() -> None:
    listed = set(re.findall(r"^make (\w+) +\S", make(TOP).stdout, re.MULTILINE))
    assert listed == {"help", "setup", "demo", "test", "lint", "soak", "bench", "accuracy", "clip", "lock", "clean"}


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
    for stamp in ("created", "locked", "installed"):
        (environment / stamp).touch()
    assert "pip install" not in make(clone, "--dry-run", "setup").stdout
    os.utime(environment / "locked", (0, 0))
    again = make(clone, "--dry-run", "setup").stdout
    assert re.search(r"--require-hashes .*-r requirements\.lock", again)
    assert "-m venv" not in again


def test_every_requirement_is_locked_within_its_range() -> None:
    torch = Requirement(re.findall(r"^torch==\S+", (TOP / "requirements-torch.lock").read_text(), re.MULTILINE)[0])
    pins = {**locked(), torch.name: next(iter(torch.specifier)).version}
    missing = [str(wanted) for wanted in declared() if canonicalize_name(wanted.name) not in pins]
    outside = [
        str(wanted) for wanted in declared() if not wanted.specifier.contains(pins[canonicalize_name(wanted.name)])
    ]
    assert not missing
    assert not outside


def test_every_pin_has_hashes_and_no_address_is_recorded() -> None:
    text = (TOP / "requirements.lock").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked()) > len(declared())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "torch" not in locked()
    assert "--hash=sha256:" in (TOP / "requirements-torch.lock").read_text()
    assert not re.search(r"://|^-", text, re.MULTILINE)
