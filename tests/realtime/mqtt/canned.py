"""A stream of canned estimates, and what is seen of it from outside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from realtime.messages.topics import EMOTION
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import connect
from realtime.mqtt.publisher import Publisher, publishing
from tests.realtime.waiting import PATIENCE_S

HOP_S = 0.1


class Stream:
    """Canned estimates, ten a second, and when the connection came and went."""

    def __init__(self, address: BrokerAddress, claim: Literal["ask", "take"] | None = None) -> None:
        self.seq = 0
        self.states: list[tuple[float, str]] = []
        self.late_s = 0.0
        """By how much handing over an estimate was late, at most."""
        self.publisher = Publisher(address, "test", lambda state: self.states.append((time.monotonic(), state)), claim)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        async with publishing(self.publisher):
            feeding = asyncio.create_task(self._feed())
            try:
                yield self
            finally:
                feeding.cancel()

    async def _feed(self) -> None:
        due_s = time.monotonic()
        while True:
            self.publisher.publish(EMOTION, json.dumps({"seq": self.seq, "pad": "x" * 1000}).encode())
            self.seq += 1
            due_s += HOP_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            self.late_s = max(self.late_s, time.monotonic() - due_s)

    @property
    def state(self) -> str:
        return self.states[-1][1] if self.states else ""


async def retained(address: BrokerAddress, name: str) -> bytes:
    """What who comes later finds."""
    async with asyncio.timeout(PATIENCE_S), connect(address) as client:
        await client.subscribe(name)
        payload = (await anext(aiter(client.messages))).payload
    assert isinstance(payload, bytes)
    return payload


def numbers(listener: Any) -> list[int]:
    return [estimate["seq"] for estimate in listener.estimates("test")]
