"""What `dhmd-live info` says of a file, beside what other readers of the format say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from dhmd.checkpoint import shipped
from dhmd.modality import Modality
from dhmd.session import Session, schema
from realtime.session.info import read_info, size

RERUN = Path(sys.executable).with_name("rerun")


@pytest.fixture(scope="session")
def rerun(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """rerun(*arguments): the viewer's command without a window, which reports to nobody."""
    if not RERUN.exists():
        pytest.skip("needs rerun; pip install 'dhmd[dev]'")
    home = tmp_path_factory.mktemp("rerun")
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RERUN, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False, timeout=250
        )

    assert run("analytics", "disable").returncode == 0
    return run


def test_the_library_of_the_format_agrees(recorded: Path) -> None:
    info = read_info(recorded)
    with recorded.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        sizes: Counter[str] = Counter()
        for _, channel, message in reader.iter_messages():
            sizes[channel.topic] += len(message.data)
        named = [one.name for one in reader.iter_metadata()]
    assert summary is not None
    assert summary.statistics is not None
    counts = {summary.channels[i].topic: n for i, n in summary.statistics.channel_message_counts.items()}
    assert {topic.name: topic.messages for topic in info.topics} == counts
    assert {topic.name: topic.bytes for topic in info.topics} == dict(sizes)
    assert named == [schema.METADATA]


def test_a_recorded_session(recorded: Path) -> None:
    info = read_info(recorded)
    assert (info.state, info.stream, info.media, info.lost, info.marks) == ("complete", "hall", [], {}, [])
    assert info.started is None
    assert info.length_s == pytest.approx(6, abs=0.1)
    assert (info.model, info.checkpoint, info.shipped) == ("base", shipped()["base"], True)
    assert {spec["modality"] for spec in info.features} == set(Modality)
    rates = {topic.name: topic.rate_hz for topic in info.topics}
    assert rates[schema.ESTIMATE] == pytest.approx(10, abs=0.1)
    assert rates[schema.FEATURES[Modality.VISION]] == pytest.approx(15, abs=1)


def test_a_session_with_marks_and_losses_of_another_model(made: Any) -> None:
    info = read_info(made.path)
    assert info.lost == {schema.VIDEO: 12}
    assert [mark.text for mark in info.marks] == ["happy +1.5", "mark"]
    assert not info.shipped
    assert info.started is not None
    assert info.started.startswith("2023-11-1")


def test_for_programs(recorded: Path, live: Any) -> None:
    outcome = live("info", recorded, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = json.loads(outcome.out)
    assert told["stream"] == "hall"
    assert {topic["name"] for topic in told["topics"]} >= {schema.ESTIMATE, schema.WORDS}


def test_for_people(made: Any, live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    outcome = live("info", made.path)
    assert outcome.code == 0
    for what in (
        "hall",
        "not one shipped here",
        "12 of /video",
        "complete",
        "0:01.0 to 0:02.5  happy +1.5",
        "/estimate",
    ):
        assert what in outcome.out


def test_markup_in_a_file_is_text(make: Any, live: Any) -> None:
    session = make(stream="[bold]x[/]")
    session.finish()
    assert "[bold]x[/]" in live("info", session.path).out


def test_a_cut_file_and_a_damaged_one(made: Any, live: Any) -> None:
    whole = made.path.read_bytes()
    cut = made.path.with_name("cut.mcap")
    cut.write_bytes(whole[: made.chunk_ends[2] + 10])
    assert read_info(cut).state == "cut"
    # The command that it prints stands in one line, and works as it is pasted.
    pasted = live("info", cut).out.splitlines()[-1]
    assert subprocess.run(pasted, shell=True, capture_output=True, text=True, check=False).returncode == 0  # noqa: S602
    assert cut.with_suffix(".repaired.mcap").is_file()
    at = (made.chunk_ends[2] + made.chunk_ends[3]) // 2
    cut.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    assert read_info(cut).state == "damaged"


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1500, 2_340_000)] == ["0 B", "999 B", "1.5 kB", "2.3 MB"]


@pytest.fixture
def files(tmp_path: Path, make: Any) -> dict[str, Path]:
    """What is no session, by what is wrong with it."""
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("These are notes, not a session.\n" * 100)
    (tmp_path / "directory").mkdir()
    with (tmp_path / "foreign").open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/odometry", "json", writer.register_schema("x", "jsonschema", b"{}"))
        writer.add_message(channel, 1, b"{}", 1)
        writer.finish()  # type: ignore[no-untyped-call]
    for name, head in {
        "newer": {"version": str(schema.VERSION + 1)},
        "undescribed": {"epoch_unix": "yesterday"},
        "endless": {"hop_s": "nan"},
        "featureless": {"features": '[{"modality": "smell"}]'},
    }.items():
        make(name, **head).finish()
    damaged = make("damaged")
    # A channel of estimates whose messages are something else.
    damaged.add(schema.ESTIMATE, 0.1, schema.Estimate(seq=1))
    damaged.writer._writer.add_message(1, 10**18, b"\xff\xff\xff", 10**18)
    damaged.finish()
    return {path.name: path for path in tmp_path.iterdir()} | {"missing": tmp_path / "missing"}


WRONG = {
    "missing": "cannot be read (No such file or directory)",
    "empty": "not an MCAP file; sessions are recorded with --record",
    "text": "not an MCAP file; sessions are recorded with --record",
    "directory": "cannot be read (Is a directory)",
    "foreign": "an MCAP file, but no session of dhmd-live; sessions are recorded with --record",
    "newer": f"written by a newer program (session version {schema.VERSION + 1}, this one reads {schema.VERSION}); "
    "update dhmd",
    "undescribed": "damaged, the description of the session cannot be read",
    "endless": "damaged, the description of the session cannot be read",
    "featureless": "damaged, the description of the session cannot be read",
}


@pytest.mark.parametrize("command", [("info",), ("repair",), ("export", "--to", "csv")])
@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_no_session_is_one_line(
    command: tuple[str, ...], name: str, files: dict[str, Path], refuse: Any
) -> None:
    assert refuse(1, *command, files[name]) == f"{files[name]}: {WRONG[name]}"


@pytest.mark.parametrize("to", ["csv", "jsonl", "html", "png"])
def test_a_message_that_cannot_be_read_is_one_line(to: str, files: dict[str, Path], refuse: Any) -> None:
    line = refuse(1, "export", files["damaged"], "--to", to)
    assert line == f"{files['damaged']}: damaged, a message of {schema.ESTIMATE} cannot be read"


def test_a_session_without_an_estimate(make: Any, refuse: Any) -> None:
    path = make().finish()
    assert "holds no estimate" in refuse(1, "export", path, "--to", "html")


@pytest.mark.parametrize("command", ["export", "info", "repair"])
def test_help_teaches(command: str, live: Any) -> None:
    outcome = live(command, "--help")
    assert outcome.code == 0
    assert "examples:" in outcome.out
    assert f"dhmd-live {command} talk.mcap" in outcome.out
    assert "exit status: 0" in outcome.out


def test_rerun_opens_the_session(recorded: Path, rerun: Any, tmp_path: Path) -> None:
    out = tmp_path / "session.rrd"
    converted = rerun("mcap", "convert", recorded, "-o", out)
    assert converted.returncode == 0, converted.stderr
    assert out.stat().st_size > 10_000
    checked = rerun("mcap", "check", recorded)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "PROBLEM" not in checked.stdout + checked.stderr
    assert Session.open(recorded).complete
