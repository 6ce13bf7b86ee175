"""MQTT 5 where the broker speaks it, 3.1.1 where it does not; what brokers refuse, and how it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiomqtt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from realtime.messages.topics import COMPACT, EMOTION, EVENT, STATUS, TOPICS
from realtime.mqtt import connection, embedded
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import Client, properties_of
from realtime.mqtt.embedded import embedded_broker
from realtime.mqtt.publisher import MOST_RECEIVED, Publisher, publishing
from realtime.mqtt.reasons import in_words
from tests.realtime.waiting import PATIENCE_S, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_is_known_of_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_known", {})


@contextlib.asynccontextmanager
async def published(address: BrokerAddress) -> AsyncIterator[tuple[Publisher, list[str]]]:
    """A publisher, fed, and the states of its connection."""
    states: list[str] = []
    publisher = Publisher(address, "test", states.append)
    async with publishing(publisher):
        await publisher.tried.wait()
        yield publisher, states


async def feed(publisher: Publisher, count: int = 20) -> None:
    for number in range(count):
        publisher.publish(EMOTION, b'{"n":%d,"long":"%s"}' % (number, b"x" * 200))
        publisher.publish(COMPACT, b'{"n":%d}' % number)
        await asyncio.sleep(0.01)
    await publisher.settled()


class Listener5:
    """A second client that speaks MQTT 5 and keeps messages whole."""

    def __init__(self, port: int) -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        subscribed = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.on_connect = lambda client, *_: client.subscribe("dhmd/#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = lambda client, data, message: self.messages.append(message)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def of(self, topic: str) -> list[mqtt.MQTTMessage]:
        return [message for message in list(self.messages) if message.topic == topic]


@pytest.fixture
def listener(mosquitto: Any) -> Iterator[Listener5]:
    one = Listener5(mosquitto.port)
    yield one
    one.client.disconnect()
    one.client.loop_stop()


async def test_messages_say_what_they_are_and_expire(mosquitto: Any, listener: Listener5) -> None:
    async with published(BrokerAddress("127.0.0.1", mosquitto.port)) as (publisher, _):
        await feed(publisher)
        publisher.publish(EVENT, b"{}")
        await until(lambda: listener.of("dhmd/test/event") and len(listener.of("dhmd/test/emotion/compact")) == 20)
        emotion, event = listener.of("dhmd/test/emotion")[-1].properties, listener.of("dhmd/test/event")[0].properties
        status = listener.of("dhmd/test/status")[0].properties
    assert emotion is not None
    assert emotion.ContentType == "application/json"
    assert emotion.UserProperty == [("schema", "emotion/1")]
    assert 0 < emotion.MessageExpiryInterval <= 10
    assert event is not None
    assert 10 < event.MessageExpiryInterval <= 60
    assert status is not None
    assert status.ContentType == "text/plain"
    assert not hasattr(status, "MessageExpiryInterval")


async def test_a_topic_that_comes_often_is_named_once_and_then_by_its_number(
    mosquitto: Any, listener: Listener5, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken: list[str] = []
    whole = Client.publish

    async def publish(self: Client, topic: str, *rest: Any) -> None:
        spoken.append(topic)
        await whole(self, topic, *rest)

    monkeypatch.setattr(Client, "publish", publish)
    async with published(BrokerAddress("127.0.0.1", mosquitto.port)) as (publisher, _):
        await feed(publisher)
        await until(lambda: len(listener.of("dhmd/test/emotion/compact")) == 20)
        # Numbers are forgotten with the connection.
        await asyncio.to_thread(mosquitto.stop)
        await until(lambda: not publisher.connected)
        await asyncio.to_thread(mosquitto.start)
        await until(lambda: publisher.connected)
        while len(listener.of("dhmd/test/emotion")) < 30:
            await feed(publisher)
    names = [topic for topic in spoken if "status" not in topic]
    assert sorted(set(names)) == ["", "dhmd/test/emotion", "dhmd/test/emotion/compact"]
    assert [names.count(f"dhmd/test/{topic.levels}") for topic in (EMOTION, COMPACT)] == [2, 2]


async def test_no_number_is_used_that_the_broker_did_not_offer(
    start_mosquitto: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = start_mosquitto(lines=["max_topic_alias 1"])
    listener = Listener5(broker.port)
    async with published(BrokerAddress("127.0.0.1", broker.port)) as (publisher, states):
        await feed(publisher)
        await until(lambda: len(listener.of("dhmd/test/emotion/compact")) == 20)
        assert len(listener.of("dhmd/test/emotion")) == 20
        assert states == ["connected"]
    listener.client.disconnect()
    listener.client.loop_stop()


class OldBroker:
    """Speaks MQTT 3.1.1 alone, as far as it goes: accepts, answers pings and acknowledges nothing else.

    honest: says that it does not know a version; otherwise it hangs up.
    """

    def __init__(self, *, honest: bool = True, silent: bool = False) -> None:
        self.versions: list[int] = []
        self._honest, self._silent = honest, silent

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            packet = await reader.read(4096)
            while packet:
                if packet[0] == 0x10 and not self._silent:
                    version = packet[packet.index(b"MQTT") + 4]
                    self.versions.append(version)
                    if version != 4:
                        if self._honest:
                            writer.write(bytes([0x20, 2, 0, 1]))
                        break
                    writer.write(bytes([0x20, 2, 0, 0]))
                elif packet[0] == 0xC0 and not self._silent:
                    writer.write(bytes([0xD0, 0]))
                packet = await reader.read(4096)
        finally:
            writer.close()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[BrokerAddress]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1])
        finally:
            server.close()


@pytest.mark.parametrize("honest", [True, False], ids=["says so", "hangs up"])
async def test_a_broker_of_before_is_spoken_to_as_before_and_remembered(honest: bool) -> None:
    old = OldBroker(honest=honest)
    async with old.open() as address:
        for _ in range(2):
            started_s = time.monotonic()
            async with connection.connect(address) as client:
                assert not client.mqtt5
            assert time.monotonic() - started_s < connection.CONNECT_TIMEOUT_S
    assert old.versions == [5, 4, 4]


async def test_the_embedded_broker_hangs_up_on_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "UNREAD_S", 0.5)
    async with embedded_broker(0) as address:
        with socket.create_connection((address.host, address.port)) as reader:
            reader.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x" + b"\x82\x06\x00\x01\x00\x01#\x00")
            async with aiomqtt.Client(address.host, address.port) as client:
                await asyncio.to_thread(reader.recv, 9, socket.MSG_WAITALL)  # subscribed, and reads no more
                for _ in range(200):  # more than the system keeps for it
                    await client.publish("dhmd/hall/emotion", bytes(100_000), qos=1)
                await until(lambda: not any("mqtt_publish" in repr(task) for task in asyncio.all_tasks()))
            reader.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionError):
                while await asyncio.to_thread(reader.recv, 2**20):
                    pass


async def test_the_embedded_broker_lets_so_many_in_and_the_next_when_one_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "MOST_CLIENTS", 1)
    async with embedded_broker(0) as address:
        async with aiomqtt.Client(address.host, address.port) as client:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x")
            answer = asyncio.create_task(reader.readexactly(4))
            for _ in range(20):
                await client.publish("dhmd/hall/emotion", b"{}", qos=1)
            assert not answer.done()
        assert await answer == b"\x20\x02\x00\x00"
        writer.close()


async def test_the_embedded_broker_is_spoken_to_as_it_speaks(caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_broker(0) as address:
        async with connection.connect(address) as client:
            assert not client.mqtt5
        # By its address alone, as another program knows it, whatever that asks of it.
        stranger = BrokerAddress(address.host, address.port)
        for largest in (connection.MOST_TAKEN, MOST_RECEIVED):
            connection._known.clear()
            async with connection.connect(stranger, largest=largest) as client:
                assert not client.mqtt5
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_broker_that_accepts_and_never_answers_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async with OldBroker(silent=True).open() as address, published(address) as (publisher, states):
        assert states == ["away"]
        publisher.publish(EMOTION, b"{}")
        assert publisher.undelivered == 1
    assert "is away (it does not answer); recognition continues" in caplog.text


async def test_a_message_that_is_too_large_is_told_once_and_costs_no_connection(
    start_mosquitto: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    broker = start_mosquitto(lines=["max_packet_size 250"])
    listener = Listener5(broker.port)
    async with published(BrokerAddress("127.0.0.1", broker.port)) as (publisher, states):
        await feed(publisher)
        await until(lambda: len(listener.of("dhmd/test/emotion/compact")) == 20)
        assert states == ["connected"]
        assert publisher.undelivered == 20
    told = [record.getMessage() for record in caplog.records if "takes no message of" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("dhmd/test/emotion is not published")
    assert not listener.of("dhmd/test/emotion")
    listener.client.disconnect()
    listener.client.loop_stop()


async def test_another_client_of_our_name_is_told_and_got_over(
    mosquitto: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.secrets, "token_hex", lambda _: "twin")
    async with published(BrokerAddress("127.0.0.1", mosquitto.port)) as (publisher, states):
        monkeypatch.undo()
        twin = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "dhmd-twin", protocol=mqtt.MQTTv5)
        twin.connect("127.0.0.1", mosquitto.port)
        twin.loop_start()
        # Nothing is published meanwhile: the loss itself is noticed.
        await until(lambda: states == ["connected", "away", "connected"])
        await feed(publisher)
        twin.disconnect()
        twin.loop_stop()
    assert "is away (the connection was lost)" in caplog.text


async def test_what_a_broker_says_when_it_sends_us_away_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4096):
            writer.write(bytes([0x20, 3, 0, 0, 0]) + bytes([0xE0, 2, 142, 0]))
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1])
    async with published(address) as (_, states):
        await until(lambda: states.count("away") >= 2)
    server.close()
    # Time and again, but told once.
    assert caplog.text.count("is away (another client took our client identifier)") == 1


async def test_a_publisher_that_is_not_allowed_to_publish_says_so_once(
    start_mosquitto: Callable[..., Any], caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read dhmd/#\n")
    acl.chmod(0o700)
    broker = start_mosquitto(lines=[f"acl_file {acl}"])
    async with published(BrokerAddress("127.0.0.1", broker.port)) as (publisher, states):
        publisher.publish(EVENT, b"{}")
        publisher.publish(EVENT, b"{}")
        await publisher.settled()
        await until(lambda: "did not take" in caplog.text)
        await asyncio.sleep(0.2)
        assert states == ["connected"]
    assert caplog.text.count("did not take a message of ours: not authorised") == 1


def test_all_that_a_broker_may_say_has_words() -> None:
    for packet in (PacketTypes.CONNACK, PacketTypes.DISCONNECT, PacketTypes.PUBACK):
        for number, names in ReasonCode.names.items():
            if number >= 128 and any(packet in packets for packets in names.values()):
                words = in_words(connection.aiomqtt.MqttCodeError(ReasonCode(packet, identifier=number)))
                assert words[0].islower()
                assert not any(character.isdigit() for character in words)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_properties_can_be_packed(topic: Any) -> None:
    properties: Properties = properties_of(topic)
    assert properties.pack()
    assert hasattr(properties, "MessageExpiryInterval") == (not topic.retain)
    assert topic is not STATUS or properties.ContentType == "text/plain"


def test_a_closed_port_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as refused:
        socket.create_connection(("127.0.0.1", port))
    assert in_words(refused.value) == "Connection refused"
