"""Publishing over MQTT: a live stream that outlives the broker's absence, and statuses that are right at every moment.

Topics: `dhmd/STREAM/emotion` (QoS 0), `dhmd/STREAM/status` (online, stopped; offline by last will) and
`dhmd/STREAM/status/WORKER` (JSON), the statuses retained at QoS 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiomqtt

from realtime.broker import BrokerAddress
from realtime.clock import SessionClock
from realtime.errors import BrokerRefused, SettingsInvalid
from realtime.pipeline import Emission, Statistics
from realtime.workers import WorkerStatus

logger = logging.getLogger(__name__)

KEEPALIVE_S = 10
CONNECT_TIMEOUT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0
OUTBOX = 32
REFUSALS = {134: "bad user name or password", 135: "not authorised"}
"""CONNACK reasons that trying again does not mend. paho gives those of MQTT 3.1.1 by their numbers of 5; its 4 and 5
are codes of its own for a lost connection."""


def check_stream_name(stream: str) -> str:
    """A stream's name is one level of a topic. Raises SettingsInvalid."""
    if not stream or len(stream.encode()) > 64 or not stream.isprintable() or set(stream) & set("/+#$ "):
        raise SettingsInvalid(f"--stream: expected 1 to 64 bytes without spaces and / + # $, found {stream!r}")
    return stream


def connect(broker: BrokerAddress, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
    """A client of this broker, to be entered."""
    return aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password,
        will=will,
        tls_context=ssl.create_default_context() if broker.tls else None,
        keepalive=KEEPALIVE_S,
        timeout=CONNECT_TIMEOUT_S,
        logger=logging.getLogger("realtime.mqtt.client"),
    )


def refusal(error: Exception) -> str | None:
    """Why the broker rejects the credentials; None when the error is another."""
    reason = getattr(error, "rc", None)
    return REFUSALS.get(getattr(reason, "value", -1))


FAREWELL_S = 0.6
"""How long the last words to the broker may take."""


@contextlib.asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[None]:
    """Keep a publisher connected for as long as the context lasts. Raises BrokerRefused, in a group."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run(), name="publisher")
        try:
            yield
        finally:
            publisher.close()
            await asyncio.wait({task}, timeout=FAREWELL_S)
            task.cancel()


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    on_published: Callable[[], None] | None = None


class Publisher:
    """Holds the connection of one stream. Estimates are handed over without waiting, and dropped when nobody is there.

    Recognition never waits for the broker: while it is away, estimates are counted in `undelivered` and forgotten (a
    live stream is not delivered late), statuses are kept and sent on return.
    """

    def __init__(self, broker: BrokerAddress, stream: str, on_connection: Callable[[str], None]) -> None:
        self.broker = broker
        self.base = f"dhmd/{stream}"
        self.undelivered = 0
        self.connected = False
        self._will = aiomqtt.Will(f"{self.base}/status", b"offline", qos=1, retain=True)
        self._on_connection = on_connection
        self._outbox: deque[Message] = deque()
        self._statuses: dict[str, bytes] = {}
        self._unsent: set[str] = set()
        self.tried = asyncio.Event()
        """Set once the first connection has been made, or has failed."""
        self._wake, self._settled = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._told_away = False

    def publish_estimate(self, payload: bytes, on_published: Callable[[], None] | None = None) -> None:
        """Hand over one estimate; `on_published` is called once it is on the wire."""
        if not self.connected:
            self.undelivered += 1
            return
        if len(self._outbox) >= OUTBOX:
            self._outbox.popleft()
            self.undelivered += 1
        self._outbox.append(Message(f"{self.base}/emotion", payload, on_published))
        self._wake.set()

    def publish_worker(self, status: WorkerStatus) -> None:
        """Set the retained status of one worker."""
        payload = {"state": status.state, "reason": status.reason, "restarts": status.restarts}
        self._set_status(f"{self.base}/status/{status.worker}", json.dumps(payload).encode())

    async def settled(self) -> None:
        """Return once everything handed over is on the wire, or the broker is away."""
        if self.connected and (self._outbox or self._unsent):
            self._settled.clear()
            self._wake.set()
            await self._settled.wait()

    async def run(self) -> None:
        """Keep connected until `close`. Raises BrokerRefused when the broker rejects the credentials."""
        failures = 0
        while not self._closing:
            try:
                await self._reach()
                async with connect(self.broker, self._will) as client:
                    failures = 0
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError, TimeoutError) as error:
                self._lost(error)
                failures += 1
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 8)) * random.uniform(0.5, 1.0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closed(), wait_s)

    def close(self) -> None:
        """Say `stopped` and leave; `run` then returns."""
        self._closing = True
        self._set_status(f"{self.base}/status", b"stopped")

    async def _closed(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._wake.wait()

    async def _reach(self) -> None:
        # paho connects in a thread that cannot be cancelled: knock first in a way that can.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(self.broker.host, self.broker.port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _serve(self, client: aiomqtt.Client) -> None:
        self._statuses[f"{self.base}/status"] = b"stopped" if self._closing else b"online"
        self._unsent = set(self._statuses)
        self.connected, self._told_away = True, False
        self.tried.set()
        self._on_connection("connected")
        logger.info("publishing to %s on %s", self.broker, f"{self.base}/emotion")
        while True:
            while self._outbox or self._unsent:
                await self._send_next(client)
            self._settled.set()
            if self._closing:
                self.connected = False
                return
            self._wake.clear()
            await self._wake.wait()

    async def _send_next(self, client: aiomqtt.Client) -> None:
        if self._outbox:
            message = self._outbox.popleft()
            await client.publish(message.topic, message.payload, qos=0)
            if message.on_published:
                message.on_published()
            return
        # All at once: on a far broker the last words would else take a round trip each.
        unsent, self._unsent = self._unsent, set()
        sending = [client.publish(topic, self._statuses[topic], qos=1, retain=True) for topic in sorted(unsent)]
        for failure in await asyncio.gather(*sending, return_exceptions=True):
            if failure is not None:
                raise failure

    def _set_status(self, topic: str, payload: bytes) -> None:
        self._statuses[topic] = payload
        self._unsent.add(topic)
        self._wake.set()

    def _lost(self, error: Exception) -> None:
        if reason := refusal(error):
            raise BrokerRefused(
                f"{self.broker} refuses us: {reason}; give --broker mqtt://user:password@host:port"
            ) from error
        if not self._told_away:
            reason = str(error) or type(error).__name__
            logger.warning("broker %s is away (%s); recognition goes on, trying again", self.broker, reason)
            self._on_connection("away")
        self._told_away = True
        self.tried.set()
        self.connected = False
        self.undelivered += len(self._outbox)
        self._outbox.clear()
        self._settled.set()


class PublisherSink:
    """Hands each estimate to the publisher, and measures when it is on the wire."""

    def __init__(self, publisher: Publisher, clock: SessionClock, statistics: Statistics) -> None:
        self._publisher = publisher
        self._clock = clock
        self._statistics = statistics

    def put(self, emission: Emission) -> None:
        newest_s = emission.newest_s

        def published() -> None:
            if newest_s is not None:
                self._statistics.capture_to_published_ms.append((self._clock.now() - newest_s) * 1000)

        self._publisher.publish_estimate(emission.payload, published if emission.timed else None)
