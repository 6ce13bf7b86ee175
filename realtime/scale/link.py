"""An MQTT 5 connection that comes back when the broker does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import aiomqtt

from realtime.errors import BrokerTooOld
from realtime.mqtt import connect, in_words, refusal
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import reach
from realtime.mqtt.publisher import FIRST_WAIT_S, LONGEST_WAIT_S
from realtime.scale.window_message import LARGEST

logger = logging.getLogger(__name__)

LARGEST_PACKET: Final = LARGEST + 4096
"""The broker is told to send nothing larger."""


def payload_of(message: aiomqtt.Message) -> bytes:
    return message.payload if isinstance(message.payload, bytes) else str(message.payload or "").encode()


def user_properties(message: aiomqtt.Message) -> dict[str, str]:
    return dict(getattr(message.properties, "UserProperty", []))


async def keep_connected(
    broker: BrokerAddress,
    use: Callable[[aiomqtt.Client], Awaitable[None]],
    stop: asyncio.Event,
    will: aiomqtt.Will | None = None,
) -> None:
    """Connect and `use`, again whenever the broker comes back, until `use` returns or `stop` is set.

    Raises BrokerRefused, BrokerTooOld.
    """
    failures = 0
    told_away = False
    while not stop.is_set():
        try:
            await reach(broker)
            async with connect(broker, will, largest=LARGEST_PACKET) as client:
                if not client.mqtt5:
                    raise BrokerTooOld(f"{broker} speaks no MQTT 5, which edges and servers need; Mosquitto 2 does")
                failures, told_away = 0, False
                await use(client)
                return
        except (aiomqtt.MqttError, OSError, TimeoutError) as error:
            if refused := refusal(broker, error):
                raise refused from error
            if not told_away:
                logger.warning("broker %s is away (%s); trying again", broker, in_words(error))
            told_away = True
            failures += 1
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 8)) * random.uniform(0.5, 1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
