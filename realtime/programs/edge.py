"""`dhmd-live edge`: capture and extract here, have the windows estimated by whoever serves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from pydantic import ValidationError
from rich.console import Console

from dhmd.checkpoint import load
from dhmd.modality import Modality
from realtime import event_loop
from realtime.capture.delivery import Delivery
from realtime.capture.media import MediaFile
from realtime.capture.sources import open_source
from realtime.clock import MediaClock, SessionClock
from realtime.errors import SettingsInvalid
from realtime.messages.estimate import Dropped, Estimate
from realtime.metrics.prometheus import exposed
from realtime.mqtt import Publisher, PublisherSink, publishing
from realtime.mqtt.broker import named_broker
from realtime.mqtt.discovery import announce
from realtime.perception.perception import Extractors, Perception
from realtime.pipeline.interrupts import either, stop_when_asked
from realtime.pipeline.live import run_live
from realtime.pipeline.offline import run_offline
from realtime.pipeline.pipeline import EstimateFile, Statistics
from realtime.scale.edge_link import FAREWELL_S, EdgeLink, linked
from realtime.scale.edge_stream import EdgeStatistics, EdgeStream, Hop
from realtime.scale.window_log import WindowLog
from realtime.settings import RunSettings
from realtime.terminal.view import Dashboard, TerminalView
from realtime.workers import WorkerStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

ANSWER_S: Final = 5.0
"""At --pace max a window that has no answer for so long is sent again."""


class EdgePipeline:
    """What drives a run drives this in place of a Pipeline: at each hop a window is due."""

    def __init__(
        self,
        perception: Perception,
        clock: SessionClock,
        dropped: Callable[[], Dropped],
        offer: Callable[[Hop], None],
        *,
        timed: bool,
    ) -> None:
        self.perception = perception
        self.clock = clock
        self.statistics = Statistics()
        self.dropped = dropped
        self._offer = offer
        self._timed = timed

    def estimate(self, end_s: float) -> Hop:
        return Hop(end_s, self.perception.perceive(end_s).faces, self.dropped(), self._timed)

    def emit(self, hop: Hop) -> None:
        self._offer(hop)


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
    """Run until the source ends, the duration is over, or Ctrl-C. Raises DHMDLiveError for what cannot go on."""
    if settings.broker in {"none", "embedded"}:
        raise SettingsInvalid("--broker: edge and servers meet at one; give --broker mqtt://host[:port]")
    for key in OF_RUN:
        if getattr(settings, key):
            raise SettingsInvalid(f"{key}: an edge takes no commands and records nothing; leave it out")
    with ExitStack() as stack:
        media = None if settings.is_live else MediaFile(settings.source)
        file = stack.enter_context(EstimateFile(Path(settings.estimates))) if settings.estimates else None
        registry = stack.enter_context(exposed(settings.metrics_host, settings.metrics_port, console))
        checkpoint = load(settings.checkpoint)
        torch.set_num_threads(1)
        extractors = Extractors.load(checkpoint)
        log = WindowLog(extractors.specs, lambda: perception.window.since(Modality.TEXT, -math.inf))
        perception = stack.enter_context(Perception(extractors, torch.device("cpu"), [log]))
        clock = MediaClock() if settings.pace == "max" else SessionClock()
        return event_loop.run(_edge(settings, console, media, perception, log, clock, file, registry))


async def _edge(
    settings: RunSettings,
    console: Console,
    media: MediaFile | None,
    perception: Perception,
    log: WindowLog,
    clock: SessionClock,
    file: EstimateFile | None,
    registry: CollectorRegistry | None,
) -> EdgeSummary:
    stop = stop_when_asked()
    broker = named_broker(settings.broker, settings.access)
    dashboard = Dashboard(f"dhmd-live edge · {settings.stream}", f"{broker}")
    delivery = Delivery(open_source(settings.source, settings.microphone, media, clock))
    received = 0

    def on_estimate(_: str, payload: bytes) -> None:
        nonlocal received
        received += 1
        if file is not None:
            file.write(payload)
        with contextlib.suppress(ValidationError):
            estimate = Estimate.model_validate_json(payload)
            view.show(estimate)
            pipeline.statistics.estimates += 1
            if (latency_ms := estimate.latency_ms.capture_to_estimate) is not None:
                pipeline.statistics.capture_to_estimate_ms.append(latency_ms)
            published.put_published(estimate)

    stream = EdgeStream(settings.stream, log, clock.epoch_unix, clock.now)
    link = EdgeLink(broker, [stream], on_estimate)
    publisher = Publisher(broker, settings.stream, dashboard.set_connection)
    pipeline = EdgePipeline(
        perception,
        clock,
        delivery.dropped,
        lambda hop: link.offer(settings.stream, hop),
        timed=settings.pace == "realtime",
    )
    if settings.discovery:
        announce(publisher, settings.stream, settings.discovery_prefix)
    published = PublisherSink(publisher, clock, pipeline.statistics, state=settings.state or settings.discovery)
    perception.join(published, clock.now())
    _expose(registry, pipeline, stream, link, dashboard, publisher)
    common: dict[str, Any] = {"hop_s": settings.hop_s, "duration_s": settings.duration, "stop": stop}

    def on_status(status: WorkerStatus) -> None:
        dashboard.set_worker(status)
        published.on_worker(status)

    async def delivered() -> None:
        """Once the newest window is estimated; what is lost on its way is sent again."""
        while not stop.is_set() and not await link.answer(stream, ANSWER_S):
            await either(link.ready, stop)
            link.offer(settings.stream, pipeline.estimate(clock.now()))

    async with AsyncExitStack() as stack:
        view = stack.enter_context(TerminalView(console, dashboard))
        await stack.enter_async_context(publishing(publisher, published))
        await stack.enter_async_context(linked(link))
        begun_s = asyncio.get_running_loop().time()
        if isinstance(clock, MediaClock) and media is not None:
            await either(link.ready, stop)
            await run_offline(pipeline, media.samples(), clock, delivered=delivered, **common)
        else:
            await run_live(pipeline, delivery, on_status=on_status, **common)
        lasted_s = asyncio.get_running_loop().time() - begun_s
        await link.answer(stream, FAREWELL_S)
    return EdgeSummary(
        windows=stream.statistics,
        estimates=received,
        missed=link.missed,
        bytes_a_second=stream.statistics.bytes / max(lasted_s, 1e-6),
        dropped=delivery.dropped(),
        transcript=" ".join(word.text for word in perception.words),
    )


def _expose(
    registry: CollectorRegistry | None,
    pipeline: EdgePipeline,
    stream: EdgeStream,
    link: EdgeLink,
    dashboard: Dashboard,
    publisher: Publisher,
) -> None:
    """To Prometheus, if it was asked for."""
    if registry is not None:
        from realtime.metrics.collectors import StreamFigures, Streams
        from realtime.scale.collectors import Windows

        statistics, dropped = pipeline.statistics, pipeline.dropped
        figures = StreamFigures(stream.stream, statistics, dropped, dashboard.workers, publisher)
        registry.register(Streams(lambda: [figures]))
        registry.register(Windows(stream.stream, stream.statistics, link))
