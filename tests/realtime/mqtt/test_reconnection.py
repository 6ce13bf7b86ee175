"""Coming back to a broker: told once, waited for longer each time, and given up where trying again would not help."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from realtime.errors import BrokerRefused
from realtime.mqtt import reconnection
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.reasons import Untrusted
from realtime.mqtt.reconnection import BACKOFF, LOST, Reconnection

pytestmark = pytest.mark.anyio
AWAY = ConnectionRefusedError(111, "Connection refused")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After how many failures each wait was asked for; none of them is sat out."""
    asked: list[int] = []

    class Quick:
        def wait_s(self, failures: int) -> float:
            asked.append(failures)
            return 0.0

    monkeypatch.setattr(reconnection, "BACKOFF", Quick())
    return asked


async def test_a_broker_that_stays_away_is_told_once_and_waited_for_ever_longer(
    waits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    again, away = Reconnection(BrokerAddress("there", 1883), meanwhile="the show goes on"), []
    for _ in range(3):
        await again.after(AWAY, lambda: away.append(True))
    assert waits == [1, 2, 3]
    assert len(away) == 3
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["broker mqtt://there:1883 is away (Connection refused); the show goes on"]
    assert 1.0 <= BACKOFF.wait_s(20) <= 2.0


@pytest.mark.parametrize(("stable_s", "expected", "told"), [(-1.0, [1, 1], 2), (3600.0, [1, 2], 1)])
async def test_only_a_connection_that_lasted_makes_its_loss_news(
    mosquitto: Any,
    waits: list[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    stable_s: float,
    expected: list[int],
    told: int,
) -> None:
    monkeypatch.setattr(reconnection, "STABLE_S", stable_s)
    again = Reconnection(BrokerAddress.parse(mosquitto.url))
    for _ in range(2):
        try:
            async with again.connected():
                raise aiomqtt.MqttError("gone")
        except LOST as error:
            await again.after(error)
    assert waits == expected
    assert caplog.text.count("is away (gone); trying again") == told


async def test_a_wait_ends_when_told_to_stop() -> None:
    stop = asyncio.Event()
    stop.set()
    again = Reconnection(BrokerAddress("there", 1883), stop=stop)
    async with asyncio.timeout(60):
        for _ in range(1000):
            await again.after(AWAY)


async def test_a_refusal_ends_it(waits: list[int]) -> None:
    again = Reconnection(BrokerAddress("there", 1883))
    with pytest.raises(BrokerRefused, match="bad user name or password"):
        await again.after(aiomqtt.MqttCodeError(ReasonCode(PacketTypes.CONNACK, identifier=134)))
    assert waits == []


async def test_a_certificate_ends_it_at_the_start_alone(mosquitto: Any, waits: list[int]) -> None:
    """It may be renewed while we run."""
    untrusted = Untrusted("its certificate is not trusted")
    again = Reconnection(BrokerAddress.parse(mosquitto.url))
    with pytest.raises(BrokerRefused, match="not trusted"):
        await again.after(untrusted)
    async with again.connected():
        pass
    await again.after(untrusted)
    assert waits == [1]
