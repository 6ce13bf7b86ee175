"""`dhmd-live edge`: capture and extract here, have the windows estimated by whoever serves."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
from rich.console import Console

from dhmd.checkpoint import load
from dhmd.modality import Modality
from dhmd.untrusted import within
from realtime import event_loop
from realtime.capture.delivery import Delivery
from realtime.capture.media import MediaFile
from realtime.capture.sources import open_source
from realtime.clock import MediaClock, StreamClock
from realtime.errors import SettingsInvalid
from realtime.memory import spare_what_is_loaded
from realtime.messages.estimate import Dropped, Estimate
from realtime.mqtt.broker import named_broker
from realtime.perception.extractors import StreamExtractors
from realtime.perception.people import PeopleInView
from realtime.perception.perception import Perception
from realtime.pipeline.interrupts import either, stop_when_asked
from realtime.pipeline.lag import PeopleLag
from realtime.pipeline.live import run_live
from realtime.pipeline.offline import run_offline
from realtime.pipeline.outputs import Outputs
from realtime.pipeline.pipeline import Statistics
from realtime.programs.outputs import Destinations, assembled, destinations, figures_of
from realtime.scale.edge_link import FAREWELL_S, EdgeLink, linked
from realtime.scale.edge_stream import DueWindow, EdgeStatistics, EdgeStream
from realtime.scale.people_log import PersonWindow
from realtime.scale.window_log import WindowLog
from realtime.settings import RunSettings

ANSWER_S: Final = 5.0
"""At --pace max a window that has no answer for so long is sent again."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An estimate that a server made and published."""

    estimate: Estimate
    payload: bytes
    newest_s: None = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class EdgeHop:
    """What is due at a hop. view: who is in view, where several are followed."""

    window: DueWindow
    view: PeopleInView | None


class EdgePipeline:
    """Stand-in for a Pipeline, driven in its place: at each hop a window is due."""

    def __init__(
        self,
        perception: Perception,
        clock: StreamClock,
        dropped: Callable[[], Dropped],
        offer: Callable[[DueWindow], None],
        *,
        timed: bool,
    ) -> None:
        self.perception = perception
        self.clock = clock
        self.statistics = Statistics()
        self.outputs = Outputs[Answered](perception, clock)
        self.dropped = dropped
        self._offer = offer
        self._timed = timed
        self._people_lag = PeopleLag(self.outputs.on_worker)

    def estimate(self, end_s: float) -> EdgeHop:
        perceived = self.perception.perceive(end_s)
        people = [PersonWindow.of(one) for one in perceived.people]
        window = DueWindow(end_s, perceived.faces, self.dropped(), self._timed, perceived.cut.attention, people)
        return EdgeHop(window, perceived.view)

    def emit(self, hop: EdgeHop) -> None:
        self._offer(hop.window)
        if hop.view is not None:
            self.statistics.people = len(hop.view.people)
            self.outputs.on_people(hop.view)
            if self._timed:
                self._people_lag.check(hop.view)

    def afterwards(self, hop: EdgeHop) -> None:
        """Nothing is left: whoever estimates the window measures."""

    def answered(self, payload: bytes) -> None:
        """Take the estimate of a window that came back."""
        with contextlib.suppress(ValueError):
            estimate = Estimate.model_validate_json(within(payload))
            self.statistics.estimates += 1
            if (latency_ms := estimate.latency_ms.capture_to_estimate) is not None:
                self.statistics.capture_to_estimate_ms.append(latency_ms)
            self.outputs.on_estimate(Answered(estimate, payload))

    def person_answered(self, payload: bytes) -> None:
        """Take the estimate of a person in a window that came back, after that of the window."""
        with contextlib.suppress(ValueError):
            estimate = Estimate.model_validate_json(within(payload))
            self.statistics.of_people[self.statistics.people or 1] += 1
            self.outputs.on_person(Answered(estimate, payload))


@dataclass(frozen=True, slots=True)
class EdgeSummary:
    """bytes_a_second: of the windows sent. transcript: the words heard."""

    windows: EdgeStatistics
    estimates: int
    missed: int
    bytes_a_second: float
    dropped: Dropped
    transcript: str


OF_RUN: Final = ("allow_control", "record")
"""Settings that an edge cannot follow; they may stand in a configuration file that it shares with runs."""


def edge(settings: RunSettings, console: Console) -> EdgeSummary:
    """Run until the source ends, the duration is over, or Ctrl-C. Raises DHMDLiveError for what ends it early."""
    if settings.broker in {"none", "embedded"}:
        raise SettingsInvalid("--broker: edge and servers meet at one; give --broker mqtt://host[:port]")
    for key in OF_RUN:
        if getattr(settings, key):
            raise SettingsInvalid(f"{key}: an edge takes no commands and records nothing; leave it out")
    with ExitStack() as stack:
        media = None if settings.is_live else MediaFile(settings.source)
        figures = stack.enter_context(figures_of(settings, console))
        asked = stack.enter_context(destinations(settings, figures, console, "dhmd-live edge"))
        checkpoint = load(settings.checkpoint)
        torch.set_num_threads(1)
        extractors = StreamExtractors.load(checkpoint, settings.listening, people=settings.most_people)
        spare_what_is_loaded()
        log = WindowLog(extractors.specs, lambda: perception.window.since(Modality.TEXT, -math.inf))
        perception = stack.enter_context(
            Perception(
                extractors, torch.device("cpu"), [log], private=settings.words == "private", rates=settings.rates
            )
        )
        return event_loop.run(_edge(settings, asked, media, perception, log))


async def _edge(
    settings: RunSettings, asked: Destinations, media: MediaFile | None, perception: Perception, log: WindowLog
) -> EdgeSummary:
    stop = stop_when_asked()
    broker = named_broker(settings.broker, settings.access)
    clock = MediaClock() if settings.pace == "max" else StreamClock()
    source = open_source(settings.source, settings.microphone, media, clock, settings.trust)
    delivery = Delivery(source, words=settings.words != "off", pictures_hz=settings.rates.pictures_hz)
    stream = EdgeStream(settings.stream, log, clock.epoch_unix, clock.now, settings.steadiness)
    pipeline = EdgePipeline(
        perception,
        clock,
        delivery.dropped,
        lambda hop: link.offer(settings.stream, hop),
        timed=settings.pace == "realtime",
    )
    link = EdgeLink(
        broker,
        [stream],
        lambda _, payload: pipeline.answered(payload),
        None if settings.most_people == 1 else lambda _, payload: pipeline.person_answered(payload),
    )
    if asked.figures is not None:
        from realtime.scale.collectors import EdgeCollector

        asked.figures.registry.register(EdgeCollector(stream.stream, stream.statistics, link))
    common: dict[str, Any] = {"hop_s": settings.rates.hop_s, "duration_s": settings.duration, "stop": stop}

    async def delivered() -> None:
        """Wait until the newest window is estimated; what is lost on its way is sent again."""
        while not stop.is_set() and not await link.answer(stream, ANSWER_S):
            await either(link.ready, stop)
            link.offer(settings.stream, pipeline.estimate(clock.now()).window)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            assembled(
                asked, broker, pipeline.outputs, clock, pipeline.statistics, delivery.dropped, published_elsewhere=True
            )
        )
        await stack.enter_async_context(linked(link))
        begun_s = asyncio.get_running_loop().time()
        if isinstance(clock, MediaClock) and media is not None:
            await either(link.ready, stop)
            await run_offline(pipeline, media.samples(), clock, delivered=delivered, **common)
        else:
            await run_live(pipeline, delivery, on_status=pipeline.outputs.on_worker, **common)
        lasted_s = asyncio.get_running_loop().time() - begun_s
        await link.answer(stream, FAREWELL_S)
    return EdgeSummary(
        windows=stream.statistics,
        estimates=stream.statistics.answered,
        missed=link.missed,
        bytes_a_second=stream.statistics.bytes / max(lasted_s, 1e-6),
        dropped=delivery.dropped(),
        transcript=" ".join(word.text for word in perception.words),
    )
