"""A connection to a broker: in MQTT 5 where it speaks it, else in 3.1.1."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import aiomqtt
from aiomqtt.types import SubscribeTopic
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from realtime.messages.topics import PERSON, RESPONSE, Topic
from realtime.mqtt.aiomqtt_hooks import MOST_TAKEN, HookedClient
from realtime.mqtt.broker import BrokerAddress, tls_context
from realtime.mqtt.reasons import REASONS, UNSPECIFIED, ClosedEarly, in_words, in_words_of, of_tls, speaks_another

logger = logging.getLogger(__name__)
# What the libraries underneath complain of is told here in words, once.
_beneath = logging.getLogger(f"{__name__}.paho")
_beneath.setLevel(logging.CRITICAL)

KEEPALIVE_S: Final = 6
"""Time between signs of life: a connection that died without a word is noticed after two of these."""
CONNECT_TIMEOUT_S: Final = 5.0
COMPLAINT_S: Final = 2.0
INBOX: Final = 1000
"""Messages that wait to be taken in, at most."""


class _Newest(asyncio.Queue[aiomqtt.Message]):
    """A queue that gives up its oldest where there is no room: who is slow shall not live ever further in the past."""

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if self.full():
            self.get_nowait()
        super().put_nowait(item)


@dataclass(slots=True)
class _Known:
    """Facts learned of a broker: whether it speaks MQTT 5 (None: not yet known), and the complaints already told."""

    speaks_5: bool | None = None
    told: set[str] = field(default_factory=set)


_known: dict[tuple[str, int], _Known] = {}


class Client(HookedClient):
    """A connection that follows what the broker said of itself when it accepted us."""

    def __init__(
        self,
        broker: BrokerAddress,
        known: _Known,
        will: aiomqtt.Will | None,
        *,
        mqtt5: bool,
        largest: int | None,
        identifier: str | None,
    ) -> None:
        super().__init__(
            broker.host,
            broker.port,
            identifier=identifier or new_identifier(),
            protocol=aiomqtt.ProtocolVersion.V5 if mqtt5 else aiomqtt.ProtocolVersion.V311,
            username=broker.username,
            password=broker.password,
            will=will,
            tls_context=tls_context(broker),
            transport="tcp" if broker.path is None else "websockets",
            websocket_path=broker.path,
            keepalive=KEEPALIVE_S,
            timeout=CONNECT_TIMEOUT_S,
            queue_type=_Newest,
            max_queued_incoming_messages=INBOX,
            logger=_beneath,
            properties=_limited(largest) if mqtt5 and largest is not None else None,
        )
        # How many messages wait for their answer is bounded by who sends them.
        self.pending_calls_threshold = 1000
        self.mqtt5 = mqtt5
        self._broker = broker
        self._told = known.told
        self._most_aliases = 0
        self._largest: int | None = None
        self._aliases: set[str] = set()
        """Topics that the broker knows by number."""
        self._properties_of: dict[str, Properties] = {}

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except ClosedEarly:
            if self._broker.tls and (complaint := await _complaint(self._broker)):
                raise of_tls(complaint) from None
            raise
        except aiomqtt.MqttCodeError:
            raise
        except aiomqtt.MqttError as error:
            # aiomqtt keeps no more than the text of what it met.
            match error.__context__:
                case ssl.SSLError() as met:
                    raise of_tls(met) from None
                case OSError() as met:
                    raise aiomqtt.MqttError(in_words(met)) from None
            raise

    def accepted(self, said: Properties | None) -> None:
        self._most_aliases = getattr(said, "TopicAliasMaximum", 0)
        self._largest = getattr(said, "MaximumPacketSize", None)

    def not_taken(self, reason: ReasonCode) -> None:
        self._tell_once(f"did not take a message of ours: {in_words_of(reason)}")

    def takes(self, name: str, payload: bytes, topic: Topic, correlation: bytes | None = None) -> bool:
        """Tell whether a message is small enough for the broker, as far as it said."""
        correlated = 0 if correlation is None else 3 + len(correlation)
        if self._largest is None:
            return True
        described = properties_of(topic) if topic in {RESPONSE, PERSON} else self._properties_for(name, topic)
        properties: bytes = described.pack()  # type: ignore[no-untyped-call]
        head = 1 + 4 + 2 + len(name.encode()) + 2 + correlated
        return head + len(properties) + len(payload) <= self._largest

    async def listen(self, patterns: Sequence[str]) -> None:
        """Subscribe with QoS 1 to what comes from now on: retained messages of before are not asked for, and later ones
        say that they are to be retained (in MQTT 3.1.1 the other way round). A refusal is told once.
        """
        options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        # In one packet: who sees the first message of this connection can be sure that we listen.
        if self.mqtt5:
            asked: SubscribeTopic = [(pattern, options) for pattern in patterns]
        else:
            asked = [(pattern, 1) for pattern in patterns]
        answers: Sequence[int | ReasonCode] = await self.subscribe(asked)
        for pattern, answer in zip(patterns, answers, strict=True):
            if isinstance(answer, int):
                refused = "" if answer < UNSPECIFIED else REASONS[UNSPECIFIED]
            else:
                refused = in_words_of(answer) if answer.is_failure else ""
            if refused:
                self._tell_once(f"does not let us subscribe to {pattern}: {refused}")

    async def send(self, name: str, payload: bytes, topic: Topic, correlation: bytes | None = None) -> None:
        """Publish as the topic asks for; under MQTT 5 with what it says of itself. Return once it is on the wire, or
        with QoS 1 once it is answered. correlation: of the request that this answers.
        """
        if not self.mqtt5:
            await self.publish(name, payload, topic.qos, topic.retain)
            return
        if topic in {RESPONSE, PERSON}:
            # Their names are the callers', or those of ever new people; nothing of them is remembered.
            properties = properties_of(topic)
            if correlation is not None:
                properties.CorrelationData = correlation
            await self.publish(name, payload, topic.qos, topic.retain, properties)
            return
        properties = self._properties_for(name, topic)
        spoken = "" if name in self._aliases else name
        if hasattr(properties, "TopicAlias"):
            self._aliases.add(name)
        await self.publish(spoken, payload, topic.qos, topic.retain, properties)

    def _properties_for(self, name: str, topic: Topic) -> Properties:
        if (properties := self._properties_of.get(name)) is None:
            properties = properties_of(topic)
            if topic.frequent and topic.qos == 0 and (alias := len(self._properties_of) + 1) <= self._most_aliases:
                properties.TopicAlias = alias
            self._properties_of[name] = properties
        return properties

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            logger.warning("broker %s %s", self._broker, words)


def new_identifier() -> str:
    return f"dhmd-{secrets.token_hex(6)}"


def _limited(largest: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = largest
    return properties


def properties_of(topic: Topic) -> Properties:
    """Returns what a message says of itself under MQTT 5."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1
    properties.ContentType = topic.content_type
    properties.UserProperty = [("schema", f"{topic.name}/1")]
    if topic.expiry_s is not None:
        properties.MessageExpiryInterval = topic.expiry_s
    return properties


@asynccontextmanager
async def connect(
    broker: BrokerAddress,
    will: aiomqtt.Will | None = None,
    *,
    largest: int = MOST_TAKEN,
    identifier: str | None = None,
) -> AsyncIterator[Client]:
    """Connect to this broker: in MQTT 5, or in 3.1.1 where that is all it speaks, which is then remembered.

    largest: bytes of a packet, that a broker of MQTT 5 is told not to exceed. identifier: of a client that comes back;
    a connection that the broker still holds for it is ended, its will included. Raises aiomqtt.MqttError.
    """
    known = _known.setdefault((broker.host, broker.port), _Known())
    if broker.only_311:
        known.speaks_5 = False
    mqtt5 = await _speaks_5(broker, known) if known.speaks_5 is None else known.speaks_5
    async with AsyncExitStack() as stack:
        client = Client(broker, known, will, mqtt5=mqtt5, largest=largest, identifier=identifier)
        try:
            await stack.enter_async_context(client)
        except aiomqtt.MqttError as error:
            if speaks_another(error):
                known.speaks_5 = None  # it was replaced; the next attempt asks again
            raise
        known.speaks_5 = mqtt5
        yield client


async def _speaks_5(broker: BrokerAddress, known: _Known) -> bool:
    """Ask, in a connection of its own that says nothing else: brokers of before may take the rest for something else,
    and wait. Raises aiomqtt.MqttError."""
    try:
        async with Client(broker, known, None, mqtt5=True, largest=None, identifier=None):
            return True
    except ClosedEarly:
        return False  # as old brokers do
    except aiomqtt.MqttError as error:
        if speaks_another(error):
            return False
        raise


async def reach(broker: BrokerAddress) -> None:
    """Knock: paho connects in a thread that cannot be cancelled, this can. Raises OSError, TimeoutError."""
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, writer = await asyncio.open_connection(broker.host, broker.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _complaint(broker: BrokerAddress) -> ssl.SSLError | None:
    """Ask a broker that hung up what it has against us: TLS 1.3 tells after the handshake, where paho is deaf to it."""
    with contextlib.suppress(OSError, TimeoutError):
        try:
            async with asyncio.timeout(COMPLAINT_S):
                reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=tls_context(broker))
                try:
                    await reader.read(1)
                finally:
                    writer.close()
        except ssl.SSLError as error:
            return error
    return None
