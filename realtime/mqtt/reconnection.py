"""Coming back to a broker: how long to wait between attempts, what is told of it, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiomqtt

from realtime.mqtt.aiomqtt_hooks import MOST_TAKEN
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import Client, connect, new_identifier, reach
from realtime.mqtt.reasons import Untrusted, in_words, refusal
from realtime.workers import Backoff

logger = logging.getLogger(__name__)

LOST: Final = (aiomqtt.MqttError, OSError)
"""Errors by which a connection, or the attempt at one, ends when the broker is away."""
BACKOFF: Final = Backoff(first_s=0.25, cap_s=2.0)
STABLE_S: Final = 5.0
"""A connection that lasted so long was a good one: when it is lost, that is news, and the waits begin anew."""


class Reconnection:
    """The connections that one client has to a broker, one after the other.

    again = Reconnection(broker, stop=stop)
    while not stop.is_set():
        try:
            async with again.connected() as client:
                ...
        except LOST as error:
            await again.after(error)
    """

    def __init__(
        self,
        broker: BrokerAddress,
        will: aiomqtt.Will | None = None,
        *,
        largest: int = MOST_TAKEN,
        meanwhile: str = "trying again",
        stop: asyncio.Event | None = None,
    ) -> None:
        """Take what every connection is made with: see `connect`.

        meanwhile: told beside the reason when the broker is away. stop: ends waits.
        """
        self._broker, self._will, self._largest = broker, will, largest
        self._meanwhile = meanwhile
        self.identifier = new_identifier()
        """The same for all connections: where the broker has not noticed that one is lost, the next takes its place."""
        self._stop = stop or asyncio.Event()
        self._since_s: float | None = None
        """Time at which the newest attempt was accepted; None when it was not."""
        self._ever_accepted = False
        self._failures = 0
        self._told = False

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """Connect for as long as the context lasts. Raises one of LOST."""
        self._since_s = None
        await reach(self._broker)
        async with connect(self._broker, self._will, largest=self._largest, identifier=self.identifier) as client:
            self._since_s, self._ever_accepted = time.monotonic(), True
            yield client

    async def after(self, error: Exception, on_away: Callable[[], None] = lambda: None) -> None:
        """Wait as long as is due after a loss, once that is told and `on_away` called; not at all once stopped.

        Raises BrokerRefused where trying again would not help.
        """
        # A certificate may be renewed while we run; at the start it is the request that is wrong.
        refused = refusal(self._broker, error)
        if refused and not (isinstance(error, Untrusted) and self._ever_accepted):
            raise refused from error
        if self._since_s is not None and time.monotonic() - self._since_s > STABLE_S:
            self._failures, self._told = 0, False
        if not self._told:
            logger.warning("broker %s is away (%s); %s", self._broker, in_words(error), self._meanwhile)
        self._told = True
        self._failures += 1
        on_away()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), BACKOFF.wait_s(self._failures))
