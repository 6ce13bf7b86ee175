"""Where the stream goes: the address of a broker, and a small one on loopback for the demo."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from realtime.errors import SettingsInvalid

DEFAULT_PORT = 1883
DEFAULT_TLS_PORT = 8883


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """An MQTT broker. Its text form never shows the password."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """`mqtt[s]://[user:password@]host[:port]`. Raises SettingsInvalid, never repeating what may be a password."""
        shape = "expected mqtt[s]://[user:password@]host[:port], with / ? # @ in a password as %2F %3F %23 %40"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SettingsInvalid(f"--broker: its port or host cannot be read; {shape}") from None
        if parts.scheme not in {"mqtt", "mqtts"}:
            raise SettingsInvalid(f"--broker: does not begin with mqtt:// or mqtts://; {shape}")
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            missing = "nothing may follow the port" if parts.hostname else "names no host"
            raise SettingsInvalid(f"--broker: {missing}; {shape}")
        tls = parts.scheme == "mqtts"
        return cls(
            host=parts.hostname,
            port=port or (DEFAULT_TLS_PORT if tls else DEFAULT_PORT),
            tls=tls,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{self.host}:{self.port}"


@asynccontextmanager
async def embedded_broker(port: int = DEFAULT_PORT) -> AsyncIterator[BrokerAddress]:
    """An MQTT 3.1.1 broker on loopback for as long as the context lasts; takes a free port when `port` is in use."""
    from amqtt.broker import Broker

    # Its sessions end by cancellation and broken pipes as a matter of course; none of that is news to a user.
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    address = BrokerAddress("127.0.0.1", _free_port(port))
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{address.host}:{address.port}"}},
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
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            bound: int = probe.getsockname()[1]
            return bound
    raise SettingsInvalid("--broker embedded: no free port on loopback; name a broker, or use --broker none")


async def opened_broker(broker: str, stack: AsyncExitStack) -> BrokerAddress | None:
    """The broker that was asked for: the one at an address, an embedded one that lasts as long as the stack, none."""
    if broker == "none":
        return None
    if broker == "embedded":
        return await stack.enter_async_context(embedded_broker())
    return BrokerAddress.parse(broker)
