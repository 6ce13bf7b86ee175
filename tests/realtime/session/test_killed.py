"""Killed at any moment, a recording opens, has lost no more than a second, and replays to what was estimated.

`make soak` kills two hundred runs, and ten whole ones.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dhmd.session import Session, schema
from realtime.demo import CLIP

KILLS = int(os.environ.get("DHMD_KILLS", "4"))
WHOLE_RUNS = max(1, KILLS // 20)
pytestmark = pytest.mark.timeout(300 + 20 * KILLS)


def test_runs_that_are_killed(untrained_checkpoint: Path, tmp_path: Path) -> None:
    program = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path, untrained_checkpoint, str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == KILLS
    for report in reports:
        if "error" in report:
            assert "cut before anything was recorded" in report["error"] or "not an MCAP file" in report["error"]
        else:
            assert not report["complete"]
            assert report["lost_messages"] == 0
        assert report["lost_s"] <= 1.0 + report["late_s"], report
        assert report["holds"], report
    assert sum(report["estimates"] for report in reports) > 0
    lost_s = sorted(report["lost_s"] for report in reports)
    print(f"{KILLS} kills: lost {lost_s[len(lost_s) // 2]:.2f} s in the middle, {lost_s[-1]:.2f} s at most")


@pytest.fixture
def kill_after(start_live: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[[int], tuple[Path, list[float]]]]:
    """kill_after(number): a whole run, killed when it has made so many estimates; its session and their times."""
    path, estimates = tmp_path / "session.mcap", tmp_path / "estimates.jsonl"

    def run(number: int) -> tuple[Path, list[float]]:
        path.unlink(missing_ok=True)
        estimates.unlink(missing_ok=True)
        command = start_live(
            "run", "--source", str(CLIP), "--broker", "none", "--record", str(path), "--estimates", str(estimates)
        )
        command.wait_for(lambda: estimates.exists() and estimates.read_bytes().count(b"\n") >= number)
        command.kill()
        command.wait()
        lines = estimates.read_bytes().split(b"\n")[:-1]
        return path, [json.loads(line)["t"] for line in lines]

    return run  # type: ignore[return-value]


def test_whole_runs_that_are_killed(kill_after: Callable[[int], tuple[Path, list[float]]], live: Any) -> None:
    for _ in range(WHOLE_RUNS):
        path, told = kill_after(random.randint(12, 60))
        session = Session.open(path)
        assert not session.complete
        recorded = [session.epoch_unix + r.message.end_s for r in session.records({schema.ESTIMATE})]
        late_s = max(later - one for one, later in pairwise(told)) - 0.1
        assert told[-1] - recorded[-1] <= 1.0 + late_s
        outcome = live("replay", path, "--verify")
        assert outcome.code == 0, outcome
