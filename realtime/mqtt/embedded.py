"""The broker of a run: the one that is named, or a small one of our own on loopback."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from realtime.errors import SettingsInvalid
from realtime.mqtt.broker import DEFAULT_PORT, BrokerAccess, BrokerAddress, named_broker

UNREAD_S: Final = 10.0
"""Time for which a client of the embedded broker may leave unread what it subscribed to."""
MOST_CLIENTS: Final = 64


@asynccontextmanager
async def embedded_broker(port: int = DEFAULT_PORT) -> AsyncIterator[BrokerAddress]:
    """Run an MQTT 3.1.1 broker on loopback for as long as the context lasts, on a free port when `port` is in use."""
    from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
    from amqtt.broker import Broker

    class Impatient(StreamWriterAdapter):  # type: ignore[misc]
        """Hangs up on who does not read: what waits for them would fill the memory."""

        async def drain(self) -> None:
            try:
                async with asyncio.timeout(UNREAD_S):
                    await super().drain()
            except TimeoutError:
                self._writer.transport.abort()
                raise ConnectionResetError from None

    class Bounded(Broker):  # type: ignore[misc]
        async def stream_connected(self, reader: Any, writer: Any, listener_name: str) -> None:
            await self.external_connected(StreamReaderAdapter(reader), Impatient(writer), listener_name)

    # Its sessions end by cancellation and broken pipes as a matter of course; none of that is news to a user.
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    address = BrokerAddress("127.0.0.1", _free_port(port), only_311=True)
    bind = f"{address.host}:{address.port}"
    broker = Bounded(
        {
            "listeners": {"default": {"type": "tcp", "bind": bind, "max_connections": MOST_CLIENTS}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    try:
        yield address
    finally:
        await broker.shutdown()


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe:
            if sys.platform != "win32":  # where this lets two programs have the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            bound: int = probe.getsockname()[1]
            return bound
    raise SettingsInvalid("--broker embedded: no free port on loopback; name a broker, or use --broker none")


async def opened_broker(broker: str, stack: AsyncExitStack, access: BrokerAccess) -> BrokerAddress | None:
    """Returns the broker asked for: one at an address, an embedded one that lasts as long as the stack, or none."""
    if broker == "none":
        return None
    if broker == "embedded":
        return await stack.enter_async_context(embedded_broker())
    return named_broker(broker, access)
