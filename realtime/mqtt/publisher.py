"""The connection of one stream: holds it, hands over messages without waiting, keeps the retained ones right."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal

import aiomqtt
from paho.mqtt.client import MQTTMessage, topic_matches_sub
from pydantic import ValidationError

from dhmd.untrusted import Untrusted, within
from realtime.errors import StreamHeld, StreamTaken
from realtime.messages.stream import Claim, WorkerReport
from realtime.messages.topics import (
    CLAIM,
    EMOTION,
    NO_VALUE,
    PEOPLE,
    RESPONSE,
    STATE,
    STATUS,
    WORKER,
    Topic,
    base_topic,
)
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import Client
from realtime.mqtt.reconnection import LOST, Reconnection
from realtime.workers import WorkerStatus

logger = logging.getLogger(__name__)

METRICS_EVERY_S: Final = 10.0
OUTBOX: Final = 64
"""Live messages that wait for the network, at most: three seconds of a stream."""
UNACKNOWLEDGED: Final = 128
"""Messages of QoS 1 under way, at most; beyond it live ones are dropped."""
CLAIM_S: Final = 2.0
"""Longest wait for another run of the stream to answer."""
ANSWER_S: Final = 0.05
"""Questions whether the stream is held that come within it are answered together, and a run that asks twice once."""
MOST_OWED: Final = 8
"""Runs that are answered at a time, at most: far fewer than messages may wait for the network."""
SET_RIGHT_S: Final = 0.5
FAREWELL_S: Final = 0.6
"""Time that the last words to the broker may take."""
MOST_RECEIVED: Final = 16 * 1024
"""Bytes of a packet that we take; what is sent to a publisher is small."""


@contextlib.asynccontextmanager
async def publishing(publisher: Publisher, report: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Keep a publisher connected for as long as the context lasts. Raises BrokerRefused, in a group.

    report: publishes metrics, every METRICS_EVERY_S.
    """
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run(), name="publisher")
        reporting = group.create_task(_repeat(report), name="metrics") if report else None
        try:
            yield
        finally:
            if reporting is not None:
                reporting.cancel()
            publisher.close()
            await asyncio.wait({task}, timeout=FAREWELL_S)
            task.cancel()


async def _repeat(report: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(METRICS_EVERY_S)
        report()


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    topic: Topic
    payload: bytes
    on_published: Callable[[], None] | None = None
    correlation: bytes | None = None


class Publisher:
    """Holds the connection of one stream. Live messages are handed over without waiting, dropped when nobody is there.

    Recognition never waits for the broker: while it is away, estimates are counted in `undelivered` and forgotten (a
    live stream is not delivered late); what is retained is kept and sent on return.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        stream: str,
        on_connection: Callable[[str], None],
        claim: Literal["ask", "take"] | None = None,
    ) -> None:
        """Publish on the topics of a stream.

        claim: what to do where another run publishes it: leave it the stream (ask), or end it (take); None: nothing.
        """
        self.broker = broker
        self._stream = stream
        self._claim = claim
        self._run = secrets.token_hex(8)
        self._asked, self._ended = asyncio.Event(), asyncio.Event()
        """Our own question has come back; another run has the stream."""
        self._preceded = False
        """Another run asked before us, and has the stream if all goes well."""
        self._owed: dict[str, None] = {}
        """Runs that asked and are to hear that the stream is held, in their order."""
        self._answering = False
        self._heard: dict[str, bytes] = {}
        """What the broker holds of the stream's statuses, as far as it was told to us."""
        self.base = base_topic(stream)
        self.undelivered = 0
        self.connected = False
        self._will = aiomqtt.Will(f"{self.base}/{STATUS.levels}", b"offline", qos=1, retain=True)
        self._on_connection = on_connection
        self._outbox: deque[Message] = deque()
        self._kept: dict[str, tuple[Topic, bytes]] = {}
        """Retained messages by topic."""
        self._unsent: set[str] = set()
        self._acknowledged: set[asyncio.Task[None]] = set()
        """Messages of QoS 1 that are under way."""
        self._listening: dict[str, Callable[[MQTTMessage], None]] = {}
        """Listeners to what others publish, by pattern."""
        self._failure: BaseException | None = None
        self.tried = asyncio.Event()
        """Set once the first connection has been made, or has failed."""
        self._wake, self._settled = asyncio.Event(), asyncio.Event()
        self._closing = asyncio.Event()
        self._told_large: set[str] = set()
        self._listening |= {
            f"{self.base}/{STATUS.levels}": self._on_status,
            f"{self.base}/{WORKER.levels.format(worker='+')}": self._on_status,
            f"{self.base}/{CLAIM.levels}": self._on_claim,
        }

    def publish(
        self, topic: Topic, payload: bytes, on_published: Callable[[], None] | None = None, **levels: str
    ) -> None:
        """Hand over one live message; `on_published` is called once it is on the wire.

        levels: what stands for the levels in braces.
        """
        self._hand_over(Message(f"{self.base}/{topic.levels.format(**levels)}", topic, payload, on_published))

    def respond(self, name: str, payload: bytes, correlation: bytes | None) -> None:
        """Answer a request, on the topic that it named; under MQTT 5 with what it gave to know the answer by."""
        self._hand_over(Message(name, RESPONSE, payload, correlation=correlation))

    def listen(self, pattern: str, on_message: Callable[[MQTTMessage], None]) -> None:
        """Be told, in the event loop, of what others publish: from the next connection on, with QoS 1."""
        self._listening[pattern] = on_message

    def _hand_over(self, message: Message) -> None:
        topic = message.topic
        if not self.connected or (topic.qos and len(self._acknowledged) >= UNACKNOWLEDGED):
            self._drop(message)
            return
        if len(self._outbox) >= OUTBOX:
            self._drop(self._outbox.popleft())
        self._outbox.append(message)
        self._wake.set()

    def publish_worker(self, status: WorkerStatus) -> None:
        """Set the retained status of one worker."""
        report = WorkerReport(state=status.state, reason=status.reason, restarts=status.restarts)
        self.keep(WORKER, report.model_dump_json().encode(), worker=status.worker)

    def keep(self, topic: Topic, payload: bytes, **levels: str) -> None:
        """Set a retained message. levels: what stands for the levels in braces."""
        self._keep(f"{self.base}/{topic.levels.format(**levels)}", topic, payload)

    def announce(self, name: str, topic: Topic, payload: bytes) -> None:
        """Set a retained message outside of the stream's own topics; sent again each time this is called."""
        self._kept.pop(name, None)
        self._keep(name, topic, payload)

    def _keep(self, name: str, topic: Topic, payload: bytes) -> None:
        if self._kept.get(name) != (topic, payload):
            self._kept[name] = topic, payload
            self._unsent.add(name)
            self._wake.set()

    async def settled(self) -> None:
        """Return once everything handed over is on the wire, or the broker is away."""
        if self.connected and (self._outbox or self._unsent):
            self._settled.clear()
            self._wake.set()
            await self._settled.wait()

    async def run(self) -> None:
        """Keep connected until `close`. Raises BrokerRefused when the broker rejects the credentials."""
        meanwhile = "recognition continues, trying again"
        again = Reconnection(self.broker, self._will, largest=MOST_RECEIVED, meanwhile=meanwhile, stop=self._closing)
        while not self._closing.is_set():
            try:
                async with again.connected() as client:
                    try:
                        await self._serve(client)
                    except (StreamHeld, StreamTaken):
                        # A message that came while we hang up would make it look like a loss, for which the broker
                        # says `offline`: here over the status of the other run.
                        with contextlib.suppress(*LOST):
                            await client.unsubscribe(list(self._listening))
                        raise
            except LOST as error:
                await again.after(error, self._away)

    def close(self) -> None:
        """Say `stopped` and leave; `run` then returns."""
        self._closing.set()
        self.keep(STATUS, b"stopped")
        for name, (topic, _) in list(self._kept.items()):
            if topic is STATE:
                self._keep(name, topic, NO_VALUE.encode())
            elif topic is PEOPLE:
                self._keep(name, topic, b"")
        self._wake.set()

    async def _serve(self, client: Client) -> None:
        client.on_received(self._received)
        self._failure = None
        if self._claim is not None:
            await self._enter(client, self._claim)
        self.keep(STATUS, b"stopped" if self._closing.is_set() else b"online")
        self._unsent = set(self._kept)
        self.connected = True
        self.tried.set()
        self._answer()
        self._on_connection("connected")
        version = "5" if client.mqtt5 else "3.1.1"
        logger.info("publishing to %s on %s, MQTT %s", self.broker, f"{self.base}/{EMOTION.levels}", version)
        client.on_lost(self._wake.set)
        self._acknowledge(client.listen(list(self._listening)))
        try:
            while True:
                while self._outbox or self._unsent:
                    await self._send_next(client)
                self._settled.set()
                self._require(client)
                if self._closing.is_set() and not self._acknowledged:
                    self.connected = False
                    return
                self._wake.clear()
                await self._wake.wait()
        except LOST as error:
            # What the broker itself said is more than that nobody is there any more.
            cause = client.lost or error
            raise cause if isinstance(cause, LOST) else aiomqtt.MqttError(str(cause)) from None
        finally:
            for task in self._acknowledged:
                task.cancel()

    async def _enter(self, client: Client, claim: Literal["ask", "take"]) -> None:
        """Raises StreamHeld where another run publishes the stream. Later connections of this one ask no more."""
        status = f"{self.base}/{STATUS.levels}"
        await client.listen([f"{self.base}/{CLAIM.levels}"])
        await client.subscribe(status, qos=1)
        asked = Claim(run=self._run, says=claim).model_dump_json().encode()
        await client.send(f"{self.base}/{CLAIM.levels}", asked, CLAIM)
        with contextlib.suppress(TimeoutError):  # Where we may not subscribe, nobody can be heard.
            async with asyncio.timeout(CLAIM_S):
                # What the broker holds comes before it.
                await self._asked.wait()
                if claim == "ask" and (self._preceded or self._heard.get(status) == b"online"):
                    await self._ended.wait()
        self._require(client)
        self._claim = None

    def _on_claim(self, message: MQTTMessage) -> None:
        try:
            claim = Claim.model_validate_json(within(bytes(message.payload), MOST_RECEIVED))
        except (ValidationError, Untrusted):
            return
        if claim.run == self._run:
            self._asked.set()
        elif claim.says == "held":
            if claim.to == self._run:
                self._end(
                    StreamHeld(
                        f"another run publishes the stream {self._stream} at {self.broker}; "
                        "name another with --stream, or end it with --take-over"
                    )
                )
        elif self._claim is not None and not self._asked.is_set():
            # Of runs that begin at once, the first has the stream.
            self._preceded = True
        elif claim.says == "take":
            self._end(StreamTaken(f"another run has taken over the stream {self._stream}"))
        elif len(self._owed) < MOST_OWED:
            self._owed[claim.run] = None
            if not self._answering:
                self._answering = True
                asyncio.get_running_loop().call_later(ANSWER_S, self._answer)

    def _end(self, reason: StreamHeld | StreamTaken) -> None:
        if not self._closing.is_set():
            self._failure = reason
        self._ended.set()
        self._wake.set()

    def _answer(self) -> None:
        """Tell all who asked of late that the stream is held, once we are there to say so: a flood of questions takes
        no estimate's place."""
        self._answering = False
        while self.connected and self._owed:
            run = next(iter(self._owed))
            del self._owed[run]
            held = Claim(run=self._run, says="held", to=run).model_dump_json().encode()
            self._hand_over(Message(f"{self.base}/{CLAIM.levels}", CLAIM, held))

    def _on_status(self, message: MQTTMessage) -> None:
        """Note what the broker holds of a status. One that is not ours is set right, in a moment: it may be an older
        one of our own, that has yet to be followed by the newest."""
        if message.topic not in {*self._kept, f"{self.base}/{STATUS.levels}"}:
            return
        self._heard[message.topic] = bytes(message.payload)
        if self._differs(message.topic):
            asyncio.get_running_loop().call_later(SET_RIGHT_S, self._set_right, message.topic)

    def _differs(self, name: str) -> bool:
        return name in self._kept and self._heard.get(name) != self._kept[name][1]

    def _set_right(self, name: str) -> None:
        if self.connected and self._claim is None and self._differs(name):
            self._unsent.add(name)
            self._wake.set()

    def _require(self, client: Client) -> None:
        """Raises what befell the connection, or a message on its way."""
        if client.lost is not None:
            raise aiomqtt.MqttError(str(client.lost))
        if self._failure is not None:
            raise self._failure

    async def _send_next(self, client: Client) -> None:
        if self._outbox:
            message = self._outbox.popleft()
            topic, name = message.topic, message.name
            if not client.takes(name, message.payload, topic, message.correlation):
                self._refuse(message)
                return
            sending = client.send(name, message.payload, topic, message.correlation)
            if topic.qos:
                self._acknowledge(sending, message.on_published)
                return
            await sending
            if message.on_published:
                message.on_published()
            return
        # All at once: on a far broker the last words would else take a round trip each.
        unsent, self._unsent = self._unsent, set()
        for name in sorted(unsent):
            topic, payload = self._kept[name]
            self._acknowledge(client.send(name, payload, topic))
        await asyncio.sleep(0)

    def _acknowledge(self, sending: Coroutine[Any, Any, None], on_done: Callable[[], None] | None = None) -> None:
        """Send without waiting for the broker's answer: what comes behind is not to be held up by it."""

        def done(task: asyncio.Task[None]) -> None:
            self._acknowledged.discard(task)
            if not task.cancelled():
                if (error := task.exception()) is not None:
                    self._failure = error
                elif on_done is not None:
                    on_done()
            self._wake.set()

        task = asyncio.create_task(sending)
        self._acknowledged.add(task)
        task.add_done_callback(done)

    def _received(self, message: MQTTMessage) -> None:
        for pattern, on_message in self._listening.items():
            if topic_matches_sub(pattern, message.topic):
                on_message(message)

    def _drop(self, message: Message) -> None:
        self.undelivered += message.topic is EMOTION

    def _refuse(self, message: Message) -> None:
        """Drop a message that would cost the connection, and tell it once a topic."""
        self._drop(message)
        if message.topic.name not in self._told_large:
            self._told_large.add(message.topic.name)
            size, name = len(message.payload), message.name
            logger.warning("broker %s takes no message of %d bytes: %s is not published", self.broker, size, name)

    def _away(self) -> None:
        if self.connected or not self.tried.is_set():
            self._on_connection("away")
        self.tried.set()
        self.connected = False
        while self._outbox:
            self._drop(self._outbox.popleft())
        self._settled.set()
