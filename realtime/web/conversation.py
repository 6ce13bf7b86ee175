"""Exchange between one visitor's page and its session over one WebSocket, from `hello` to the end."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, OrderedDict
from typing import Final

from starlette.websockets import WebSocket

from realtime.allowance import Allowance
from realtime.clock import PeerClock
from realtime.web.pages import Page, hello, message
from realtime.web.protocol import (
    MALFORMED,
    SUPERSEDED,
    TEXTS_HZ,
    Join,
    NotTaken,
    PageText,
    Play,
    Pong,
    SentPicture,
    SentSound,
    read_binary,
    read_text,
)
from realtime.web.visits import Visit, Visits

PageMessage = PageText | SentPicture | SentSound
Refusal = tuple[str, str]
"""What was not taken, and why."""

MOST_MALFORMED: Final = 20
"""Messages that are none, or come before their time, after which a page is listened to no longer."""
BEGUN_A_MINUTE: Final = 12.0
"""Sessions that one address may begin: each loads an extractor of faces."""
MOST_ADDRESSES: Final = 1024
PING_EVERY_S: Final = 2.0
FIRST_PINGS_S: Final = (0.05, 0.1, 0.2)
TELL_EVERY_S: Final = 1.0


class Visitors:
    """The audience of a page that reads whoever opens it."""

    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._begun: OrderedDict[str, Allowance] = OrderedDict()
        """By address: the sessions that it may still begin. The address that came longest ago makes room."""

    async def attend(self, socket: WebSocket) -> None:
        """Serve one page until it leaves."""
        host = socket.client.host if socket.client is not None else ""
        begun = self._begun.pop(host, None) or Allowance(BEGUN_A_MINUTE / 60, BEGUN_A_MINUTE)
        self._begun[host] = begun
        while len(self._begun) > MOST_ADDRESSES:
            self._begun.popitem(last=False)
        await Conversation(self._visits, socket, begun).run()

    def events(self) -> None:
        """Return nothing: there are as many streams as visitors."""

    def end(self) -> None:
        self._visits.end()


class Conversation:
    """Checks what the page says, counts what is not taken, and hands the rest to the visit."""

    def __init__(self, visits: Visits, socket: WebSocket, begun: Allowance) -> None:
        self._visits = visits
        self._begun = begun
        self._socket = socket
        self._page = Page()
        self._clock = PeerClock()
        self._texts = Allowance(TEXTS_HZ, 2 * TEXTS_HZ)
        self._asked: dict[int, float] = {}
        self._malformed = 0
        self._refused: Counter[Refusal] = Counter()
        self._next: asyncio.Task[PageMessage | None] | None = None

    async def run(self) -> None:
        """Talk until the page is gone, or is sent away. A page may join, leave, and join again."""
        visits, page = self._visits, self._page
        page.tell(hello("browser", marking=False, **visits.described()))
        forever, visited = asyncio.Event(), False
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(page.send(self._socket))
                while (heard := await self._hear(forever)) is not None:
                    if not isinstance(heard, Join):
                        # After a visit, what was on its way while it ended.
                        if not visited:
                            await self._out_of_place("text", "before join")
                        continue
                    visit = await visits.join(heard.session, self._begun)
                    if isinstance(visit, str):
                        page.tell(message("full", {"reason": visit}))
                    else:
                        await self._attend(visit, resumed=visit.id == heard.session)
                        visited = True
                    del visit  # with all its models, while the page decides whether to join again
                sending.cancel()
        finally:
            if self._next is not None:
                self._next.cancel()

    async def _attend(self, visit: Visit, *, resumed: bool) -> None:
        """Talk for one visit, until it is over or the page is gone."""
        joined = {"session": visit.id, "stream": visit.stream, "hop": self._visits.hop_s, "resumed": resumed}
        with visit.connected(self._page) as vacated, visit.feed.page(self._page):
            self._page.tell(message("joined", joined))
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._keep_time(visit)),
                    group.create_task(self._tell_refusals(visit)),
                    group.create_task(self._give_way(vacated)),
                ]
                while (heard := await self._hear(visit.over)) is not None:
                    await self._pass_on(visit, heard)
                for task in tasks:
                    task.cancel()
        if visit.over.is_set():
            self._page.tell(message("ended", {"reason": visit.why_over}))

    async def _pass_on(self, visit: Visit, heard: PageMessage) -> None:
        match heard:
            case Pong():
                if (asked_s := self._asked.pop(heard.id, None)) is not None:
                    self._clock.exchange(asked_s, heard.t, visit.clock.now())
                    self._page.tell(message("clock", {"offset": self._clock.offset_s, "rtt": self._clock.rtt_s}))
            case SentPicture() if self._clock.known:
                visit.on_picture(heard.jpeg, self._clock.ours(heard.captured_s))
            case SentSound() if self._clock.known:
                visit.on_sound(heard.samples, self._clock.ours(heard.captured_s))
            case SentPicture() | SentSound():
                await self._out_of_place(heard.what, "before the clocks were compared")
            case Join() | Play():
                await self._out_of_place("text", "not now")
            case _:
                visit.on_asked(heard)

    async def _hear(self, until: asyncio.Event) -> PageMessage | None:
        """Return what the page says next; None once `until` is set, or the page is gone or sent away."""
        if self._next is None:
            self._next = asyncio.create_task(self._receive())
        ended = asyncio.create_task(until.wait())
        await asyncio.wait({self._next, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if until.is_set() or not self._next.done():
            return None
        heard = self._next.result()
        if heard is not None:
            self._next = None
        return heard

    async def _receive(self) -> PageMessage | None:
        """Return the next well-formed message within the rate."""
        while (received := await self._socket.receive())["type"] == "websocket.receive":
            try:
                if (text := received.get("text")) is None:
                    return read_binary(received["bytes"])
                if self._texts.takes(time.monotonic()):
                    return read_text(text)
                self._refused["text", f"more than {TEXTS_HZ:g} messages a second"] += 1
            except NotTaken as error:
                await self._out_of_place(error.what, error.reason)
        return None

    async def _out_of_place(self, what: str, reason: str) -> None:
        self._refused[what, reason] += 1
        self._malformed += 1
        if self._malformed == MOST_MALFORMED:
            await self._socket.close(MALFORMED, "this page says what it may not; load it again")

    async def _keep_time(self, visit: Visit) -> None:
        """Ask the page for its time: at once and often at first, then now and then."""
        waits = itertools.chain(FIRST_PINGS_S, itertools.repeat(PING_EVERY_S))
        for number, wait_s in enumerate(waits):
            self._asked[number] = visit.clock.now()
            self._asked.pop(number - 8, None)
            self._page.tell(message("ping", {"id": number}))
            await asyncio.sleep(wait_s)

    async def _tell_refusals(self, visit: Visit) -> None:
        told: Counter[Refusal] = Counter()
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            counts = self._refused + visit.refused()
            for (what, reason), count in (counts - told).items():
                self._page.tell(
                    message("refused", {"what": what, "reason": reason, "count": told[what, reason] + count})
                )
            told = counts

    async def _give_way(self, vacated: asyncio.Event) -> None:
        await vacated.wait()
        await self._socket.close(SUPERSEDED, "this session continues in another page")
