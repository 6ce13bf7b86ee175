"""An MQTT 5 connection that comes back when the broker does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final

import aiomqtt

from realtime.errors import BrokerTooOld
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.reconnection import LOST, Reconnection
from realtime.scale.window_message import LARGEST

LARGEST_PACKET: Final = LARGEST + 4096
"""The broker is told to send nothing larger."""


def user_properties(message: aiomqtt.Message) -> dict[str, str]:
    return dict(getattr(message.properties, "UserProperty", []))


@contextlib.asynccontextmanager
async def side_by_side(
    stop: asyncio.Event, *work: Coroutine[Any, Any, None]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Do this work for as long as the context lasts.

    Gives what waits until the first of it has ended, or `stop` is set, and raises what that raised.
    """
    tasks: set[asyncio.Task[Any]] = {asyncio.create_task(one) for one in (*work, stop.wait())}

    async def first_ended() -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    try:
        yield first_ended
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def keep_connected(
    broker: BrokerAddress,
    use: Callable[[aiomqtt.Client], Awaitable[None]],
    stop: asyncio.Event,
    will: aiomqtt.Will | None = None,
) -> None:
    """Connect and `use`, again whenever the broker comes back, until `use` returns or `stop` is set.

    Raises BrokerRefused, BrokerTooOld.
    """
    again = Reconnection(broker, will, largest=LARGEST_PACKET, stop=stop)
    while not stop.is_set():
        try:
            async with again.connected() as client:
                if not client.mqtt5:
                    raise BrokerTooOld(f"{broker} speaks no MQTT 5, which edges and servers need; Mosquitto 2 does")
                await use(client)
                return
        except LOST as error:
            await again.after(error)
