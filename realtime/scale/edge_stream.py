"""One stream's side of the talk with servers: whom the next window goes to, and what is in it. Sends nothing itself."""

from __future__ import annotations

import logging
import math
import random
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dhmd.features.landmarks import MOST_PEOPLE
from dhmd.untrusted import Untrusted, read_json_object, shown
from realtime.messages.estimate import Dropped
from realtime.perception.attention import WHOLE, Attention
from realtime.pipeline.pipeline import LATENCIES_KEPT
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness
from realtime.scale import topics
from realtime.scale.people_log import PeopleLog, PersonWindow
from realtime.scale.window_log import NOTHING, WindowLog
from realtime.scale.window_message import WindowMessage

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 10.0
"""Time that a server may take to answer. One that has died is usually known at once, by its last will."""
FIRST_S: Final = 2.0
LONGEST_S: Final = 16.0
"""Waits for the answer to an opening: they double while there is none."""
RENEWED_S: Final = 60.0
"""A stream is opened again so often, more or less: what the servers carry evens out."""
SPREAD_S: Final = 5.0
"""Streams are opened again within so many seconds after a server comes."""
IN_FLIGHT: Final = 64
MOST_TOLD: Final = 32
SEQ: Final = re.compile(r"[0-9]{1,18}")
HELD_MS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class DueWindow:
    """A window that is due. end_s: on the stream clock. people: where several are followed, those in view."""

    end_s: float
    faces: int
    dropped: Dropped
    timed: bool = True
    attention: Attention = WHOLE
    people: Sequence[PersonWindow] = ()


@dataclass(slots=True)
class EdgeStatistics:
    """Counts of what became of the windows."""

    sent: int = 0
    full: int = 0
    bytes: int = 0
    answered: int = 0
    withheld: int = 0
    """Hops at which the last opening had no answer yet."""
    opened: int = 0
    """Times that a server took the stream."""
    round_trips_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    """Times from sending a window to its estimate."""


class EdgeStream:
    """Driven by its owner in one thread: `window` at each hop, `on_...` for what the broker brings.

    now_s: any steady clock, the same for all calls. stream_now: seconds on the stream clock.
    """

    def __init__(
        self,
        stream: str,
        log: WindowLog,
        epoch_unix: float,
        stream_now: Callable[[], float],
        steadiness: Steadiness = BY_DEFAULT,
    ) -> None:
        self.stream = stream
        self.log = log
        self.incarnation = secrets.token_hex(8)
        self.server: str | None = None
        self.statistics = EdgeStatistics()
        self.last_seq = 0
        """Number of the newest message."""
        self.answered_seq = 0
        self._epoch_unix = epoch_unix
        self._stream_now = stream_now
        self._steadiness = steadiness
        self._mark = NOTHING
        self._people = PeopleLog(log.specs)
        self._opened: tuple[int, float] | None = None
        """Number and time of the opening that waits for an answer."""
        self._again = False
        """Whether to open once more without waiting longer: servers have come or gone since."""
        self._wait_s = FIRST_S
        self._answered_s = 0.0
        self._renewal_s = math.inf
        self._all_due = False
        self._in_flight: OrderedDict[int, tuple[float, int]] = OrderedDict()
        """By number: when it was sent, and of how many people."""
        self._came: OrderedDict[int, list[bytes]] = OrderedDict()
        """Estimates of people, by the number of their window, whose own estimate has yet to come."""
        self._transits_s: deque[float] = deque(maxlen=8)
        self._told: set[str] = set()
        """Lines told since a server answered last."""
        self._refused = False

    def window(self, hop: DueWindow, now_s: float) -> tuple[str, bytes] | None:
        """Topic and payload of the next message; None while an opening waits for its answer."""
        if self.server is not None and self._unanswered and now_s - self._answered_s > PATIENCE_S:
            self._tell(f"server {self.server} does not answer; asking for another")
            self.server = None
        if self.server is not None and now_s >= self._renewal_s:
            self.server = None
        if self.server is None and self._opened is not None and not self._again:
            if now_s - self._opened[1] < self._wait_s:
                self.statistics.withheld += 1
                return None
            self._wait_s = min(LONGEST_S, 2 * self._wait_s)
            if not self._refused:
                self._tell("no server answers; start one: dhmd-live serve --broker URL")
        full = self.server is None or self._all_due
        rows, words, mark = self.log.since(NOTHING if full else self._mark, hop.end_s)
        seq = self.last_seq + 1
        message = WindowMessage(
            incarnation=self.incarnation,
            seq=seq,
            previous=None if full else self.last_seq,
            features=self.log.specs if full else None,
            epoch_unix=self._epoch_unix,
            end_s=hop.end_s,
            sent_s=self._stream_now(),
            transit_s=min(self._transits_s, default=0.0),
            timed=hop.timed,
            rows=rows,
            words=words,
            faces=hop.faces,
            dropped=hop.dropped,
            attention=hop.attention,
            steadiness=self._steadiness,
            people=self._people.since_last(hop.people, everything=full),
        )
        if self.server is None:
            self._opened, self._again = (seq, now_s), False
            topic = topics.WINDOW.at(stream=self.stream)
        else:
            if not self._unanswered:
                self._answered_s = now_s
            topic = topics.DIRECTED.at(stream=self.stream, server=self.server)
        self.last_seq, self._mark, self._all_due = seq, mark, False
        self._in_flight[seq] = now_s, len(hop.people)
        while len(self._in_flight) > IN_FLIGHT:
            self._in_flight.popitem(last=False)
        payload = message.encode()
        self.statistics.sent += 1
        self.statistics.full += full
        self.statistics.bytes += len(topic) + len(payload)
        return topic, payload

    @property
    def heard_by_nobody(self) -> bool:
        """Whether the newest message has gone to a server that cannot use it, or is there no more."""
        return self._all_due or (self.server is None and (self._opened is None or self._again))

    @property
    def _unanswered(self) -> bool:
        return self.answered_seq < self.last_seq

    def on_answer(self, properties: Mapping[str, str], now_s: float) -> bool:
        """Take in that an estimate has come, by its user properties; whether it is for a window of this incarnation."""
        server, held_ms = properties.get("server", ""), properties.get("held_ms", "")
        if properties.get("session") != self.incarnation or not SEQ.fullmatch(properties.get("window", "")):
            return False
        seq = int(properties["window"])
        if self._opened is not None and seq == self._opened[0] and server:
            self.server, self._opened = server, None
            self._wait_s, self._refused = FIRST_S, False
            self._told.clear()
            self._renewal_s = now_s + RENEWED_S * random.uniform(0.75, 1.25)
            self.statistics.opened += 1
        if server == self.server:
            self.answered_seq = max(self.answered_seq, seq)
            self._answered_s = now_s
        if (sent := self._in_flight.pop(seq, None)) is not None:
            sent_s, people = sent
            if people and "people" not in properties:
                self._tell(shown(f"server {server} is of an older version and estimates no people; update it"))
            self.statistics.answered += 1
            self.statistics.round_trips_ms.append((now_s - sent_s) * 1000)
            if HELD_MS.fullmatch(held_ms):
                self._transits_s.append(max(0.0, now_s - sent_s - float(held_ms) / 1000) / 2)
        return True

    def on_person(self, properties: Mapping[str, str], payload: bytes) -> None:
        """Take in the estimate of a person; that of their stream comes after those of its people."""
        seq = properties.get("window", "")
        if properties.get("session") == self.incarnation and SEQ.fullmatch(seq) and int(seq) in self._in_flight:
            of_window = self._came.setdefault(int(seq), [])
            if len(of_window) < MOST_PEOPLE:
                of_window.append(payload)

    def people_of(self, properties: Mapping[str, str]) -> Sequence[bytes]:
        """Hand out the estimates of the people of a window that is answered; those of windows before it are over."""
        seq = int(properties["window"])
        while self._came and (oldest := next(iter(self._came))) < seq:
            del self._came[oldest]
        return self._came.pop(seq, ())

    def on_presence(self, server: str, state: bytes, now_s: float) -> None:
        """A server has come, or has gone."""
        if state == topics.GONE and server == self.server:
            self._lose()
        elif state in {topics.HERE, topics.GONE} and self.server is None:
            # One that has gone may be the one that was asked; but the answer may also be on its way.
            self._again, self._wait_s = True, FIRST_S
        elif state == topics.HERE:
            self._renewal_s = min(self._renewal_s, now_s + random.uniform(0.0, SPREAD_S))

    def on_resync(self, payload: bytes) -> None:
        """The server misses rows: the next message brings them all."""
        asked = _read(payload)
        if asked.get("session") == self.incarnation and asked.get("server") == self.server:
            self._all_due = True

    def on_refused(self, payload: bytes) -> None:
        """A server does not take this stream; another may."""
        asked = _read(payload)
        if asked.get("session") == self.incarnation:
            self._refused = True
            self._tell(shown(f"server {asked.get('server')} refuses this stream: {asked.get('reason')}"))
            if asked.get("server") == self.server:
                self.server = None

    def reconnected(self) -> None:
        """Open the stream again: what was said while the broker was away was heard by nobody."""
        self._lose()

    def _lose(self) -> None:
        self.server, self._opened, self._wait_s = None, None, FIRST_S

    def _tell(self, line: str) -> None:
        if line not in self._told and len(self._told) < MOST_TOLD:
            logger.warning("%s: %s", self.stream, line)
            self._told.add(line)


def _read(payload: bytes) -> dict[str, str]:
    try:
        told = read_json_object(payload)
    except Untrusted:
        return {}
    return {name: shown(str(value)) for name, value in told.items()}
