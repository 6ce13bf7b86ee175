"""Windows and macOS, as far as they can be had here: what Python lacks there is missing for our packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dhmd.session import Session
from realtime.demo import CLIP
from realtime.messages.estimate import Estimate

SCRIPT = Path(__file__).with_name("as_platform.py")
ROOT = SCRIPT.parent.parent
PLATFORMS = ("win32", "darwin")
TWICE_ASKED = """
import asyncio
from types import SimpleNamespace
from as_platform import become
become("win32", keys="m\\xe0H\\x00;2")
import sys
sys.stdin = SimpleNamespace(isatty=lambda: True, fileno=lambda: 0)
from realtime import event_loop
from realtime.terminal.keys import listening

async def main():
    pressed, view = [], SimpleNamespace(console=SimpleNamespace(is_terminal=True))
    with listening(view, pressed.append) as heard:
        assert heard
        while len(pressed) < 2:
            await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 2
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    print(*pressed)

event_loop.run(main())
"""
WRITTEN = """
import sys
from pathlib import Path
from as_platform import become
become("win32")
from dhmd.checkpoint import write_atomically
write_atomically(Path(sys.argv[1]), "whole")
"""

SPREAD = """
import sys
from pathlib import Path
from as_platform import become
become(sys.argv[1])
from training.features.spread import make
assert list(make([], Path(sys.argv[2]))) == []
"""


def python(*arguments: str | Path, **environment: str) -> str:
    """What it prints; it ends well, and complains of nothing."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SCRIPT.parent)]), **environment}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout.decode(environment.get("PYTHONIOENCODING", "utf-8"))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_module_is_imported(platform: str) -> None:
    imported = python(SCRIPT, platform, "import").split()
    files = {path for package in ("dhmd", "realtime", "training") for path in (ROOT / package).rglob("*.py")}
    left_out = {"__main__.py", "example.py"}
    assert len(imported) == len([path for path in files if path.name not in left_out]) - 3  # the packages themselves


@pytest.mark.parametrize(("platform", "encoding"), [("win32", "cp1252"), ("darwin", "utf-8")])
def test_a_file_is_run_as_fast_as_it_goes(
    platform: str, encoding: str, make_media: Callable[..., Path], untrained_checkpoint: Path, tmp_path: Path
) -> None:
    clip = make_media("short.mp4", "-i", str(CLIP), "-t", "2", "-c", "copy")
    estimates, session = tmp_path / "made.jsonl", tmp_path / "made.mcap"
    printed = python(
        *(SCRIPT, platform, "run", "--source", clip, "--pace", "max", "--checkpoint", untrained_checkpoint),
        *("--estimates", estimates, "--record", session, "--broker", "embedded"),
        PYTHONIOENCODING=encoding,
    )
    made = [Estimate.model_validate_json(line) for line in estimates.read_bytes().splitlines()]
    assert 18 <= len(made) <= 22
    assert f"{len(made)} at" in printed
    assert "undelivered" not in printed
    assert Session.open(session).complete


def test_keys_are_heard_in_a_console_of_windows() -> None:
    """Arrows and function keys are none of ours."""
    assert python("-c", TWICE_ASKED).split() == ["m", "2"]


def test_a_file_is_replaced_where_folders_cannot_be_opened(tmp_path: Path) -> None:
    python("-c", WRITTEN, tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "whole"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_features_are_made_on_as_many_cores_as_there_are(platform: str, untrained_encoders: Path) -> None:
    python("-c", SPREAD, platform, untrained_encoders)
