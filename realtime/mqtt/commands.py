"""Commands to a stream, from `dhmd/STREAM/set/...`: read, carried out one at a time, and answered.

Whatever comes, nothing is raised: what cannot be carried out is answered, what comes too often or was kept for later is
counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol, cast

from paho.mqtt.client import MQTTMessage
from pydantic import ValidationError
from pydantic_core import from_json

from dhmd.yaml_config import explain
from realtime.allowance import Allowance
from realtime.errors import CommandRefused
from realtime.messages.commands import LARGEST, Answer, Command, CommandName
from realtime.messages.topics import COMMANDS, RESPONSE
from realtime.mqtt.publisher import Publisher

logger = logging.getLogger(__name__)

RATE_HZ: Final = 5.0
BURST: Final = 10.0
"""Commands that are listened to: so many a second, and at once."""
WAITING: Final = 8
LONGEST_TOPIC: Final = 200
LONGEST_CORRELATION: Final = 256
"""Bytes of what a caller knows an answer by, at most."""
LONGEST_REASON: Final = 200
"""Characters of an answer's reason, at most."""


class Carrier(Protocol):
    """Carries out commands."""

    async def carry_out(self, command: Command, received_s: float, /) -> str:
        """Returns what is so now. received_s: on the monotonic clock. Raises CommandRefused."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it came, and where its answer goes."""

    name: str
    payload: bytes
    respond_to: str
    correlation: bytes | None
    received_s: float


@contextlib.asynccontextmanager
async def taking_commands(publisher: Publisher, carrier: Carrier) -> AsyncIterator[None]:
    """Take commands for as long as the context lasts; the one that is being carried out at its end is waited for."""
    commands = Commands(publisher, carrier)
    publisher.listen(f"{publisher.base}/set/+", commands.receive)
    task = asyncio.create_task(commands.run(), name="commands")
    try:
        yield
    finally:
        commands.close()
        await asyncio.wait({task})
        await carrier.close()


class Commands:
    """The commands of one stream. Lives in the event loop."""

    def __init__(self, publisher: Publisher, carrier: Carrier) -> None:
        self.ignored = 0
        """Commands that were not even answered."""
        self._publisher = publisher
        self._carrier = carrier
        self._allowance = Allowance(RATE_HZ, BURST)
        self._waiting: deque[Request] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    def receive(self, message: MQTTMessage) -> None:
        """Take a message from the broker."""
        now_s = time.monotonic()
        if self._closing or not self._allowance.takes(now_s):
            self.ignored += 1
            return
        name = message.topic.rpartition("/")[2]
        request = Request(name, bytes(message.payload), *self._return_address(message), now_s)
        if message.retain:
            # Under MQTT 5 it says that it is to be kept; under 3.1.1 it was, for who knows how long. An empty one
            # removes what was kept.
            if message.properties is None or not message.payload:
                self.ignored += 1
            else:
                self._answer(request, "a command is not carried out if it is to be retained; leave that out")
        elif len(self._waiting) >= WAITING:
            self._answer(request, "too many commands wait already")
        else:
            self._waiting.append(request)
            self._wake.set()

    async def run(self) -> None:
        """Carry out one after the other until `close`."""
        while not self._closing:
            self._wake.clear()
            while self._waiting and not self._closing:
                request = self._waiting.popleft()
                try:
                    command = read(request.name, request.payload)
                    done = await self._carrier.carry_out(command, request.received_s)
                except CommandRefused as refusal:
                    self._answer(request, str(refusal))
                except Exception:
                    logger.exception("command %s failed", request.name)
                    self._answer(request, "it failed here")
                else:
                    logger.info("command %s: %s", request.name, done)
                    self._answer(request, done, ok=True)
            if not self._closing:
                await self._wake.wait()

    def close(self) -> None:
        """Take no more; `run` then returns."""
        self._closing = True
        self._wake.set()

    def _return_address(self, message: MQTTMessage) -> tuple[str, bytes | None]:
        """Returns where the answer goes, and with what: nobody is lent our right to publish on other topics."""
        usual = f"{self._publisher.base}/{RESPONSE.levels}"
        wanted = getattr(message.properties, "ResponseTopic", usual)
        correlation = getattr(message.properties, "CorrelationData", None)
        if correlation is not None and len(correlation) > LONGEST_CORRELATION:
            correlation = None
        below = wanted == usual or wanted.startswith(f"{usual}/")
        fits = below and len(wanted.encode()) <= LONGEST_TOPIC and wanted.isprintable() and not set(wanted) & set("+#")
        return wanted if fits else usual, correlation

    def _answer(self, request: Request, reason: str, *, ok: bool = False) -> None:
        answer = Answer(
            command=cast("CommandName", request.name) if request.name in COMMANDS else None,
            ok=ok,
            reason=reason if len(reason) <= LONGEST_REASON else f"{reason[: LONGEST_REASON - 3]}...",
            id=_id_of(request.payload),
            ignored=self.ignored,
        )
        self._publisher.respond(request.respond_to, answer.model_dump_json().encode(), request.correlation)


def read(name: str, payload: bytes) -> Command:
    """Read the command that a message holds. Raises CommandRefused."""
    if (topic := COMMANDS.get(name)) is None:
        raise CommandRefused(f"there is no such command; there are {', '.join(COMMANDS)}")
    if len(payload) > LARGEST:
        raise CommandRefused(f"larger than {LARGEST} bytes")
    try:
        return cast("Command", topic.payload.model_validate_json(payload))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise CommandRefused("not JSON") from None
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise CommandRefused(f"{where}{explain(first)}") from None


def _id_of(payload: bytes) -> str | None:
    """Returns what a caller gave to know the answer by, from whatever came."""
    if len(payload) > LARGEST:
        return None
    try:
        whole = from_json(payload)
    except ValueError:
        return None
    given = whole.get("id") if isinstance(whole, dict) else None
    return given if isinstance(given, str) and len(given) <= 64 else None
