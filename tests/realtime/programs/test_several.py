"""Several streams in one process: a file names them, and each is as if it ran alone."""

from __future__ import annotations

import io
import itertools
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from realtime.cli import main
from realtime.demo import CLIP
from realtime.layers import each_stream, layers
from realtime.terminal.streams import StreamsView
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.mqtt.test_mqtt import an_estimate, streaming


def test_each_has_its_topics_and_settings_and_all_share_the_models(
    start_live: Callable[..., Any], subscribe: Callable[..., Any], mosquitto: Any, tmp_path: Path
) -> None:
    config, log = tmp_path / "rooms.yaml", tmp_path / "desk.jsonl"
    config.write_text(
        f"broker: {mosquitto.url}\nhop_s: 0.2\nstreams:\n"
        f"  hall: {{source: {CLIP}, words: off, discovery: true, duration: 8}}\n"
        f"  desk: {{source: {CLIP}, hop_s: 0.5, estimates: {log}}}\n"
        "  far: {source: http://127.0.0.1:9/none}\n"
    )
    everything = subscribe(mosquitto.port)
    run = start_live("run", "--config", str(config))
    run.wait_for(lambda: len(everything.estimates("hall")) > 5 and len(everything.estimates("desk")) > 2)
    run.wait_for(lambda: "restarting" in str(everything.payloads("dhmd/far/status/video")))
    run.wait_for(lambda: "warning: far: " in run.err)
    config.write_text(config.read_text().replace("hop_s: 0.5,", "hop_s: 0.5, margin: 0.5,"))
    run._process.send_signal(signal.SIGHUP)
    run.wait_for(lambda: "settings of desk read again: margin followed from now on" in run.err)
    run.wait_for(lambda: "stopped" in everything.statuses("hall"))
    run.wait_for(lambda: any(one["transcript"] for one in everything.estimates("desk")))
    run.interrupt()
    assert run.wait() == 0
    assert [everything.statuses(name) for name in ("hall", "desk", "far")] == [["online", "stopped"]] * 3
    for name, hop_s in (("hall", 0.2), ("desk", 0.5)):
        # Ticks that a busy machine misses make longer steps, none makes shorter ones.
        t = [one["t"] for one in everything.estimates(name)]
        assert min(b - a for a, b in itertools.pairwise(t)) == pytest.approx(hop_s, abs=0.05)
    assert not any(one["transcript"] for one in everything.estimates("hall"))
    written = {json.loads(line)["seq"] for line in log.read_text().splitlines()}
    assert {one["seq"] for one in everything.estimates("desk")} <= written
    assert everything.payloads("homeassistant/device/dhmd_hall/config")
    assert not everything.payloads("homeassistant/device/dhmd_desk/config")
    assert all(f"\n{name}" in run.out for name in ("hall", "desk", "far")), "a line and a summary each"


def test_a_stream_that_another_run_has_leaves_the_others_alone(
    start_live: Callable[..., Any], subscribe: Callable[..., Any], mosquitto: Any, tmp_path: Path
) -> None:
    everything = subscribe(mosquitto.port)
    config = tmp_path / "rooms.yaml"
    config.write_text(
        f"broker: {mosquitto.url}\nwords: off\nstreams:\n"
        f"  test: {{source: {CLIP}}}\n  desk: {{source: {CLIP}, duration: 3}}\n"
    )
    with streaming(mosquitto.url):
        everything.wait_for(lambda: everything.estimates("test"))
        run = start_live("run", "--config", str(config))
        assert run.wait() == 1
        assert "stream test has ended: another run publishes the stream test" in run.err
        assert everything.estimates("desk")
        assert everything.statuses("test") == ["online"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("streams: {a: {}}", "streams.a: has no source; name its camera, stream or file"),
        ("streams: {a/b: {source: x}}", "expected 1 to 64 bytes without spaces and / + # $, found 'a/b'"),
        ("streams: {a: {source: x, broker: none}}", "unknown key 'streams.a.broker'"),
        ("streams: {a: {source: x, people: 0}}", "expected a number of people from 1 to 16, or all, found 0"),
        ("streams: {a: {source: x, record_video: true}}", "streams.a: --record-video and --record-audio add to"),
        ("record: a.mcap\nstreams: {a: {source: x}}", "record is each stream's own; write it below its name"),
        ("pace: max\nstreams: {a: {source: x}}", "--pace max is for one file"),
        (
            "streams: {a: {source: 'camera:0'}, b: {source: 'camera:0'}}",
            "streams a and b: both have source camera:0",
        ),
        (
            "streams: {a: {source: 'camera:0', microphone: default}, b: {source: x, microphone: default}}",
            "streams a and b: both have microphone default",
        ),
        ("streams: [a]", "input should be a valid dictionary"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(
    text: str, told: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    config = tmp_path / "rooms.yaml"
    config.write_text(text)
    assert told in refuse(2, "run", "--config", str(config))


def test_other_commands_have_one_stream(tmp_path: Path, refuse: Callable[..., str]) -> None:
    config = tmp_path / "rooms.yaml"
    config.write_text("broker: mqtt://127.0.0.1\nstreams: {a: {source: x}}")
    for command in ("edge", "web"):
        assert "several in one process are for dhmd-live run" in refuse(2, command, "--config", str(config))
    assert "--source: source is each stream's own" in refuse(2, "run", "--config", str(config), "--source", "y")


def test_what_is_said_of_one_goes_before_what_is_said_of_all(tmp_path: Path) -> None:
    config = tmp_path / "rooms.yaml"
    config.write_text(
        "hop_s: 0.5\nmargin: 0.3\nstreams:\n  a: {source: 'camera:0', margin: 0.1}\n  b: {source: film.mp4}\n"
    )
    a, b = each_stream(layers(config, {"state": True}, {}, {"DHMD_HOP_S": "0.2"}))
    assert [(one.stream, one.hop_s, one.margin, one.state) for one in (a, b)] == [
        ("a", 0.2, 0.1, True),
        ("b", 0.2, 0.3, True),
    ]
    assert (a.microphone, b.microphone) == ("none", None)


def test_the_settings_of_each_are_shown_without_passwords(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "rooms.yaml"
    config.write_text("streams: {a: {source: 'rtsp://me:hush@camera.local/live', people: 2}}")
    with pytest.raises(SystemExit):
        main(["config", "run", "--config", str(config)])
    assert 'streams: {"a": {"source": "rtsp://' in (told := capsys.readouterr().out)
    assert "hush" not in told


def test_a_row_each_is_drawn() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    view = StreamsView(console, ["hall", "desk"])
    view.row("hall").estimate = an_estimate(1)
    view.row("desk").on_worker(WorkerStatus("video", WorkerState.RESTARTING, "no such camera"))
    console.print(view.drawn())
    drawn = console.export_text()
    assert re.search(r"hall +happy 70% +\+1\.50 +face", drawn)
    assert max(map(len, drawn.splitlines())) <= 100
    assert "video restarting: no such camera" in drawn
