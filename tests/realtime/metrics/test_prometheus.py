"""What Prometheus reads of a run, over HTTP as it does, in both of its formats."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry, generate_latest, openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from realtime.demo import CLIP
from realtime.messages.estimate import Dropped
from realtime.metrics.collectors import NEWEST, StreamCollector, StreamFigures
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.publisher import Publisher
from realtime.pipeline.pipeline import Statistics
from realtime.scale.collectors import EdgeCollector, ServeCollector
from realtime.scale.edge_stream import EdgeStatistics
from realtime.scale.served import ServedStreams
from realtime.scale.server import ServeStatistics
from realtime.workers import WorkerState, WorkerStatus

DOCS = Path(__file__).parents[3] / "docs"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples(families: Iterable[Any]) -> Samples:
    """By name and labels, each of which there is once."""
    read = [(sample.name, frozenset(sample.labels.items()), sample.value) for f in families for sample in f.samples]
    assert len({(name, labels) for name, labels, _ in read}) == len(read)
    return {(name, labels): value for name, labels, value in read}


def scrape(address: str, accept: str = "text/plain") -> Samples:
    request = urllib.request.Request(address, headers={"Accept": accept})  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
        page, kind = answer.read().decode(), answer.headers["Content-Type"]
    assert kind.startswith(accept.partition(";")[0])
    return samples(plain(page) if accept == "text/plain" else open_metrics(page))


def value(read: Samples, name: str, **labels: str) -> float:
    return read[name, frozenset(labels.items())]


def free_address() -> str:
    """For what is started where its output is not seen before it ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/metrics"


def port_of(address: str) -> int:
    return urlsplit(address).port or 0


def address_of(command: Any) -> str:
    command.wait_for(lambda: "metrics: " in command.out and command.out.count("\n"))
    (line,) = (line for line in command.out.splitlines() if line.startswith("metrics: "))
    return str(line.removeprefix("metrics: "))


ABSENT = {"dhmd_undelivered_estimates_total", "dhmd_broker_connected", "dhmd_people"}
"""Without a broker, and where one person is followed."""
WORKERS = ("video", "audio", "face", "voice", "transcript")


def test_a_run_is_read_while_it_goes_on(
    mosquitto: Any, subscribe: Callable[..., Any], start_live: Callable[..., Any], untrained_checkpoint: Path
) -> None:
    listener = subscribe(mosquitto.port)
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall", "--metrics-port", "0",
        "--checkpoint", str(untrained_checkpoint),
    )  # fmt: skip
    address = address_of(command)
    command.wait_for(lambda: len(listener.estimates("hall")) >= 20)
    received = len(listener.estimates("hall"))

    def running(worker: str) -> bool:
        state = {"state": WorkerState.RUNNING}
        return value(scrape(address), "dhmd_worker_state", stream="hall", worker=worker, **state) == 1

    # On a busy machine one may be behind for a moment, which is told of it alone.
    for worker in WORKERS:
        command.wait_for(lambda worker=worker: running(worker))
    read = scrape(address)
    assert received <= value(read, "dhmd_estimates_total", stream="hall")
    assert value(read, "dhmd_broker_connected", stream="hall") == 1
    for worker in WORKERS:
        states = {s: value(read, "dhmd_worker_state", stream="hall", worker=worker, state=s) for s in WorkerState}
        (state,) = (state for state, is_so in states.items() if is_so)
        assert states == {one: float(one is state) for one in WorkerState}
        assert state in {WorkerState.RUNNING, WorkerState.BEHIND}
        assert value(read, "dhmd_worker_restarts_total", stream="hall", worker=worker) == 0
    for name in ("capture_to_estimate", "capture_to_published", "inference"):
        quantiles = [value(read, f"dhmd_{name}_seconds", stream="hall", quantile=q) for q in ("0.5", "0.95", "0.99")]
        assert 0 < quantiles[0] <= quantiles[1] <= quantiles[2] < 60
    assert 1e8 < value(read, "process_resident_memory_bytes") < 1e10
    # Nobody but this machine is answered: all of 127.0.0.0/8 would be, were it all addresses.
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port_of(address)), 10)

    mosquitto.stop()
    undelivered = ("dhmd_undelivered_estimates_total", frozenset({("stream", "hall")}))
    command.wait_for(lambda: scrape(address, OPEN_METRICS)[undelivered] > read[undelivered] + 5)
    command.wait_for(lambda: value(scrape(address, OPEN_METRICS), "dhmd_broker_connected", stream="hall") == 0)
    later = scrape(address, OPEN_METRICS)
    assert {name for name in read if name[0].endswith("_total")} <= set(later)
    assert all(later[name] >= before for name, before in read.items() if name[0].endswith("_total"))
    command.interrupt()
    assert command.wait() == 0


def test_figures_are_those_of_the_streams_that_there_are_at_the_moment() -> None:
    statistics = Statistics(estimates=7, missed_ticks=2, people=2, of_people=Counter({1: 4, 2: 6}))
    statistics.inference_ms = deque([1000.0] * 10 + [2.0] * NEWEST)
    workers = {"video": WorkerStatus("video", WorkerState.RESTARTING, "gone", restarts=3)}
    publisher = Publisher(BrokerAddress("127.0.0.1", 1), "hall", lambda _: None)
    publisher.undelivered = 4
    streams = [
        StreamFigures("hall", statistics, lambda: Dropped(video=5, audio=6), workers, publisher),
        StreamFigures('de"sk\\', Statistics(), lambda: Dropped(video=0, audio=0), {}, None),
    ]
    registry = CollectorRegistry()
    registry.register(StreamCollector(lambda: streams))
    read = samples(plain(generate_latest(registry).decode()))
    assert read == samples(open_metrics(openmetrics.exposition.generate_latest(registry).decode()))
    hall = {name: value for (name, labels), value in read.items() if labels == {("stream", "hall")}}
    assert hall == {
        "dhmd_estimates_total": 7,
        "dhmd_missed_ticks_total": 2,
        "dhmd_dropped_frames_total": 5,
        "dhmd_dropped_blocks_total": 6,
        "dhmd_undelivered_estimates_total": 4,
        "dhmd_broker_connected": 0,
        "dhmd_people": 2,
    }
    by_count = {people: value(read, "dhmd_person_estimates_total", stream="hall", people=people) for people in "12"}
    assert by_count == {"1": 4, "2": 6}
    assert value(read, "dhmd_worker_state", stream="hall", worker="video", state="restarting") == 1
    assert value(read, "dhmd_worker_restarts_total", stream="hall", worker="video") == 3
    assert value(read, "dhmd_inference_seconds", stream="hall", quantile="0.99") == 0.002
    desk = {name for name, labels in read if ("stream", 'de"sk\\') in labels}
    assert desk == {name for name in hall if name not in ABSENT}
    streams.pop()
    assert {dict(labels).get("stream") for _, labels in samples(plain(generate_latest(registry).decode()))} == {"hall"}


def test_the_manual_names_all_of_them() -> None:
    link: Any = SimpleNamespace(missed=0)
    server: Any = SimpleNamespace(statistics=ServeStatistics(), streams=ServedStreams("a", {}), joined=asyncio.Event())
    collectors = (StreamCollector(list), EdgeCollector("hall", EdgeStatistics(), link), ServeCollector(server))
    told = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for collector in collectors
        for family in collector.collect()
    }
    assert set(re.findall(r"`(dhmd_\w+)`", (DOCS / "mqtt.md").read_text())) == told


@pytest.mark.parametrize("command", [("run", "--source", CLIP), ("serve", "--broker", "mqtt://127.0.0.1:1")])
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--metrics-port", "{taken}"), "--metrics-port {taken}: Address already in use; name another"),
        (("--metrics-port", "70000"), "--metrics-port: expected 0 to 65535, found 70000"),
        (("--metrics-port", "0", "--metrics-host", "192.0.2.1"), "--metrics-host 192.0.2.1 --metrics-port 0: Cannot"),
        (("--metrics-host", "0.0.0.0"), "--metrics-host: goes with a port; add --metrics-port"),
    ],
    ids=["taken", "none", "elsewhere", "alone"],
)
def test_what_cannot_be_is_one_line_at_once(
    refuse: Callable[..., str], command: tuple[object, ...], flags: tuple[str, ...], complaint: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert complaint.format(taken=port) in refuse(2, *command, *(flag.format(taken=port) for flag in flags))


def test_without_a_port_its_library_is_not_loaded() -> None:
    script = """
import sys
from rich.console import Console
from realtime import cli
from realtime.programs import run
from realtime.metrics.prometheus import exposed
from realtime.programs import edge, serve
from realtime.programs import visitors as host
with exposed(None, None, Console()) as registry:
    print(registry, [name for name in sys.modules if "prometheus_client" in name])
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "None []\n"
