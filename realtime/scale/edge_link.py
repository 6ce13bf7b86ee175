"""The connection of edge streams to those who serve."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import aiomqtt

from realtime.messages.topics import EMOTION, PERSON
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import payload_of
from realtime.scale import topics
from realtime.scale.edge_stream import DueWindow, EdgeStream
from realtime.scale.link import keep_connected, side_by_side, user_properties

FAREWELL_S: Final = 1.0
"""Time that the last windows may take to be answered."""


class EdgeLink:
    """The connection of edge streams: sends each stream's newest window, and hands them what comes back.

    on_estimate: told of each estimate of the streams, with its stream and payload. on_person: likewise of those of
    their people, which follow that of their stream; None: several are not followed.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        streams: Sequence[EdgeStream],
        on_estimate: Callable[[str, bytes], None],
        on_person: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        """Set while the broker is there."""
        self.missed = 0
        """Windows that found no broker, or were overtaken before they were sent."""
        self._broker = broker
        self._streams: Mapping[str, EdgeStream] = {stream.stream: stream for stream in streams}
        self._on_estimate, self._on_person = on_estimate, on_person
        self._due: dict[str, DueWindow] = {}
        self._wake, self._answered = asyncio.Event(), asyncio.Event()

    def offer(self, stream: str, hop: DueWindow) -> None:
        """A window is due. Never waits: it is sent, or a newer one takes its place."""
        if not self.ready.is_set() or stream in self._due:
            self.missed += 1
        if self.ready.is_set():
            self._due[stream] = hop
            self._wake.set()

    async def run(self) -> None:
        """Keep connected until stopped, whatever the broker does. Raises BrokerRefused."""
        await keep_connected(self._broker, self._use, self.stop)

    async def answer(self, stream: EdgeStream, within_s: float) -> bool:
        """Wait for the estimate of a stream's newest window; whether it came. False at once where none can come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while stream.stream in self._due or stream.answered_seq < stream.last_seq:
                    if stream.stream not in self._due and stream.heard_by_nobody:
                        break
                    self._answered.clear()
                    await self._answered.wait()
                else:
                    return True
        return False

    async def _use(self, client: aiomqtt.Client) -> None:
        wanted = [topics.SERVERS]
        for name in self._streams:
            wanted += [topic.at(stream=name) for topic in (EMOTION, topics.RESYNC, topics.REFUSED)]
            if self._on_person is not None:
                wanted.append(PERSON.at(stream=name, id="+"))
        await client.subscribe([(topic, 0) for topic in wanted])
        for stream in self._streams.values():
            stream.reconnected()
        self.ready.set()
        async with side_by_side(self.stop, self._send(client), self._listen(client)) as first_ended:
            try:
                await first_ended()
            finally:
                self.ready.clear()
                self._due.clear()

    async def _send(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                name = next(iter(self._due))
                message = self._streams[name].window(self._due.pop(name), loop.time())
                if message is not None:
                    await client.publish(*message)

    async def _listen(self, client: aiomqtt.Client) -> None:
        loop = asyncio.get_running_loop()
        async for message in client.messages:
            topic, payload = message.topic.value, payload_of(message)
            if message.topic.matches(topics.SERVERS):
                for stream in self._streams.values():
                    stream.on_presence(topic.rpartition("/")[2], payload, loop.time())
                self._answered.set()
                continue
            name = topics.stream_of(topic)
            owner = self._streams.get(name)
            if owner is None:
                continue
            if topic == EMOTION.at(stream=name):
                self._take(owner, user_properties(message), payload)
            elif message.topic.matches(PERSON.at(stream=name, id="+")):
                owner.on_person(user_properties(message), payload)
            elif topic == topics.RESYNC.at(stream=name):
                owner.on_resync(payload)
                self._answered.set()
            elif topic == topics.REFUSED.at(stream=name):
                owner.on_refused(payload)

    def _take(self, owner: EdgeStream, properties: Mapping[str, str], payload: bytes) -> None:
        """Take an estimate, and those of people that came before it."""
        if not owner.on_answer(properties, asyncio.get_running_loop().time()):
            return
        self._answered.set()
        self._on_estimate(owner.stream, payload)
        if self._on_person is not None:
            for person in owner.people_of(properties):
                self._on_person(owner.stream, person)


@contextlib.asynccontextmanager
async def linked(link: EdgeLink) -> AsyncIterator[None]:
    """Keep a link connected for as long as the context lasts. Raises BrokerRefused, in a group."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.run(), name="windows")
        try:
            yield
        finally:
            link.stop.set()
            await asyncio.wait({task}, timeout=FAREWELL_S)
            task.cancel()
