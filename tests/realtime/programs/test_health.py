"""`dhmd-live health` of a stream at a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from realtime.errors import StreamAils
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.publisher import Publisher, publishing
from realtime.programs.health import health
from realtime.workers import WorkerState, WorkerStatus


@pytest.mark.anyio
async def test_a_stream_is_well_while_it_is_online_and_its_workers_work(mosquitto: Any) -> None:
    broker = BrokerAddress.parse(mosquitto.url)

    async def told() -> str:
        return await asyncio.to_thread(health, broker, "hall")

    with pytest.raises(StreamAils, match=r"hall is unknown at .*; start it"):
        await told()
    publisher = Publisher(broker, "hall", lambda _: None)
    async with publishing(publisher):
        await publisher.tried.wait()
        publisher.publish_worker(WorkerStatus("video", WorkerState.RUNNING))
        await publisher.settled()
        assert await told() == "hall is online: video running"
        publisher.publish_worker(WorkerStatus("video", WorkerState.RESTARTING, "no such camera"))
        await publisher.settled()
        with pytest.raises(StreamAils, match=r"^video restarting: no such camera$"):
            await told()
    with pytest.raises(StreamAils, match="hall is stopped"):
        await told()


def test_without_a_broker_there_is_nothing_to_ask(mosquitto: Any, refuse: Callable[..., str]) -> None:
    assert "give --broker mqtt://" in refuse(2, "health")
    mosquitto.stop()
    assert "is away" in refuse(1, "health", "--broker", mosquitto.url)
