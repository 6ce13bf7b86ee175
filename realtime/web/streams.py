"""All streams of a broker as one page shows them: what each says now, and what it has said in the last hour."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

import aiomqtt
from starlette.websockets import WebSocket

from dhmd.untrusted import shown
from realtime.errors import SettingsInvalid
from realtime.messages.stream import Compact, StreamStatus, WorkerReport
from realtime.messages.topics import COMPACT, STATUS, WORKER, check_stream_name
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import parsed, payload_of, received
from realtime.web.protocol import REFUSED

logger = logging.getLogger(__name__)

MOST_STREAMS: Final = 256
"""Streams that are followed; others are told of once."""
MOST_WORKERS: Final = 16
LONGEST_STATUS: Final = 20
READ_EVERY_S: Final = 0.2
"""Estimates of one stream that come faster are passed over."""
TELL_EVERY_S: Final = 0.5
SLOT_S: Final = 10.0
HOUR: Final = 360
"""Slots of the history."""

Slot = tuple[str | None, float, float | None]
"""The emotion named most often in it, its mean probability, and mean valence."""


@dataclass(slots=True)
class Followed:
    """One stream as far as it is known."""

    status: str | None = None
    newest: Compact | None = None
    heard_s: float | None = None
    """When the newest estimate came, unix."""
    workers: dict[str, WorkerReport] = field(default_factory=dict)
    hour: deque[Slot] = field(default_factory=lambda: deque(maxlen=HOUR))
    """Up to the slot that is over."""
    _slot: list[Compact] = field(default_factory=list)
    """What came since the slot before."""
    _told: dict[str, Any] | None = None
    """What pages are told of it now; None where that has changed, and nobody has asked."""

    def take(self, said: Compact, now_s: float) -> None:
        self.newest, self.heard_s = said, now_s
        self._slot.append(said)

    def close_slot(self) -> Slot:
        """Put what came since the slot before into the history."""
        slot: Slot = (None, 0.0, None)
        if self._slot:
            ((most, _),) = Counter(said.e for said in self._slot).most_common(1)
            sure = [said.p or 0.0 for said in self._slot if said.e == most]
            valences = [said.va for said in self._slot if said.va is not None]
            slot = (most, round(fmean(sure), 2), round(fmean(valences), 2) if valences else None)
        self.hour.append(slot)
        self._slot.clear()
        return slot

    def changed(self) -> None:
        """Note that what is told of it is no longer so."""
        self._told = None

    def told(self) -> dict[str, Any]:
        """Return what pages are told of it now: the same object for all, until it changes."""
        if self._told is None:
            newest = None if self.newest is None else self.newest.model_dump(exclude={"v", "n"})
            workers = {name: [one.state.value, one.reason[:200]] for name, one in self.workers.items()}
            self._told = {"status": self.status, "heard": self.heard_s, "newest": newest, "workers": workers}
        return self._told


class Streams:
    """Follows all streams of a broker, for as many pages as look. An audience of a page's server, too."""

    def __init__(self, broker: BrokerAddress) -> None:
        self.broker = str(broker)
        self._address = broker
        self._followed: dict[str, Followed] = {}
        self._slots = 0
        self.connected = self._told_full = False
        self._over = asyncio.Event()

    async def follow(self) -> None:
        """Listen until cancelled. Raises BrokerRefused where trying again would not help."""
        names = [topic.at(stream="+", worker="+") for topic in (COMPACT, STATUS, WORKER)]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_slots())
            async with aclosing(received(self._address, names, self._on_connected, self._on_away)) as messages:
                async for message in messages:
                    self._take(message)

    def _on_connected(self) -> None:
        self.connected = True

    def _on_away(self) -> None:
        self.connected = False

    async def _keep_slots(self) -> None:
        begun_s = time.monotonic()
        while True:
            self._slots += 1
            await asyncio.sleep(begun_s + self._slots * SLOT_S - time.monotonic())
            for one in self._followed.values():
                one.close_slot()

    def _take(self, message: aiomqtt.Message) -> None:
        _, stream, *levels = message.topic.value.split("/")
        if (one := self._of(stream)) is None:
            return
        try:
            self._told_by(one, [shown(level) for level in levels], message)
        except ValueError:
            logger.debug("%s: not what dhmd publishes; left out", shown(message.topic.value))
        one.changed()
        if one.status is None and one.newest is None:
            del self._followed[stream]  # it is forgotten, or has never been one

    def _told_by(self, one: Followed, levels: list[str], message: aiomqtt.Message) -> None:
        """Take in what a message says of a stream; an empty one takes back. Raises ValueError."""
        payload, now_s = payload_of(message), time.time()
        match levels:
            case ["emotion", "compact"]:
                if one.heard_s is None or not 0 <= now_s - one.heard_s < READ_EVERY_S:
                    one.take(parsed(message, Compact), now_s)
            case ["status"]:
                status = payload[:LONGEST_STATUS].decode(errors="replace")
                one.status = StreamStatus.model_validate(status).root if payload else None
            case ["status", worker] if not payload:
                one.workers.pop(worker, None)
            case ["status", worker] if worker in one.workers or len(one.workers) < MOST_WORKERS:
                one.workers[worker] = parsed(message, WorkerReport)

    def _of(self, stream: str) -> Followed | None:
        if stream in self._followed:
            return self._followed[stream]
        try:
            check_stream_name(stream)
        except SettingsInvalid:
            return None
        if len(self._followed) >= MOST_STREAMS:
            if not self._told_full:
                logger.warning(
                    "%s has more than %d streams; the page shows those that came first", self.broker, MOST_STREAMS
                )
            self._told_full = True
            return None
        self._followed[stream] = Followed()
        return self._followed[stream]

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield server-sent events: `hours` at first, then `slot` when one is over and `now` when something changed."""
        hours = {name: list(one.hour) for name, one in self._followed.items()}
        yield _event("hours", {"broker": self.broker, "slot_s": SLOT_S, "slots": HOUR, "hours": hours})
        slots, connected, told = self._slots, None, dict[str, dict[str, Any]]()
        while not self._over.is_set():
            if slots != self._slots:
                slots = self._slots
                yield _event("slot", {name: one.hour[-1] for name, one in self._followed.items() if one.hour})
            now = {name: one.told() for name, one in self._followed.items()}
            changed = {name: one for name, one in now.items() if told.get(name) is not one}
            gone = [name for name in told if name not in now]
            if changed or gone or connected != self.connected:
                connected, told = self.connected, now
                yield _event("now", {"connected": connected, "t": time.time(), "streams": changed, "gone": gone})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), TELL_EVERY_S)
        yield _event("ended", {})

    async def attend(self, socket: WebSocket) -> None:
        """Refuse: this page asks for events alone."""
        await socket.close(REFUSED, "streams are told of as events; load the page again")

    def end(self) -> None:
        self._over.set()


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
