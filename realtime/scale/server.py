"""One server of a group: estimates for the streams of many edges, in batches."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import aiomqtt

from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.untrusted import shown
from realtime.messages.estimate import Estimate
from realtime.messages.topics import EMOTION, PERSON
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import payload_of
from realtime.mqtt.connection import properties_of
from realtime.pipeline.pipeline import LATENCIES_KEPT
from realtime.recognition.shared_engine import MOST
from realtime.scale import topics
from realtime.scale.link import keep_connected, side_by_side
from realtime.scale.served import Estimator, ServedStreams, WaitingWindow

logger = logging.getLogger(__name__)

DEADLINE_S: Final = 0.02
"""Time that a batch is held open after its first window came, unless it is full before.

A SharedEngine holds none open. Here many streams are carried, and what counts is how many a core carries: a window in a
batch of four takes a quarter less of it than a batch of one. By these costs the wait saves a sixth of the engine's time
at a hundred windows a second, for 20 ms beside the way through the network. A server that is always busy finds its next
batch waiting and past its deadline: it then takes what waits, as a SharedEngine does.
"""


@dataclass(slots=True)
class ServeStatistics:
    """Figures of a server, told when it ends."""

    batches: Counter[int] = field(default_factory=Counter)
    held_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    busy_s: float = 0.0
    """Time spent in batches."""

    @property
    def estimates(self) -> int:
        return sum(size * count for size, count in self.batches.items())


class Pressure:
    """Tells when windows come faster than they are estimated, and when that is over.

    A newer window of a stream takes the place of the one that waits: each stream then has fewer estimates, none of them
    later than before.
    """

    EVERY_S: Final = 10.0
    SHARE: Final = 0.05
    """Part of the windows that newer ones overtook: more of them than now and then."""

    def __init__(self) -> None:
        self._begun_s: float | None = None
        self._windows = self._overtaken = 0
        self._behind = False

    def told(self, now_s: float, counts: Mapping[str, int]) -> str | None:
        """A line for people, if there is news. counts: `windows` and `overtaken` since the start."""
        if self._begun_s is not None and now_s - self._begun_s < self.EVERY_S:
            return None
        windows, overtaken = counts["windows"] - self._windows, counts["overtaken"] - self._overtaken
        lasted_s = now_s - (self._begun_s or now_s)
        self._begun_s, self._windows, self._overtaken = now_s, counts["windows"], counts["overtaken"]
        behind = overtaken > self.SHARE * windows and lasted_s > 0
        if behind == self._behind or not lasted_s:
            return None
        self._behind = behind
        if not behind:
            return "keeps up again: every stream has an estimate for each of its windows"
        return (
            f"{windows / lasted_s:.0f} windows come a second, more than this server can estimate: "
            f"{overtaken / windows:.0%} are overtaken by newer ones, and the streams have fewer estimates, none later; "
            "start another server"
        )


class Server:
    """One member of a group. `run` until `stop` is set."""

    def __init__(
        self,
        broker: BrokerAddress,
        group: str,
        estimator: Estimator,
        features: Mapping[Modality, FeatureSpec],
        tell: Callable[[str], None],
    ) -> None:
        self.name = secrets.token_hex(6)
        self.streams = ServedStreams(self.name, features)
        self.statistics = ServeStatistics()
        self.stop = asyncio.Event()
        self.joined = asyncio.Event()
        """Set while the group has us."""
        self._broker = broker
        self._group = group
        self._estimator = estimator
        self._tell = tell
        self._came = asyncio.Event()
        """Set by each message, which may have brought a window."""
        self._told: set[str] = set()
        self._pressure = Pressure()

    async def run(self) -> None:
        """Serve until stopped, whatever the broker does. Raises BrokerRefused."""
        will = aiomqtt.Will(topics.PRESENCE.at(server=self.name), topics.GONE, qos=1)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine") as thread:

            async def join(client: aiomqtt.Client) -> None:
                self.streams.clear()
                await client.subscribe(topics.DIRECTED.at(stream="+", server=self.name))
                await client.subscribe(topics.shared(self._group))
                await client.publish(topics.PRESENCE.at(server=self.name), topics.HERE, qos=1)
                self.joined.set()
                self._tell(f"serving {topics.OPENINGS} on {self._broker}, as {self.name} of the group {self._group}")
                try:
                    await self._serve(client, thread)
                finally:
                    self.joined.clear()

            await keep_connected(self._broker, join, self.stop, will)

    async def _serve(self, client: aiomqtt.Client, thread: ThreadPoolExecutor) -> None:
        """Serve until stopped. Raises MqttError when the broker goes away."""
        async with side_by_side(self.stop, self._read(client), self._batches(client, thread)) as first_ended:
            await first_ended()
            # In order: nothing more is handed to us, then everybody may know.
            await client.unsubscribe(topics.shared(self._group))
            await client.publish(topics.PRESENCE.at(server=self.name), topics.GONE, qos=1)

    async def _read(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            reply = self.streams.receive(message.topic.value, payload_of(message))
            if reply is not None:
                topic, payload = reply
                stream = topics.stream_of(topic)
                if topic == topics.REFUSED.at(stream=stream):
                    self._warn(shown(f"{stream}: refused: {payload.decode()}"))
                await client.publish(topic, payload)
            if self.streams.counts["malformed"]:
                self._warn("malformed window messages come; they are counted and dropped")
            self._came.set()

    def _warn(self, line: str) -> None:
        if line not in self._told and len(self._told) < 1000:
            self._told.add(line)
            logger.warning("%s", line)

    async def _batches(self, client: aiomqtt.Client, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._waiting(1)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.streams.waiting_since_s + DEADLINE_S - time.monotonic()):
                    await self._waiting(MOST)
            if not (batch := self.streams.take(MOST)):
                continue  # all of them were late
            begun_s = time.monotonic()
            answers = await loop.run_in_executor(thread, self._estimator.answer, batch)
            self.statistics.busy_s += time.monotonic() - begun_s
            self.statistics.batches[len(answers)] += 1
            if line := self._pressure.told(time.monotonic(), self.streams.counts):
                logger.warning("%s", line)
            made = iter(answers)
            for request in batch:
                await self._publish(client, request, list(itertools.islice(made, len(request.asked))))
            # Only in time that no window needs: under load a share that grows old is told no more.
            while not self.streams.waiting and await loop.run_in_executor(thread, self._estimator.measure):
                pass

    async def _waiting(self, count: int) -> None:
        """Return once so many windows wait. They alone say so: a lost connection takes them along."""
        while self.streams.waiting < count:
            self._came.clear()
            await self._came.wait()

    async def _publish(self, client: aiomqtt.Client, request: WaitingWindow, estimates: Sequence[Estimate]) -> None:
        """Publish a stream's estimate, after those of its people: with it, the edge has them all."""
        own, *people = estimates
        for estimate in (*people, own):
            person = estimate.person
            topic = EMOTION if person is None else PERSON
            properties = properties_of(topic)
            told = [
                ("server", self.name),
                ("session", request.message.incarnation),
                ("window", str(request.message.seq)),
                ("held_ms", f"{(time.monotonic() - request.arrived_s) * 1000:.2f}"),
            ]
            if person is None and people:
                told.append(("people", str(len(people))))
            # paho adds them to those that are there.
            properties.UserProperty = told
            name = topic.at(stream=request.stream, id=str(person))
            await client.publish(name, estimate.model_dump_json().encode(), properties=properties)
        self.statistics.held_ms.append((time.monotonic() - request.arrived_s) * 1000)
