"""Visitors: each has a session, a stream and a place for a while; all share the models and one engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import DHMDError
from dhmd.machine import cores
from realtime.allowance import Allowance
from realtime.capture.browser import BrowserCapture
from realtime.capture.delivery import Delivery
from realtime.clock import StreamClock
from realtime.messages.estimate import Dropped
from realtime.mqtt.publisher import Publisher
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.perception.turns import Turns
from realtime.pipeline.live import run_live
from realtime.pipeline.pipeline import Pipeline
from realtime.recognition.shared_engine import SharedEngine
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness
from realtime.session.recorder import describe
from realtime.web.feed import Feed
from realtime.web.pages import Page, message, steadiness_of, steer
from realtime.web.protocol import (
    LARGEST_PICTURE,
    LONGEST_SOUND_S,
    OLDEST_S,
    PICTURES_HZ,
    SOUND_AHEAD_S,
    SOUND_RATE,
    Choose,
    DeviceState,
    Key,
    Leave,
    Record,
    Steady,
)
from realtime.web.recordings import PageRecording, Recordings
from realtime.workers import WorkerState, WorkerStatus

if TYPE_CHECKING:
    from realtime.metrics.collectors import StreamFigures

logger = logging.getLogger(__name__)

KEPT_S: Final = 30.0
"""How long a session waits for its page to come back."""
STATES: Final = {"on": WorkerState.RUNNING, "paused": WorkerState.PAUSED, "off": WorkerState.FAILED}


Assemble = Callable[[Pipeline, Callable[[], Dropped]], AbstractAsyncContextManager[Publisher | None]]
"""Adds what was asked for to the outputs of a visit, and keeps it open."""


@dataclass(frozen=True, slots=True)
class Common:
    """Parts that all visits share. settings: as recordings are to tell them."""

    engine: SharedEngine
    hop_s: float
    settings: Mapping[str, object]
    recordings: Recordings
    broker: str
    """Where estimates are published, for people; empty where they are not."""
    assemble: Assemble
    steadiness: Steadiness = BY_DEFAULT
    private: bool = False
    """Whether words are told to nobody."""
    turns: Turns = field(default_factory=lambda: Turns(cores()))


class Visit:
    """One visitor's session."""

    def __init__(self, stream: str, extractors: StreamExtractors, common: Common) -> None:
        self._common = common
        self.id = secrets.token_urlsafe(16)
        self.stream = stream
        self.clock = StreamClock()
        self._delivery = Delivery(words=extractors.transcript is not None)
        self.capture = BrowserCapture(self.clock, self._delivery, lambda reason: self.refuse("video", reason))
        self.feed = Feed(stream, pictures=False)
        self.feed.atoms = common.engine.checkpoint.model.atoms
        self.perception = Perception(extractors, common.engine.device, turns=common.turns, private=common.private)
        self.publisher: Publisher | None = None
        self.pipeline = Pipeline(
            self.perception,
            common.engine,
            self.clock,
            stream,
            self._delivery.dropped,
            timed=True,
            steadiness=common.steadiness,
        )
        description = describe(
            common.engine.checkpoint, stream=stream, hop_s=common.hop_s, timed=True, settings=common.settings
        )
        self.recording = PageRecording(
            common.recordings, self.pipeline, description, on_change=self._on_recording, on_marks=self.feed.on_marks
        )
        self.pipeline.outputs.add(self.feed)
        self.pipeline.outputs.add(self.recording)
        self.over = asyncio.Event()
        self.why_over = ""
        self._page: Page | None = None
        self._place: asyncio.Event | None = None
        """Of the page that feeds this session now; set when another one takes it over."""
        self._abandoning: asyncio.TimerHandle | None = None
        self._pictures = Allowance(PICTURES_HZ, PICTURES_HZ)
        self._sound = Allowance(SOUND_RATE, SOUND_AHEAD_S)
        self._refused: Counter[tuple[str, str]] = Counter()
        self._counting = threading.Lock()

    async def run(self) -> None:
        """Run the visit until `leave`."""
        pipeline = self.pipeline
        with self.perception:
            async with self._common.assemble(pipeline, self._delivery.dropped) as self.publisher:
                self._tell_of_devices(WorkerState.STARTING)
                try:
                    await run_live(
                        pipeline,
                        self._delivery,
                        hop_s=self._common.hop_s,
                        duration_s=None,
                        stop=self.over,
                        on_status=pipeline.outputs.on_worker,
                    )
                finally:
                    self._tell_of_devices(WorkerState.ENDED, "stopped")

    def figures(self) -> StreamFigures:
        """Return the figures of the visit for Prometheus."""
        from realtime.metrics.collectors import StreamFigures

        statistics, dropped = self.pipeline.statistics, self._delivery.dropped
        return StreamFigures(self.stream, statistics, dropped, self.pipeline.outputs.workers, self.publisher)

    def leave(self, reason: str) -> None:
        """End the session; the first reason counts."""
        self.why_over = self.why_over or reason
        self.over.set()

    @contextlib.contextmanager
    def connected(self, page: Page) -> Iterator[asyncio.Event]:
        """A page feeds the session for as long as the context lasts; gives what is set when another one takes over."""
        self._page = page
        if self._place is not None:
            self._place.set()
        if self._abandoning is not None:
            self._abandoning.cancel()
        place = self._place = asyncio.Event()
        try:
            yield place
        finally:
            if self._place is place:
                self._place = None
                if not self.over.is_set():
                    self._wait_for_page()

    def _wait_for_page(self) -> None:
        loop = asyncio.get_running_loop()
        self._abandoning = loop.call_later(KEPT_S, self.leave, "its page did not come back")
        self._tell_of_devices(WorkerState.PAUSED, "connection lost; waiting for the page")

    def _tell_of_devices(self, state: WorkerState, reason: str = "") -> None:
        """Tell the page what is true of camera and microphone alike."""
        for kind in ("video", "audio"):
            self.pipeline.outputs.on_worker(WorkerStatus(kind, state, reason))

    def _on_recording(self, state: Mapping[str, Any]) -> None:
        self.feed.on_recording(state)
        if self.over.is_set() and self._page is not None:
            # The page that left still waits for its files.
            self._page.tell(message("recording", dict(state)))

    def on_asked(self, asked: DeviceState | Record | Key | Choose | Steady | Leave) -> None:
        """Do what the visitor asks for."""
        match asked:
            case DeviceState():
                self.on_source(asked)
            case Record():
                self.recording.on_request(asked.on, asked.video, asked.audio, asked.language)
            case Key():
                self.recording.on_key(asked.key)
            case Choose() | Steady():
                steer(self.pipeline, asked)
            case Leave():
                self.leave("this session is over")

    def on_source(self, source: DeviceState) -> None:
        """Take what the page says of its camera or its microphone."""
        if source.kind == "audio" and source.state == "on" and source.rate is not None:
            self.capture.begin_sound(source.rate)
        self.pipeline.outputs.on_worker(WorkerStatus(source.kind, STATES[source.state], source.reason))

    def on_picture(self, jpeg: bytes, captured_s: float) -> None:
        """Take a picture. captured_s: stream time."""
        now_s = self.clock.now()
        if len(jpeg) > LARGEST_PICTURE:
            self.refuse("video", f"larger than {LARGEST_PICTURE // 1024} kB")
        elif not self._pictures.takes(now_s):
            self.refuse("video", f"more than {PICTURES_HZ:g} pictures a second")
        elif captured_s < now_s - OLDEST_S:
            self.refuse("video", "too old")
        else:
            self.capture.put_picture(jpeg, min(captured_s, now_s))

    def on_sound(self, samples: NDArray[np.int16], captured_s: float) -> None:
        """Take sound. captured_s: stream time of the first sample."""
        now_s = self.clock.now()
        if not self.capture.rate_hz:
            self.refuse("audio", "before its rate was told")
        elif (length_s := len(samples) / self.capture.rate_hz) > LONGEST_SOUND_S:
            self.refuse("audio", f"more than {LONGEST_SOUND_S:g} s at once")
        elif not self._sound.takes(now_s, length_s):
            self.refuse("audio", "faster than it can have been said")
        elif captured_s < now_s - OLDEST_S:
            self.refuse("audio", "too old")
        else:
            self.capture.put_sound(samples, min(captured_s, now_s - length_s))

    def refuse(self, what: str, reason: str) -> None:
        """Count what was not taken. Safe between threads."""
        with self._counting:
            self._refused[what, reason] += 1

    def refused(self) -> Counter[tuple[str, str]]:
        """Return how much was not taken so far, by what it was and why."""
        with self._counting:
            return self._refused.copy()


class Visits:
    """All visitors of one server, at most `most` at a time. Lives in the event loop, for as long as its context lasts.

    stream: the visitors' streams are STREAM-1, STREAM-2 and so on; the lowest free number is taken.
    tell: one line for the terminal, when somebody comes or goes. state: publish the flat values of each, too.
    """

    def __init__(
        self, extractors: StreamExtractors, common: Common, *, stream: str, most: int, tell: Callable[[str], None]
    ) -> None:
        self.stream = stream
        self.hop_s = common.hop_s
        self.served = 0
        self._most = most
        self._extractors = extractors
        self._common = common
        self._tell = tell
        self._places: dict[int, Visit | None] = {}
        """By number; None for one that is being made ready."""
        self._running: dict[asyncio.Task[None], Visit] = {}
        self._closing = False

    def described(self) -> dict[str, Any]:
        """Return what a page is told before it joins."""
        return {
            "stream": self.stream,
            "broker": self._common.broker,
            "atoms": self._common.engine.checkpoint.model.atoms,
            "recordable": True,
            "choosing": True,
            "steadiness": steadiness_of(self._common.steadiness),
        }

    async def join(self, session: str | None, begun: Allowance) -> Visit | str:
        """Return the session to continue, or a new one; in words why there is no place. begun: new ones that whoever
        asks may still begin."""
        for visit in self._places.values():
            if visit is not None and session is not None and secrets.compare_digest(visit.id, session):
                return visit
        if self._closing:
            return "the server is closing"
        while len(self._places) >= self._most and (ending := self._ending()):
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        if len(self._places) >= self._most:
            if self._most == 1:
                return (
                    "one person is being read already, as many as this machine can follow; please try again in a while"
                )
            return (
                f"{self._most} people are being read already, as many as this machine can follow; "
                "please try again in a while"
            )
        if not begun.takes(time.monotonic()):
            return "too many sessions were begun from here; please try again in a minute"
        number = next(n for n in range(1, self._most + 1) if n not in self._places)
        self._places[number] = None
        try:
            extractors = await asyncio.to_thread(self._extractors.another)
        except BaseException:
            del self._places[number]
            raise
        visit = Visit(f"{self.stream}-{number}", extractors, self._common)
        self._places[number] = visit
        self.served += 1
        task = asyncio.create_task(self._host(number, visit), name=visit.stream)
        self._running[task] = visit
        task.add_done_callback(self._running.pop)
        return visit

    def _ending(self) -> list[asyncio.Task[None]]:
        """Visits that are over and still tidy up."""
        return [task for task, visit in self._running.items() if visit.over.is_set()]

    async def _host(self, number: int, visit: Visit) -> None:
        """Run one visit; what befalls it befalls no other."""
        self._tell(f"{visit.stream}: a visitor came")
        try:
            await visit.run()
        except* DHMDError as errors:
            visit.leave(str(errors.exceptions[0]))
            logger.warning("%s: %s", visit.stream, visit.why_over)
        except* Exception as errors:
            visit.leave("this session failed on the server; start again")
            logger.exception("%s failed", visit.stream, exc_info=errors)
        finally:
            visit.recording.close()
            del self._places[number]
            statistics = visit.pipeline.statistics
            self._tell(f"{visit.stream}: the visitor left after {statistics.estimates} estimates")

    def figures(self) -> list[StreamFigures]:
        """Return the figures of those that are here, for Prometheus; from any thread."""
        return [visit.figures() for visit in list(self._places.values()) if visit is not None]

    def end(self) -> None:
        """Send everybody home."""
        self._closing = True
        for visit in self._places.values():
            if visit is not None:
                visit.leave("the server is closing")

    async def ended(self) -> None:
        """Wait until all have left."""
        if self._running:
            await asyncio.wait(self._running)
