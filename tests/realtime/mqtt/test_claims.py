"""A stream has one run: who comes second leaves or takes over, and the statuses are those of the run that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime.errors import StreamHeld, StreamTaken
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import connect
from realtime.mqtt.publisher import Publisher, publishing
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.mqtt.canned import Stream, numbers, retained
from tests.realtime.waiting import PATIENCE_S, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("level", ["status", "status/face"])
async def test_a_status_that_somebody_else_sets_is_set_right(mosquitto: Any, level: str) -> None:
    address, name = BrokerAddress("127.0.0.1", mosquitto.port), f"dhmd/test/{level}"
    async with Stream(address).open() as stream:
        stream.publisher.publish_worker(WorkerStatus("face", WorkerState.RUNNING))
        await until(lambda: stream.state == "connected" and not stream.publisher._acknowledged)
        right = await retained(address, name)
        async with connect(address) as other:
            await other.publish(name, b"offline", 1, retain=True)
        assert await retained(address, name) == b"offline"
        async with asyncio.timeout(PATIENCE_S):
            while await retained(address, name) != right:
                pass


@pytest.mark.parametrize("protocol", [5, 3])
async def test_of_two_runs_of_a_stream_the_second_leaves_it_to_the_first(
    mosquitto: Any, subscribe: Callable[..., Any], protocol: int
) -> None:
    address = BrokerAddress("127.0.0.1", mosquitto.port, only_311=protocol == 3)
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    first, second, third = (Publisher(address, "test", lambda _: None, claim) for claim in ("ask", "ask", "take"))
    running = asyncio.create_task(first.run())
    await until(lambda: first.connected)
    with pytest.raises(StreamHeld, match="another run publishes the stream test"):
        await second.run()
    assert listener.statuses("test") == ["online"]
    async with publishing(third):
        with pytest.raises(StreamTaken):
            await running
        await until(lambda: third.connected)
        assert await retained(address, "dhmd/test/status") == b"online"
    assert "offline" not in listener.statuses("test")


async def test_of_runs_that_begin_at_once_one_stays(mosquitto: Any, subscribe: Callable[..., Any]) -> None:
    """As after a power cut, when all wait for the same broker."""
    address = BrokerAddress("127.0.0.1", mosquitto.port)
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    publishers = [Publisher(address, "test", lambda _: None, "ask") for _ in range(4)]
    running = [asyncio.create_task(publisher.run()) for publisher in publishers]
    await until(lambda: sum(task.done() for task in running) == 3)
    assert {type(task.exception()) for task in running if task.done()} == {StreamHeld}
    (stayed,) = (publisher for publisher, task in zip(publishers, running, strict=True) if not task.done())
    await until(lambda: stayed.connected and listener.statuses("test"))
    stayed.close()
    await asyncio.gather(*running, return_exceptions=True)
    # One that is told so late may have said `online`, too, which is true.
    await until(lambda: "stopped" in listener.statuses("test"))
    *before, last = listener.statuses("test")
    assert (set(before), last) == ({"online"}, "stopped")


async def test_a_run_that_died_does_not_hold_its_stream(mosquitto: Any) -> None:
    """Its `online` is still there: the broker has not noticed yet."""
    address = BrokerAddress("127.0.0.1", mosquitto.port)
    async with connect(address) as other:
        await other.publish("dhmd/test/status", b"online", 1, retain=True)
    async with Stream(address, "ask").open() as stream:
        await until(lambda: stream.state == "connected")


async def test_a_flood_of_claims_costs_no_estimate_and_has_few_answers(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    """Whoever may write there may end the run with one `take`; with all else, garbage included, nobody can."""
    listener = await asyncio.to_thread(subscribe, mosquitto.port)
    name, ask = "dhmd/test/claim", b'{"run": "x", "says": "ask"}'
    kinds = (ask, ask, b'{"run": "x", "says": "held"}', b"", b"\xff\xfe", b"[" * 10_000, b"9" * 5000, b'{"run": 1e999}')
    async with Stream(BrokerAddress("127.0.0.1", mosquitto.port), "ask").open() as stream:
        await until(lambda: numbers(listener))
        async with connect(BrokerAddress("127.0.0.1", mosquitto.port)) as other:
            for payload in (kinds * 250)[:2000]:
                await other.publish(name, payload)
        last = stream.seq + 3
        await until(lambda: numbers(listener)[-1] >= last)
        assert numbers(listener) == list(range(numbers(listener)[0], numbers(listener)[-1] + 1))
        assert stream.state == "connected"
        held = [one for one in listener.payloads(name) if stream.publisher._run.encode() in one and b"held" in one]
        assert 1 <= len(held) < 100
