"""Edges and servers at a real Mosquitto: the same estimates as a run, servers that die, messages that are lost."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from dhmd.checkpoint import Checkpoint
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from realtime.bench.simulated_edges import RecordedSteps, SimulatedEdge, simulate
from realtime.messages.estimate import Estimate
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.discovery import announced_at
from realtime.programs import asyncapi
from realtime.scale.edge_link import EdgeLink, linked
from realtime.scale.served import Estimator
from realtime.scale.server import Server
from tests.realtime.metrics.test_prometheus import Samples, address_of, free_address, port_of, scrape, value
from tests.realtime.waiting import until

StartLive = Callable[..., Any]
Subscribe = Callable[..., Any]
WAIT_S = 120.0


class Running:
    """A server on an event loop of its own."""

    def __init__(self, url: str, estimator: Estimator, checkpoint: Checkpoint) -> None:
        self._ready = threading.Event()
        self._arguments = (BrokerAddress.parse(url), "dhmd-serve", estimator)
        self._features = checkpoint.features
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.server = Server(*self._arguments, self._features, lambda _: None)
        running = asyncio.create_task(self.server.run())
        await self.server.joined.wait()
        self._ready.set()
        await running

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self.server.stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def start_server(estimator: Estimator, checkpoint: Checkpoint) -> Iterator[Callable[[str], Running]]:
    """start_server(url): in this process."""
    started: list[Running] = []

    def start(url: str) -> Running:
        started.append(Running(url, estimator, checkpoint))
        return started[-1]

    yield start
    for running in started:
        running.stop()


def estimates_of(path: Path) -> dict[float, dict[str, Any]]:
    return {one["t"]: one for one in map(json.loads, path.read_text().splitlines())}


def test_an_edge_and_a_server_say_what_a_run_says(
    live: Callable[..., Any],
    start_live: StartLive,
    mosquitto: Any,
    subscribe: Subscribe,
    talking_clip: Path,
    tmp_path: Path,
) -> None:
    listener = subscribe(mosquitto.port)
    serving = start_live("serve", "--broker", mosquitto.url, "--metrics-port", "0")
    serving.wait_for(lambda: "serving" in serving.out)
    flags = ["--source", talking_clip, "--pace", "max", "--hop", "0.25", "--stream", "hall"]
    edge = live("edge", *flags, "--broker", mosquitto.url, "--estimates", tmp_path / "edge.jsonl")
    assert edge.code == 0, edge
    assert "17 windows sent, 1 of them full" in edge.out
    assert live("run", *flags, "--broker", "none", "--estimates", tmp_path / "run.jsonl").code == 0
    theirs, ours = estimates_of(tmp_path / "edge.jsonl"), estimates_of(tmp_path / "run.jsonl")
    assert list(theirs) == list(ours)
    assert any(one["modalities"]["text"]["present"] for one in ours.values())
    for t, own in ours.items():
        other = theirs[t]
        Estimate.model_validate(other)
        for name in ("window", "faces", "transcript", "model"):
            assert other[name] == own[name]
        for m in Modality:
            assert other["modalities"][m]["age_s"] == own["modalities"][m]["age_s"]
            assert other["modalities"][m]["present"] == own["modalities"][m]["present"]
        if own["emotions"] is not None:
            assert other["sentiment"]["value"] == pytest.approx(own["sentiment"]["value"], abs=1e-3)
            for emotion in EMOTIONS:
                assert other["emotions"][emotion] == pytest.approx(own["emotions"][emotion], abs=1e-3)
    listener.wait_for(lambda: listener.statuses("hall")[-1:] == ["stopped"])
    assert listener.statuses("hall") == ["online", "stopped"]
    assert len(listener.estimates("hall")) == len(ours)
    addresses = {name: channel["address"] for name, channel in asyncapi.document()["channels"].items()}
    patterns = {name: re.compile(re.sub(r"{\w+}", "[^/]+", address)) for name, address in addresses.items()}
    used = {
        topic: {name for name, pattern in patterns.items() if pattern.fullmatch(topic)} for topic in listener.topics
    }
    assert all(used.values()), used
    assert {"window", "window_directed", "presence", "emotion"} <= set().union(*used.values())
    served = scrape(address_of(serving))
    assert value(served, "dhmd_serve_estimates_total") == value(served, "dhmd_serve_windows_total") == 17
    assert value(served, "dhmd_serve_batch_windows_sum") == 17
    assert value(served, "dhmd_serve_batch_windows_count") == value(served, "dhmd_serve_batch_windows_bucket", le="1.0")
    assert value(served, "dhmd_serve_streams") == value(served, "dhmd_broker_connected") == 1
    assert 0 < value(served, "dhmd_serve_held_seconds", quantile="0.5") < WAIT_S
    assert value(served, "dhmd_serve_busy_seconds_total") > 0
    for nothing in ("overtaken_windows", "gaps", "refused_windows", "malformed_messages"):
        assert value(served, f"dhmd_serve_{nothing}_total") == 0
    serving.interrupt()
    assert serving.wait() == 0
    assert "17 estimates in" in serving.out


READ = ("hall/claim", "hall/set/pause", "hall/set/mark", "hall/window", "hall/window/resync", "hall/window/refused")


def poison(port: int) -> None:
    """Leave 10 MB of nothing, retained, on what edges and servers read."""
    for topic in (*READ, "serve/nobody"):
        command = ["mosquitto_pub", "-p", str(port), "-t", f"dhmd/{topic}", "-r", "-q", "1", "-s"]
        subprocess.run(command, input=b"\xff{" * 5_000_000, check=True, timeout=WAIT_S)


def test_a_live_edge_keeps_its_statuses_and_knows_its_latency(
    live: Callable[..., Any], start_server: Any, mosquitto: Any, subscribe: Subscribe, talking_clip: Path
) -> None:
    """Whatever somebody has left on the topics that are read."""
    poison(mosquitto.port)
    listener = subscribe(mosquitto.port)
    announced = subscribe(mosquitto.port, topic="homeassistant/#")
    start_server(mosquitto.url)
    flags = ["--source", talking_clip, "--broker", mosquitto.url, "--stream", "hall", "--hop", "0.5", "--discovery"]
    with last_read(free_address()) as (address, read):
        edge = live("edge", *flags, "--metrics-port", port_of(address))
    assert edge.code == 0, edge
    sent, answered = (value(read[-1], f"dhmd_windows_{what}_total", stream="hall") for what in ("sent", "answered"))
    assert sent >= answered == value(read[-1], "dhmd_estimates_total", stream="hall") > 0
    assert value(read[-1], "dhmd_windows_sent_bytes_total", stream="hall") > 1000 * sent
    for name in ("window_round_trip", "capture_to_estimate"):
        assert 0 < value(read[-1], f"dhmd_{name}_seconds", stream="hall", quantile="0.5") < WAIT_S
    estimates = listener.estimates("hall")
    assert estimates
    told = [one for one in estimates if one["top"] is not None]
    assert told
    assert all(one["latency_ms"]["capture_to_estimate"] > 0 for one in told)
    several = [one for one in told if sum(part["present"] for part in one["modalities"].values()) > 1]
    assert any(part["influence"] is not None for one in several for part in one["modalities"].values())
    assert len(listener.payloads("dhmd/hall/emotion/compact")) > 0
    assert any(json.loads(payload)["final"] for payload in listener.payloads("dhmd/hall/transcript"))
    assert {payload.decode() for payload in listener.payloads("dhmd/hall/state/emotion")} & set(EMOTIONS)
    assert [topic for topic, _, _ in announced.received] == [announced_at("hall")]
    states = [json.loads(payload)["state"] for payload in listener.payloads("dhmd/hall/status/face")]
    assert "running" in states
    assert states[-1] == "ended"


@contextmanager
def last_read(address: str) -> Iterator[tuple[str, list[Samples]]]:
    """Reads as often as it can: in the end, what was read last."""
    read: list[Samples] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            with suppress(OSError):
                read[:] = [scrape(address)]

    reading = threading.Thread(target=go_on)
    reading.start()
    try:
        yield address, read
    finally:
        over.set()
        reading.join()


STREAMS = 50


def test_two_servers_share_the_streams_and_one_that_is_killed_leaves_them_to_the_other(
    start_live: StartLive, mosquitto: Any, recording: RecordedSteps
) -> None:
    servers = [start_live("serve", "--broker", mosquitto.url) for _ in range(2)]
    for server in servers:
        server.wait_for(lambda server=server: "serving" in server.out)
    names = [server.out.split(", as ")[1].split()[0] for server in servers]
    came: defaultdict[str, list[int]] = defaultdict(list)
    # Slow enough for a busy machine: it is the sharing that is tested.
    hop_s = 4.0

    async def run() -> Counter[str | None]:
        edges = [SimulatedEdge(f"edge{n}", recording, n) for n in range(STREAMS)]
        stop = asyncio.Event()
        playing = asyncio.create_task(
            simulate(
                BrokerAddress.parse(mosquitto.url),
                edges,
                hop_s,
                stop,
                lambda name, payload: came[name].append(json.loads(payload)["seq"]),
            )
        )

        await until(
            lambda: all(edge.stream.server for edge in edges) and all(len(came[e.stream.stream]) > 1 for e in edges)
        )
        shares = Counter(edge.stream.server for edge in edges)
        servers[0].kill()
        servers[0].wait()
        before = {edge.stream.stream: len(came[edge.stream.stream]) for edge in edges}
        await until(lambda: all(len(came[name]) >= count + 2 for name, count in before.items()))
        assert {edge.stream.server for edge in edges} == {names[1]}
        stop.set()
        await playing
        return shares

    shares = asyncio.run(run())
    assert set(shares) == set(names)
    assert min(shares.values()) >= STREAMS // 4
    assert len(came) == STREAMS
    for numbers in came.values():
        assert numbers == sorted(set(numbers)), "each window once, in order"
    servers[1].interrupt()
    assert servers[1].wait() == 0
    assert "malformed 0" in servers[1].out


@contextmanager
def publishing_raw(port: int) -> Iterator[mqtt.Client]:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


async def hops(url: str, edges: list[SimulatedEdge], steps: Callable[[EdgeLink], Any]) -> None:
    link = EdgeLink(BrokerAddress.parse(url), [edge.stream for edge in edges], lambda *_: None)
    async with asyncio.timeout(WAIT_S), linked(link):
        await link.ready.wait()
        await steps(link)


def test_a_lost_message_is_made_good(start_server: Any, mosquitto: Any, recording: RecordedSteps) -> None:
    running = start_server(mosquitto.url)
    edge = SimulatedEdge("hall", recording)
    answered: list[bool] = []

    async def steps(link: EdgeLink) -> None:
        for number in range(6):
            if number == 2:
                assert edge.stream.window(edge.hop(), asyncio.get_running_loop().time()) is not None  # goes nowhere
                continue
            link.offer("hall", edge.hop())
            answered.append(await link.answer(edge.stream, WAIT_S))

    asyncio.run(hops(mosquitto.url, [edge], steps))
    assert answered == [True, True, False, True, True]
    assert running.server.streams.counts["gaps"] == 1
    assert edge.stream.statistics.full == 2


def test_other_features_are_refused_in_one_clear_line(
    start_server: Any, mosquitto: Any, recording: RecordedSteps, caplog: pytest.LogCaptureFixture
) -> None:
    start_server(mosquitto.url)
    edge = SimulatedEdge("hall", recording)
    specs = recording.session.features
    edge.stream.log.specs = {**specs, Modality.VISION: replace(specs[Modality.VISION], version="9")}

    def told() -> list[str]:
        """By the edge; the server in this process says it, too."""
        return [record.getMessage() for record in caplog.records if record.name == "realtime.scale.edge_stream"]

    async def steps(link: EdgeLink) -> None:
        for _ in range(3):
            link.offer("hall", edge.hop())
            await until(told)

    with caplog.at_level(logging.WARNING, "realtime.scale.edge_stream"):
        asyncio.run(hops(mosquitto.url, [edge], steps))
    lines = told()
    assert len(lines) == 1
    assert (
        "refuses this stream: vision: the checkpoint was trained on other features (version: checkpoint '2'" in lines[0]
    )
    assert edge.stream.statistics.answered == 0


def test_malformed_messages_are_counted_and_the_others_served(
    start_server: Any, mosquitto: Any, recording: RecordedSteps
) -> None:
    running = start_server(mosquitto.url)
    edge = SimulatedEdge("hall", recording)

    async def steps(link: EdgeLink) -> None:
        with publishing_raw(mosquitto.port) as client:
            for payload in (b"", b"junk", b"\x00" * 600_000, b"\x08\xff" * 1000):
                client.publish("dhmd/noise/window", payload, qos=1).wait_for_publish(WAIT_S)
            client.publish(f"dhmd/noise/window/{running.server.name}", b"junk", qos=1).wait_for_publish(WAIT_S)
            client.publish("dhmd/hall/window/resync", b"[" * 5000, qos=1).wait_for_publish(WAIT_S)
        for _ in range(2):
            link.offer("hall", edge.hop())
            assert await link.answer(edge.stream, WAIT_S)

    asyncio.run(hops(mosquitto.url, [edge], steps))
    # The broker keeps back what is larger than we said we take.
    assert running.server.streams.counts["malformed"] == 4
    assert running.server.statistics.estimates == 2


def test_the_broker_comes_back_and_the_stream_goes_on(
    start_server: Any, mosquitto: Any, recording: RecordedSteps
) -> None:
    running = start_server(mosquitto.url)
    edge = SimulatedEdge("hall", recording)

    async def steps(link: EdgeLink) -> None:
        for _ in range(2):
            link.offer("hall", edge.hop())
            assert await link.answer(edge.stream, WAIT_S)
        await asyncio.to_thread(mosquitto.stop)
        await until(lambda: not link.ready.is_set() and not running.server.joined.is_set())
        link.offer("hall", edge.hop())
        assert link.missed == 1
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: link.ready.is_set() and running.server.joined.is_set())
        for _ in range(3):
            link.offer("hall", edge.hop())
            await link.answer(edge.stream, WAIT_S)
        assert edge.stream.server == running.server.name
        assert edge.stream.answered_seq == edge.stream.last_seq

    asyncio.run(hops(mosquitto.url, [edge], steps))


@pytest.mark.parametrize("broker", ["embedded", "none"])
def test_an_edge_needs_a_broker_that_servers_share(refuse: Callable[..., str], broker: str) -> None:
    assert "edge and servers meet at one" in refuse(2, "edge", "--source", "none.mp4", "--broker", broker)


@pytest.mark.parametrize("setting", ["allow_control: true", "record: talk.mcap"])
def test_an_edge_refuses_what_is_of_a_run(refuse: Callable[..., str], tmp_path: Path, setting: str) -> None:
    """As flags it does not know them; in a file that runs share with it they would do nothing."""
    (tmp_path / "live.yaml").write_text(setting)
    told = refuse(2, "edge", "--broker", "mqtt://127.0.0.1", "--config", tmp_path / "live.yaml")
    key = setting.partition(":")[0]
    assert told == f"{key}: an edge takes no commands and records nothing; leave it out"


def test_a_group_is_a_level_of_a_topic(refuse: Callable[..., str]) -> None:
    assert refuse(2, "serve", "--broker", "mqtt://127.0.0.1", "--group", "a/b").startswith("--group: expected")


def test_no_stream_is_called_as_servers_are(refuse: Callable[..., str]) -> None:
    for command in ("edge", "run"):
        assert "serve" in refuse(2, command, "--broker", "mqtt://127.0.0.1", "--stream", "serve")
