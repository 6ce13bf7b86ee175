"""Recognition inside another program: the same estimates as a run's, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from realtime import recognise, recognising
from realtime.errors import SettingsInvalid
from realtime.messages.estimate import Estimate
from realtime.programs import recognise as recognition
from tests.realtime.waiting import PATIENCE_S

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def made(talking_clip: Path, untrained_checkpoint: Path) -> list[Estimate]:
    return list(recognise(str(talking_clip), checkpoint=str(untrained_checkpoint)))


def test_a_file_gives_the_estimates_of_a_run(
    made: list[Estimate], live: Callable[..., Any], talking_clip: Path, untrained_checkpoint: Path
) -> None:
    ran = live(
        "run", "--source", talking_clip, "--pace", "max", "--broker", "none", "--checkpoint", untrained_checkpoint,
        "--estimates", "-",
    )  # fmt: skip
    assert ran.code == 0
    # Standard output is the estimates' alone; the summary stands beside it.
    lines = [Estimate.model_validate_json(line) for line in ran.out.splitlines()]
    assert "no tick missed" in ran.err
    assert [one.emotions for one in lines] == [one.emotions for one in made]
    assert any(one.top for one in made)


def test_a_slow_reader_misses_nothing_of_a_file(
    made: list[Estimate], talking_clip: Path, untrained_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognition, "MOST_WAITING", 2)
    read = list(recognise(str(talking_clip), checkpoint=str(untrained_checkpoint)))
    assert [one.seq for one in read] == [one.seq for one in made]


@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_leaving_early_ends_the_run(talking_clip: Path, untrained_checkpoint: Path, pace: str) -> None:
    before = set(threading.enumerate())
    estimates = recognise(str(talking_clip), pace=pace, checkpoint=str(untrained_checkpoint))
    assert [one.seq for one in islice(estimates, 3)] == [0, 1, 2]
    estimates.close()
    for thread in set(threading.enumerate()) - before:
        if thread.name in {"recognise", "face", "voice", "transcript"}:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), thread.name


@pytest.mark.anyio
async def test_the_same_in_an_event_loop(made: list[Estimate], talking_clip: Path, untrained_checkpoint: Path) -> None:
    async with aclosing(recognising(str(talking_clip), checkpoint=str(untrained_checkpoint))) as estimates:
        assert [one.emotions async for one in estimates] == [one.emotions for one in made]


@pytest.mark.parametrize(
    ("source", "settings", "complaint"),
    [
        ("talk.mp4", {"hop_s": 60}, "--hop: "),
        ("camera:0", {"pace": "max"}, "--pace max is for files"),
        ("nowhere.mp4", {}, "nowhere.mp4"),
    ],
)
def test_what_is_wrong_is_raised_where_it_is_read(source: str, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint) as raised:
        next(recognise(source, **settings))
    assert isinstance(raised.value, SettingsInvalid) or "DHMD" in str(type(raised.value).__mro__)


def test_the_example_of_the_documentation_runs(talking_clip: Path) -> None:
    example = DOCS / "examples" / "recognise.py"
    ran = subprocess.run([sys.executable, example, talking_clip], capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert told
    assert all(set(one) == {"t", "emotion", "sure"} for one in told)


def test_a_face_of_a_camera_of_one_picture_a_second_is_there_all_the_while(
    serve_mjpeg: Callable[..., Any], untrained_checkpoint: Path
) -> None:
    from skimage import data

    camera = serve_mjpeg([data.astronaut()[:, :, ::-1]], fps=1.0)
    seen = False
    present = []
    given = {"microphone": "none", "words": "off", "checkpoint": str(untrained_checkpoint)}
    for estimate in recognise(camera.url, **given):
        seen = seen or estimate.modalities.vision.present
        present += [estimate.modalities.vision.present] if seen else []
        if len(present) == 40:
            break
    # A busy machine may look too late once; a face that comes and goes with each picture is there in half of it.
    assert sum(present) >= 34
