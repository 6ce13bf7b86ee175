"""Reaching a broker: in MQTT 5 where it speaks it, else in 3.1.1; what goes wrong, in words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiomqtt
from paho.mqtt.client import MQTTMessage, error_string
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from realtime.errors import BrokerRefused
from realtime.messages.topics import RESPONSE, Topic
from realtime.mqtt.broker import PASSWORD_VARIABLE, USER_VARIABLE, BrokerAddress, tls_context

logger = logging.getLogger(__name__)
# What the libraries underneath complain of is told here in words, once.
_beneath = logging.getLogger(f"{__name__}.paho")
_beneath.setLevel(logging.CRITICAL)

KEEPALIVE_S: Final = 6
"""A connection that died without a word is noticed after two of these."""
CONNECT_TIMEOUT_S: Final = 5.0
COMPLAINT_S: Final = 2.0
INBOX: Final = 1000
"""Messages that wait to be taken in, at most."""
UNSPECIFIED: Final = 128
UNSUPPORTED_VERSION: Final = 132
REFUSALS: Final = {134: "bad user name or password", 135: "not authorised"}
"""CONNACK reasons that trying again does not mend. paho gives those of MQTT 3.1.1 by their numbers of 5; its 4 and 5
are codes of its own for a lost connection."""
REASONS: Final = REFUSALS | {
    UNSPECIFIED: "it does not say why",
    UNSUPPORTED_VERSION: "it speaks another version of MQTT",
    133: "it does not accept our client identifier",
    136: "it is not available now",
    137: "it is busy",
    138: "it has banned us",
    139: "it is shutting down",
    141: "it heard nothing from us for too long",
    142: "another client took our client identifier",
    144: "it does not accept a topic of ours",
    147: "we sent more at once than it takes",
    148: "it does not know a topic alias of ours",
    149: "a message was larger than it takes",
    150: "we sent more often than it takes",
    151: "a quota of it is exceeded",
    152: "its administrator closed the connection",
    154: "it keeps no retained messages",
    155: "it does not take our quality of service",
    156: "it wants us to use another server",
    157: "it has moved",
    159: "we connected more often than it takes",
}
"""What a broker says by number, in CONNACK, PUBACK and DISCONNECT."""


OURS_REFUSED: Final = (
    "CERTIFICATE_REQUIRED",
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "HANDSHAKE_FAILURE",
    "CERTIFICATE_EXPIRED",
)
"""In what OpenSSL calls the other side's alerts about our certificate."""


class ClosedEarly(aiomqtt.MqttError):
    """The connection was closed before the broker answered."""


class Untrusted(aiomqtt.MqttError):
    """One of the two does not accept the other's certificate."""


class _Newest(asyncio.Queue[aiomqtt.Message]):
    """Gives up the oldest where there is no room: who is slow shall not live ever further in the past."""

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if self.full():
            self.get_nowait()
        super().put_nowait(item)


@dataclass(slots=True)
class _Known:
    """What this process has learned of a broker: whether it speaks MQTT 5 (None: not yet known), complaints told."""

    speaks_5: bool | None = None
    told: set[str] = field(default_factory=set)


_known: dict[tuple[str, int], _Known] = {}


class Client(aiomqtt.Client):
    """A connection, with what the broker said of itself when it accepted us."""

    def __init__(
        self, broker: BrokerAddress, known: _Known, will: aiomqtt.Will | None, *, mqtt5: bool, largest: int | None
    ) -> None:
        super().__init__(
            broker.host,
            broker.port,
            identifier=f"dhmd-{secrets.token_hex(6)}",
            protocol=aiomqtt.ProtocolVersion.V5 if mqtt5 else aiomqtt.ProtocolVersion.V311,
            username=broker.username,
            password=broker.password,
            will=will,
            tls_context=tls_context(broker),
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
        self.lost: BaseException | None = None
        """Why the connection was lost; None while it is not."""
        self._call_on_lost: Callable[[], None] = lambda: None
        self._on_received: Callable[[MQTTMessage], None] | None = None
        self._disconnected.add_done_callback(self._closed)

    def on_lost(self, call: Callable[[], None]) -> None:
        """Call back once the connection is lost."""
        self._call_on_lost = call
        if self.lost is not None:
            call()

    def takes(self, name: str, payload: bytes, topic: Topic, correlation: bytes | None = None) -> bool:
        """Whether a message is small enough for the broker, as far as it said."""
        correlated = 0 if correlation is None else 3 + len(correlation)
        if self._largest is None:
            return True
        described = properties_of(topic) if topic is RESPONSE else self._properties_for(name, topic)
        properties: bytes = described.pack()  # type: ignore[no-untyped-call]
        head = 1 + 4 + 2 + len(name.encode()) + 2 + correlated
        return head + len(properties) + len(payload) <= self._largest

    def on_received(self, call: Callable[[MQTTMessage], None]) -> None:
        """Hand over what is subscribed to as it comes, instead of keeping it in `messages`."""
        self._on_received = call

    async def listen(self, patterns: Sequence[str]) -> None:
        """Subscribe with QoS 1 to what comes from now on: retained messages of before are not asked for, and later ones
        say that they are to be retained (in MQTT 3.1.1 the other way round). A refusal is told once.
        """
        options = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        for pattern in patterns:
            # paho takes the one or the other.
            [answer] = await (self.subscribe(pattern, options=options) if self.mqtt5 else self.subscribe(pattern, 1))
            if isinstance(answer, int):
                refused = "" if answer < UNSPECIFIED else REASONS[UNSPECIFIED]
            else:
                refused = in_words_of(answer) if answer.is_failure else ""
            if refused and (words := f"does not let us subscribe to {pattern}: {refused}") not in self._told:
                self._told.add(words)
                logger.warning("broker %s %s", self._broker, words)

    async def send(self, name: str, payload: bytes, topic: Topic, correlation: bytes | None = None) -> None:
        """Publish as the topic asks for; under MQTT 5 with what it says of itself. Returns once it is on the wire, or
        with QoS 1 once it is answered. correlation: of the request that this answers.
        """
        if not self.mqtt5:
            await self.publish(name, payload, topic.qos, topic.retain)
            return
        if topic is RESPONSE:
            # Its names and what belongs to it are the callers'; nothing of it is remembered.
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

    def _client_connect(self) -> None:
        try:
            super()._client_connect()
        except OSError as error:
            self.lost = error
            raise

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self._most_aliases = getattr(properties, "TopicAliasMaximum", 0)
        self._largest = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        if not self._connected.done():
            # aiomqtt would wait for an answer that no longer comes.
            self._connected.set_exception(ClosedEarly("it closed the connection without an answer"))
        elif reason_code.is_failure and self._connected.exception() is None:
            # aiomqtt forgets a loss that comes with the answer itself.
            self._lose(aiomqtt.MqttCodeError(reason_code))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ARG002
        # aiomqtt hands its number to the loop, which may come to it when the socket is closed, or another one's.
        descriptor = sock.fileno()

        def register() -> None:
            if sock.fileno() == descriptor >= 0:
                self._loop.add_writer(descriptor, self._write, client)

        self._loop.call_soon_threadsafe(register)

    def _write(self, client: Any) -> None:
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is lost by it
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        if self._on_received is None:
            super()._on_message(client, userdata, message)
        else:
            self._on_received(message)

    def _closed(self, disconnected: asyncio.Future[None]) -> None:
        if not disconnected.cancelled() and (error := disconnected.exception()) is not None:
            self._lose(error)
            if not self._connected.done():
                self._connected.set_exception(ClosedEarly(in_words(error)))

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except ClosedEarly:
            if self._broker.tls and (complaint := await _complaint(self._broker)):
                raise _of_tls(complaint) from None
            raise
        except aiomqtt.MqttCodeError:
            raise
        except aiomqtt.MqttError:
            if isinstance(self.lost, ssl.SSLError):
                raise _of_tls(self.lost) from None
            if self.lost is not None:
                raise aiomqtt.MqttError(in_words(self.lost)) from None
            raise

    def _lose(self, error: BaseException) -> None:
        self.lost = self.lost or error
        self._call_on_lost()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Any) -> None:
        if getattr(reason_code, "is_failure", False) and (words := in_words_of(reason_code)) not in self._told:
            self._told.add(words)
            logger.warning("broker %s did not take a message of ours: %s", self._broker, words)
        super()._on_publish(client, userdata, mid, reason_code, properties)


def _limited(largest: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = largest
    return properties


def properties_of(topic: Topic) -> Properties:
    """What a message says of itself under MQTT 5."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.PayloadFormatIndicator = 1
    properties.ContentType = topic.content_type
    properties.UserProperty = [("schema", f"{topic.name}/{topic.schema_version}")]
    if topic.expiry_s is not None:
        properties.MessageExpiryInterval = topic.expiry_s
    return properties


@asynccontextmanager
async def connect(
    broker: BrokerAddress, will: aiomqtt.Will | None = None, *, largest: int | None = None
) -> AsyncIterator[Client]:
    """A connection to this broker: in MQTT 5, or in 3.1.1 where that is all it speaks, which is then remembered.

    largest: bytes of a packet, that a broker of MQTT 5 is told not to exceed. Raises aiomqtt.MqttError.
    """
    known = _known.setdefault((broker.host, broker.port), _Known())
    if broker.only_311:
        known.speaks_5 = False
    async with AsyncExitStack() as stack:
        if known.speaks_5 is not False:
            try:
                client = await stack.enter_async_context(Client(broker, known, will, mqtt5=True, largest=largest))
                known.speaks_5 = True
            except aiomqtt.MqttError as error:
                # Old brokers say so, older ones hang up.
                if not (_speaks_another(error) or (isinstance(error, ClosedEarly) and known.speaks_5 is None)):
                    raise
                client = await stack.enter_async_context(Client(broker, known, will, mqtt5=False, largest=largest))
                known.speaks_5 = False
        else:
            client = await stack.enter_async_context(Client(broker, known, will, mqtt5=False, largest=largest))
        yield client


async def reach(broker: BrokerAddress) -> None:
    """Knock: paho connects in a thread that cannot be cancelled, this can. Raises OSError, TimeoutError."""
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, writer = await asyncio.open_connection(broker.host, broker.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _speaks_another(error: Exception) -> bool:
    return _answer(error) == UNSUPPORTED_VERSION


def refusal(broker: BrokerAddress, error: Exception) -> BrokerRefused | None:
    """What ends a run, since trying again does not mend it; None when the error is another."""
    if isinstance(error, Untrusted):
        return BrokerRefused(f"{broker}: {error}")
    if reason := REFUSALS.get(_answer(error)):
        remedy = f"set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or give --broker-password-file"
        return BrokerRefused(f"{broker} refuses us: {reason}; {remedy}")
    return None


async def _complaint(broker: BrokerAddress) -> ssl.SSLError | None:
    """What a broker that hung up has against us: TLS 1.3 says so after the handshake, where paho is deaf to it."""
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


def _of_tls(error: ssl.SSLError) -> aiomqtt.MqttError:
    return (Untrusted if _distrust(error) else aiomqtt.MqttError)(in_words(error))


def _distrust(error: ssl.SSLError) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) or any(word in (error.reason or "") for word in OURS_REFUSED)


def _answer(error: Exception) -> int:
    """With what the broker answered our wish to connect; -1 when the error is another."""
    reason = getattr(error, "rc", None)
    return reason.value if isinstance(reason, ReasonCode) and reason.packetType == PacketTypes.CONNACK else -1


def in_words_of(reason: ReasonCode) -> str:
    if reason.packetType == PacketTypes.DISCONNECT and reason.value == UNSPECIFIED:
        # So paho calls it that there was no word at all.
        return "the connection was lost"
    return REASONS.get(reason.value, str(reason).lower())


def in_words(error: BaseException) -> str:
    """Why a broker is away, without numbers."""
    match error:
        case aiomqtt.MqttCodeError(rc=ReasonCode() as code):
            words = in_words_of(code)
        case aiomqtt.MqttCodeError(rc=int(number)):
            words = error_string(number).lower().rstrip(".")
        case TimeoutError():
            words = "it does not answer"
        case ssl.SSLCertVerificationError():
            reason = error.verify_message.rstrip(".")
            words = f"its certificate is not trusted ({reason}); name the CA that signed it with --broker-ca"
        case ssl.SSLError() if _distrust(error):
            words = "it does not accept our certificate, or asks for one; give --broker-cert and --broker-key"
        case ssl.SSLError():
            reason = (error.reason or str(error)).lower().replace("_", " ")
            words = f"TLS fails ({reason}); is it the port for TLS?"
        case OSError(strerror=str(words)):
            pass
        case _ if str(error) == "Operation timed out":
            words = "it does not answer"
        case _:
            words = str(error) or type(error).__name__
    return words
