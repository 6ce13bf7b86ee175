"""A stream as another program takes it in: typed messages, whatever becomes of the broker.

Loads nothing of the recogniser: no torch, no camera, no models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Literal, TypeVar, overload

import aiomqtt
from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import BaseModel, ValidationError

from dhmd.untrusted import shown, within
from realtime import event_loop
from realtime.errors import BrokerRefused, BrokerUnavailable
from realtime.messages.estimate import Estimate
from realtime.messages.topics import (
    COMPACT,
    EMOTION,
    EVENT,
    METRICS,
    PEOPLE,
    PERSON,
    ROOT,
    TRANSCRIPT,
    Topic,
    check_stream_name,
)
from realtime.mqtt.broker import BrokerAddress, named_broker
from realtime.mqtt.connection import Client, connect
from realtime.mqtt.reasons import in_words, in_words_of, refusal
from realtime.mqtt.reconnection import LOST, Reconnection

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)

MOST_TOLD: Final = 100
QUIET_S: Final = 1.0
"""Silence after which all retained messages have come: they come at once."""
ALL_STREAMS: Final = "+"
LIVE: Final[dict[type[BaseModel], Topic]] = {
    topic.payload: topic for topic in (EMOTION, COMPACT, TRANSCRIPT, EVENT, METRICS, PEOPLE)
}


@overload
def subscribe(
    broker: str | BrokerAddress, stream: str = ALL_STREAMS, *, person: int | Literal["all"] | None = None
) -> AsyncGenerator[Estimate, None]: ...
@overload
def subscribe(broker: str | BrokerAddress, stream: str = ALL_STREAMS, *, what: type[M]) -> AsyncGenerator[M, None]: ...
def subscribe(
    broker: str | BrokerAddress,
    stream: str = ALL_STREAMS,
    *,
    what: type[BaseModel] = Estimate,
    person: int | Literal["all"] | None = None,
) -> AsyncGenerator[BaseModel, None]:
    """Yield the live messages of one stream, or of all, each as a model; never end by itself.

    broker: `mqtt[s]://[user@]host[:port]`; user and password also from DHMD_BROKER_USER and DHMD_BROKER_PASSWORD.
    what: Estimate, Compact, Transcript, Event, Metrics or People. person: where several are followed, the estimates of
    that one, or of all, in place of the stream's own; which one it is of stands in `person`.

    A broker that is away is waited for, and what it was sent meanwhile is not made up for; who takes messages in too
    slowly misses the oldest. Malformed messages, and those of another version, are told once and left out.

    Raises SettingsInvalid for a malformed address or name; BrokerRefused, while iterating, where trying again
    would not help.
    """
    if what not in LIVE:
        raise TypeError(f"what: expected {', '.join(model.__name__ for model in LIVE)}, found {what!r}")
    address = named_broker(broker) if isinstance(broker, str) else broker
    if stream != ALL_STREAMS:
        check_stream_name(stream)
    levels = LIVE[what].levels
    if person is not None:
        if what is not Estimate or (person != "all" and person < 1):
            raise TypeError(f"person: a number from 1, or all, whose estimates are meant; found {person!r}")
        levels = PERSON.levels.format(id="+" if person == "all" else person)
    return _typed(address, f"{ROOT}/{stream}/{levels}", what)


async def _typed(broker: BrokerAddress, name: str, what: type[M]) -> AsyncGenerator[M, None]:
    told: set[str] = set()
    async with contextlib.aclosing(received(broker, [name])) as messages:
        async for message in messages:
            try:
                typed = parsed(message, what)
            except ValueError as error:
                if (where := shown(message.topic.value)) not in told and len(told) < MOST_TOLD:
                    told.add(where)
                    logger.warning("%s: no %s (%s); left out", where, what.__name__, problem(error))
            else:
                yield typed


def parsed(message: aiomqtt.Message, what: type[M]) -> M:
    """Read a message, without the fields that a later program has added. Raises ValueError."""
    return what.model_validate_json(within(payload_of(message)), extra="ignore")


def problem(error: ValueError) -> str:
    """Say in a few words what is wrong with a message that cannot be read."""
    return f"{error.error_count()} problems" if isinstance(error, ValidationError) else str(error)


def payload_of(message: aiomqtt.Message) -> bytes:
    return message.payload if isinstance(message.payload, bytes) else str(message.payload or "").encode()


async def received(
    broker: BrokerAddress,
    names: Sequence[str],
    on_connected: Callable[[], None] = lambda: None,
    on_away: Callable[[], None] = lambda: None,
) -> AsyncGenerator[aiomqtt.Message, None]:
    """Yield all messages on these topics, which may hold wildcards; come back when the broker does.

    Raises BrokerRefused where trying again would not help.
    """
    again = Reconnection(broker)
    while True:
        try:
            async with again.connected() as client:
                for name in names:
                    await _join(client, broker, name)
                on_connected()
                async for message in client.messages:
                    yield message
        except LOST as error:
            await again.after(error, on_away)


def kept(broker: BrokerAddress, names: Sequence[str]) -> dict[str, bytes]:
    """Return what the broker keeps on these topics. Raises BrokerRefused, BrokerUnavailable."""

    async def ask() -> dict[str, bytes]:
        async with connect(broker) as client:
            return await retained(client, names)

    try:
        return event_loop.run(ask())
    except LOST as error:
        raise refusal(broker, error) or BrokerUnavailable(f"{broker} is away ({in_words(error)})") from error


async def retained(client: Client, names: Sequence[str]) -> dict[str, bytes]:
    """Return what the broker keeps on these topics, by topic; what else comes on this connection is passed over.

    Raises aiomqtt.MqttError.
    """
    found: dict[str, bytes] = {}
    came = asyncio.Event()

    def note(message: MQTTMessage) -> None:
        if message.retain:
            found[message.topic] = bytes(message.payload)
        came.set()

    client.on_received(note)
    client.on_lost(came.set)
    for name in names:
        await client.subscribe(name, qos=1)
    while True:
        came.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await came.wait()
        if client.lost is not None:
            raise aiomqtt.MqttError(in_words(client.lost))
        # On a machine that stood still, the time is over and messages have come at once.
        if not came.is_set():
            return found


async def _join(client: Client, broker: BrokerAddress, name: str) -> None:
    """Subscribe; the broker delivers nothing of what it does not let us read. Raises BrokerRefused."""
    for answer in await client.subscribe(name, qos=1):
        if isinstance(answer, ReasonCode) and answer.is_failure:
            raise BrokerRefused(f"{broker} does not let us read {name}: {in_words_of(answer)}")
