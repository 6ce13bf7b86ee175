"""What brokers and networks do to a stream: soon after it is whole again, and its statuses are always right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from realtime.broker import BrokerAddress
from realtime.mqtt import Publisher, publishing
from realtime.mqtt.publisher import OUTBOX
from realtime.mqtt.topics import EMOTION, EVENT
from realtime.workers import WorkerState, WorkerStatus

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0
HOP_S = 0.1
NOTICED_S = 15.0
WHOLE_S = 3.0


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 - what happens, happens in another thread or another program
            await asyncio.sleep(0.02)


class Stream:
    """Canned estimates, ten a second, and when the connection came and went."""

    def __init__(self, address: BrokerAddress) -> None:
        self.seq = 0
        self.states: list[tuple[float, str]] = []
        self.late_s = 0.0
        """By how much handing over an estimate was late, at most."""
        self.publisher = Publisher(address, "test", lambda state: self.states.append((time.monotonic(), state)))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        async with publishing(self.publisher):
            feeding = asyncio.create_task(self._feed())
            try:
                yield self
            finally:
                feeding.cancel()

    async def _feed(self) -> None:
        due_s = time.monotonic()
        while True:
            self.publisher.publish(EMOTION, json.dumps({"seq": self.seq, "pad": "x" * 1000}).encode())
            self.seq += 1
            due_s += HOP_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self.late_s = max(self.late_s, time.monotonic() - due_s)

    @property
    def state(self) -> str:
        return self.states[-1][1] if self.states else ""


class Relay:
    """TCP between a client and a broker. `cut`: it reads and forwards nothing more and closes nothing, as a network
    that is gone."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.cut = False
        self._to = port
        self._held: list[asyncio.StreamWriter] = []

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        writer.close()


def numbers(listener: Any) -> list[int]:
    return [estimate["seq"] for estimate in listener.estimates("test")]


async def whole_again(listener: Any, stream: Stream) -> None:
    """From WHOLE_S after now on, no estimate is missing."""
    from_seq = stream.seq + round(WHOLE_S / HOP_S)
    await until(lambda: stream.seq >= from_seq + 3 and numbers(listener)[-1:] >= [from_seq + 2])
    assert [seq for seq in numbers(listener) if from_seq <= seq <= from_seq + 2] == [
        from_seq,
        from_seq + 1,
        from_seq + 2,
    ]


async def test_a_broker_killed_twenty_times_costs_what_it_was_away_and_nothing_else(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    async with Stream(BrokerAddress("127.0.0.1", mosquitto.port)).open() as stream:
        await until(lambda: stream.state == "connected")
        held = 0
        for kill in range(20):
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
            if kill in {4, 19}:
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
    assert [state for _, state in stream.states] == ["connected", *["away", "connected"] * 20]


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
