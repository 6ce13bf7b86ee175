"""What brokers and networks do to a stream: soon after it is whole again, and its statuses are always right."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dhmd.assets.store import cache_folder
from realtime.demo import CLIP
from realtime.messages.topics import EMOTION, EVENT
from realtime.mqtt import connection
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.publisher import OUTBOX, Publisher, publishing
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.mqtt.canned import HOP_S, Stream, numbers, retained
from tests.realtime.waiting import PATIENCE_S, until

pytestmark = pytest.mark.anyio

MINUTES_S = 600.0
NOTICED_S = 15.0
WHOLE_S = 3.0
ADDED_WHILE_LOADING = (
    "LD_LIBRARY_PATH",
    "QT_QPA_FONTDIR",
    "QT_QPA_PLATFORM_PLUGIN_PATH",
    "TOKENIZERS_PARALLELISM",
    "TORCHINDUCTOR_CACHE_DIR",
)
"""To the environment, by libraries. libfaketime reads it in every wait of every thread, which crashes while it grows:
these are there from the start."""


class Relay:
    """TCP between a client and a broker. `cut`: it reads and forwards nothing more and closes nothing, as a network
    that is gone."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.cut = False
        self._to = port
        self._held: list[asyncio.StreamWriter] = []
        self._clients: list[asyncio.StreamWriter] = []
        self._abandoned = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Relay]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._held:
                writer.close()

    def abandon(self) -> None:
        """Close the clients' sides, and leave the broker's open without a word."""
        self._abandoned = True
        for writer in self._clients:
            writer.transport.abort()
        self._clients.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._held += [writer, back]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forward(reader, back))
            group.create_task(self._forward(there, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                await until(lambda: not self.cut)
                data = await reader.read(1024)
                await until(lambda: not self.cut)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        if not self._abandoned:
            writer.close()


class Garbler(Relay):
    """Says what no broker says to its first clients, once each of them has spoken."""

    def __init__(self, port: int, said: list[bytes]) -> None:
        super().__init__(port)
        self.said = said

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (first := await reader.read(1)):
            writer.close()  # it only knocked
        elif self.said:
            writer.write(self.said.pop(0))
            await reader.read(1024)
            writer.close()
        else:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            back.write(first)
            self._held += [writer, back]
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, back))
                group.create_task(self._forward(there, writer))


def packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes((kind, len(body))) + body


def text(words: str) -> bytes:
    return struct.pack(">H", len(words)) + words.encode()


async def subscribed(port: int, topic: str, qos: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client in bytes (MQTT 3.1.1), which is free to misbehave. What it is sent begins with the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("")))
    writer.write(packet(0x82, b"\x00\x01" + text(topic) + bytes((qos,))))
    connack, suback = await reader.readexactly(4), await reader.readexactly(5)
    assert connack == b"\x20\x02\x00\x00"
    assert suback == b"\x90\x03\x00\x01" + bytes((qos,))
    return reader, writer


async def whole_again(listener: Any, stream: Stream) -> None:
    """From WHOLE_S after now on, no estimate is missing."""
    from_seq = stream.seq + round(WHOLE_S / HOP_S)
    await until(lambda: stream.seq >= from_seq + 3 and numbers(listener)[-1:] >= [from_seq + 2])
    assert [seq for seq in numbers(listener) if from_seq <= seq <= from_seq + 2] == [
        from_seq,
        from_seq + 1,
        from_seq + 2,
    ]


async def test_a_broker_killed_ten_times_costs_what_it_was_away_and_nothing_else(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    async with Stream(BrokerAddress("127.0.0.1", mosquitto.port)).open() as stream:
        await until(lambda: stream.state == "connected")
        held = 0
        for kill in range(10):
            stream.publisher.publish_worker(
                WorkerStatus("video", WorkerState.RESTARTING, f"kill {kill}", restarts=kill)
            )
            mosquitto._process.kill()
            await asyncio.to_thread(mosquitto.stop)
            await until(lambda: stream.state == "away")
            assert not stream.publisher.connected
            assert not stream.publisher._outbox
            await asyncio.sleep(0.05 * (kill % 4))
            await asyncio.to_thread(mosquitto.start)
            started_s = time.monotonic()
            await until(lambda: stream.state == "connected")
            # Attempts are at most 2 s apart.
            assert time.monotonic() - started_s < WHOLE_S
            # Mosquitto forgot all: what is retained is told anew.
            listener = await asyncio.to_thread(subscribe, mosquitto.port)
            await until(lambda listener=listener: listener.payloads("dhmd/test/status/video"))
            assert listener.statuses("test") == ["online"]
            assert json.loads(listener.payloads("dhmd/test/status/video")[-1])["restarts"] == kill
            if kill in {4, 9}:
                await whole_again(listener, stream)
                if kill == 4:
                    tracemalloc.start()
                    held = tracemalloc.get_traced_memory()[0]
            await asyncio.to_thread(listener.close)
        grown = tracemalloc.get_traced_memory()[0] - held
        tracemalloc.stop()
        assert grown < 3e6
        assert len(stream.publisher._acknowledged) < 10
        assert stream.late_s < 2.0
    assert [state for _, state in stream.states] == ["connected", *["away", "connected"] * 10]


async def test_a_broker_that_says_what_none_says_is_away_until_it_speaks_again(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    taken = b"\x20\x03\x00\x00\x00"
    noise = random.Random(1).randbytes(200)
    said = [noise, b"\x20" + noise, taken + noise, taken + b"\x30\xff\xff\xff\x7f" + noise, taken + b"\xff" * 200]
    async with (
        Garbler(mosquitto.port, said).open() as garbler,
        Stream(BrokerAddress("127.0.0.1", garbler.port)).open() as stream,
    ):
        await until(lambda: not said and stream.state == "connected" and numbers(listener))
        await whole_again(listener, stream)
        assert stream.late_s < 2.0


async def test_a_broker_that_announces_more_than_is_taken_is_hung_up_on_before_it_sends_it() -> None:
    """Whatever it was told to send at most. A whole packet of 256 MB would cost twice its size."""
    gone = asyncio.Event()

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(b"\x20\x03\x00\x00\x00" + b"\x30\xff\xff\xff\x7f" + b"the beginning of it")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        address = BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1])
        async with connection.connect(address) as client:
            await until(lambda: client.lost is not None)
            assert str(client.lost) == "it announced a packet of 256 MB, and 16 are taken at most"
        await until(gone.is_set)


async def test_a_network_that_is_cut_without_a_word_is_noticed_within_fifteen_seconds(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    async with Relay(mosquitto.port).open() as relay, Stream(BrokerAddress("127.0.0.1", relay.port)).open() as stream:
        await until(lambda: numbers(listener))
        relay.cut = True
        cut_s = time.monotonic()
        # The broker tells the others in our place, and we find out ourselves.
        await until(lambda: stream.state == "away" and listener.statuses("test")[-1] == "offline")
        assert stream.states[-1][0] - cut_s < NOTICED_S
        assert time.monotonic() - cut_s < NOTICED_S
        last = numbers(listener)[-1]
        relay.cut = False
        await until(lambda: stream.state == "connected")
        await whole_again(listener, stream)
        # Nothing that waited at the time of the cut is told later.
        late = [seq for seq in numbers(listener) if last < seq < last + round(5 / HOP_S)]
        assert len(late) <= OUTBOX // 10
        assert listener.statuses("test") == ["online", "offline", "online"]
        assert stream.late_s < 2.0


async def test_a_connection_that_is_lost_on_our_side_alone_leaves_no_offline_behind(
    mosquitto: Any, subscribe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker holds the old one until its keepalive is over, and says `offline` for it after we are back."""
    monkeypatch.setattr(connection, "KEEPALIVE_S", 2)
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    async with Relay(mosquitto.port).open() as relay, Stream(BrokerAddress("127.0.0.1", relay.port)).open() as stream:
        await until(lambda: stream.state == "connected" and listener.statuses("test") == ["online"])
        relay.abandon()
        await until(lambda: [state for _, state in stream.states] == ["connected", "away", "connected"])
        # The will of the old connection comes as it is taken over, before we are online again; and not later.
        await until(lambda: listener.statuses("test")[-2:] == ["offline", "online"])
        await asyncio.sleep(1.5 * connection.KEEPALIVE_S + 1)
        assert listener.statuses("test") == ["online", "offline", "online"]
        assert await retained(BrokerAddress("127.0.0.1", mosquitto.port), "dhmd/test/status") == b"online"


async def test_what_waits_when_nobody_reads_is_bounded(mosquitto: Any) -> None:
    """The broker's side of the connection is full: live messages are dropped, the newest kept."""
    async with Relay(mosquitto.port).open() as relay, Stream(BrokerAddress("127.0.0.1", relay.port)).open() as stream:
        await until(lambda: stream.state == "connected")
        relay.cut = True
        for number in range(2000):
            stream.publisher.publish(EVENT, b"%d" % number)
            stream.publisher.publish(EMOTION, b"x" * 8000)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        assert len(stream.publisher._outbox) <= OUTBOX
        assert len(stream.publisher._acknowledged) <= 192
        assert stream.publisher.undelivered > 0
        relay.cut = False


async def test_the_status_is_right_at_every_moment_of_a_stream_that_ends_while_the_broker_is_away(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    async with Stream(BrokerAddress("127.0.0.1", mosquitto.port)).open() as stream:
        await until(lambda: stream.state == "connected")
        await asyncio.to_thread(mosquitto.stop)
        await until(lambda: stream.state == "away")
    await asyncio.to_thread(mosquitto.start)
    # It ended unseen; a broker without memory knows of nothing, which is true.
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    await asyncio.sleep(0.5)
    assert listener.statuses("test") == []


async def test_a_subscriber_that_does_not_read_costs_nobody_else_anything(
    start_mosquitto: Callable[..., Any], subscribe: Callable[..., Any]
) -> None:
    mosquitto = start_mosquitto(lines=["sys_interval 1", "max_queued_messages 100", "set_tcp_nodelay true"])
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    broker = await asyncio.to_thread(subscribe, mosquitto.port, topic="$SYS/broker/publish/messages/dropped")
    deaf = [await subscribed(mosquitto.port, "dhmd/#", qos) for qos in (0, 1)]
    for _, writer in deaf:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    states: list[str] = []
    publisher = Publisher(BrokerAddress("127.0.0.1", mosquitto.port), "test", states.append)
    pad = "x" * 12_000
    async with publishing(publisher):
        await until(lambda: publisher.connected)
        held = longest = 0
        for seq in range(1980):
            publisher.publish(EMOTION, json.dumps({"seq": seq, "pad": pad}).encode())
            if seq % 3 == 0:
                publisher.publish(EVENT, b"%d" % seq)
            longest = max(longest, len(publisher._outbox))
            # As fast as the one who does read, not as fast as the loop.
            if seq % 45 == 44:
                await until(lambda seq=seq: len(listener.received) >= 60 + (seq == 44))
                assert numbers(listener) == list(range(seq - 44, seq + 1))
                assert listener.payloads("dhmd/test/event") == [b"%d" % seq for seq in range(seq - 44, seq + 1, 3)]
                listener.received.clear()
            if seq == 314:
                tracemalloc.start()
                held = tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[0] - held
        tracemalloc.stop()
        # 24 MB are more than the network holds between the broker and each of the two.
        await until(lambda: broker.received and int(broker.received[-1][1]) > 1000)
        assert publisher.undelivered == 0
        assert longest <= OUTBOX
        await until(lambda: not publisher._acknowledged)
        assert grown < 1e6
        assert states == ["connected"]
    await until(lambda: listener.statuses("test") == ["stopped"])
    for _, writer in deaf:
        writer.transport.abort()


async def test_a_thousand_subscribers_that_come_and_go_are_all_told_the_truth_and_cost_nothing(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    listener = await asyncio.to_thread(subscribe, mosquitto.port)

    async def visit(number: int) -> bytes:
        reader, writer = await subscribed(mosquitto.port, "dhmd/#", number % 2)
        told = b""
        # What is retained comes at once; some stay for more.
        while b"online" not in told or (number % 10 == 0 and b'"seq"' not in told):
            told += (more := await reader.read(256))
            assert more, "the broker hung up"
        if number % 3 == 0:
            writer.write(packet(0xE0, b""))
        elif number % 3 == 1:
            # Reset instead of closed.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return told

    async with Stream(BrokerAddress("127.0.0.1", mosquitto.port)).open() as stream:
        await until(lambda: numbers(listener))
        began = stream.seq
        for batch in range(20):
            async with asyncio.timeout(PATIENCE_S):
                told = await asyncio.gather(*(visit(50 * batch + number) for number in range(50)))
            assert all(b"offline" not in one and b"stopped" not in one for one in told)
        ended = stream.seq
        assert ended >= began + 10
        await until(lambda: numbers(listener)[-1] >= ended)
        received = numbers(listener)
        assert received == list(range(received[0], received[0] + len(received)))
        assert listener.statuses("test") == ["online"]
        assert [state for _, state in stream.states] == ["connected"]
        assert stream.publisher.undelivered <= received[0]
        assert stream.late_s < 2.0


def test_the_wall_clock_may_be_set_under_a_run(
    mosquitto: Any,
    subscribe: Callable[..., Any],
    start_live: Callable[..., Any],
    untrained_checkpoint: Path,
    tmp_path: Path,
) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("needs libfaketime; sudo apt install libfaketime")
    clock, recordings = tmp_path / "clock", tmp_path / "recordings"
    recordings.mkdir()
    shutil.copytree(cache_folder(), tmp_path / "cache", copy_function=os.symlink, ignore=lambda *_: [".lock"])

    def set_clock(hours: int) -> None:
        (tmp_path / "new").write_text(f"{hours * 3600:+d}\n")
        (tmp_path / "new").replace(clock)

    set_clock(24)
    listener = subscribe(mosquitto.port)
    environment = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "TZ": "UTC",
        "DHMD_CACHE": str(tmp_path / "cache"),
        **dict.fromkeys(ADDED_WHILE_LOADING, ""),
    }
    # Weights are looked through once a day; waits for one another, with which libfaketime cannot cope, are over then.
    fetch = (sys.executable, "-m", "realtime", "assets", "fetch")
    subprocess.run(fetch, env=os.environ | environment, check=True, capture_output=True)
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall", "--allow-control",
        "--record-dir", str(recordings), "--checkpoint", str(untrained_checkpoint), environment=environment,
    )  # fmt: skip

    def recorded_hours() -> float:
        """How far ahead the process believes to be, by the name that it gives to a recording."""
        before = set(recordings.iterdir())
        listener.say("dhmd/hall/set/record", b'{"on": true}')
        command.wait_for(lambda: set(recordings.iterdir()) - before)
        (new,) = set(recordings.iterdir()) - before
        listener.say("dhmd/hall/set/record", b'{"on": false}')
        named = dt.datetime.strptime(new.stem, "hall-%Y%m%d-%H%M%S").replace(tzinfo=dt.UTC)
        return (named.timestamp() - time.time()) / 3600

    command.wait_for(lambda: listener.estimates("hall"))
    for hours in (25, 23):
        set_clock(hours)
        seen = len(listener.estimates("hall"))
        command.wait_for(lambda seen=seen: len(listener.estimates("hall")) >= seen + 15)
        assert abs(recorded_hours() - hours) < 0.1
    command.interrupt()
    assert command.wait() == 0
    assert not re.search("broker|next try", command.err), command.err
    listener.wait_for(lambda: listener.statuses("hall")[-1] == "stopped")
    assert listener.statuses("hall") == ["online", "stopped"]
    estimates = listener.estimates("hall")
    first = estimates[0]
    assert abs(first["t"] - time.time() - 24 * 3600) < MINUTES_S
    assert [estimate["seq"] for estimate in estimates] == list(range(first["seq"], first["seq"] + len(estimates)))
    hops = [(later["t"] - earlier["t"]) / HOP_S for earlier, later in itertools.pairwise(estimates)]
    # A busy machine may leave hops out, and ticks move a little towards the pictures; neither sets a clock.
    assert all(round(hop) >= 1 and abs(hop - round(hop)) < 0.02 for hop in hops)
    assert sum(hops) * HOP_S < MINUTES_S
    workers = [json.loads(payload)["state"] for topic, payload, _ in listener.received if "hall/status/" in topic]
    assert not {"paused", "restarting", "failed"} & set(workers)
