"""`dhmd-live web` without a source: a session for each visitor, all read by one machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from dhmd.checkpoint import load
from realtime import event_loop
from realtime.memory import spare_what_is_loaded
from realtime.messages.estimate import Dropped
from realtime.metrics.prometheus import exposed
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.embedded import opened_broker
from realtime.mqtt.publisher import Publisher, publishing
from realtime.perception.extractors import StreamExtractors, loaded_beside
from realtime.pipeline.interrupts import stop_when_asked
from realtime.pipeline.pipeline import Pipeline
from realtime.programs.outputs import Destinations, assembled
from realtime.recognition.engine import Engine, resolve_device
from realtime.recognition.shared_engine import SharedEngine
from realtime.settings import RunSettings
from realtime.web.address import WebAddress
from realtime.web.capacity import streams_at_once
from realtime.web.conversation import Visitors
from realtime.web.recordings import Recordings
from realtime.web.server import WebServer
from realtime.web.streams import Streams
from realtime.web.visits import Assemble, Common, Visits

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def host(settings: RunSettings, address: WebAddress, most: int | None, console: Console) -> int:
    """Serve visitors until the duration is over, or Ctrl-C; returns how many came.

    Raises DHMDLiveError for what ends it early.

    most: visitors at a time; None for as many as this machine can follow.
    """
    device = resolve_device(settings.device)
    with ExitStack() as stack:
        registry = stack.enter_context(exposed(settings.metrics_host, settings.metrics_port, console))
        checkpoint = load(settings.checkpoint)
        torch.set_num_threads(1)
        with console.status("loading models") if console.is_terminal else nullcontext():
            extractors, engine = loaded_beside(
                lambda: StreamExtractors.load(checkpoint, settings.listening, people=settings.most_people),
                lambda: Engine(checkpoint, device, activations=True),
            )
            spare_what_is_loaded()
            if most is None:
                most = streams_at_once(extractors, engine, settings.rates.hop_s)
        stack.enter_context(extractors.face)
        shared = stack.enter_context(SharedEngine(engine))
        return event_loop.run(_host(settings, address, most, extractors, shared, registry, console))


async def _host(
    settings: RunSettings,
    address: WebAddress,
    most: int,
    extractors: StreamExtractors,
    engine: SharedEngine,
    registry: CollectorRegistry | None,
    console: Console,
) -> int:
    stop = stop_when_asked()

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    async with AsyncExitStack() as stack:
        broker = await opened_broker(settings.broker, stack, settings.access)
        if broker is not None:
            # The server's own: a broker that refuses it would refuse every visitor.
            await stack.enter_async_context(publishing(Publisher(broker, settings.stream, lambda _: None)))
        recordings = await stack.enter_async_context(Recordings(address))
        common = Common(
            engine,
            settings.rates.hop_s,
            settings.shown(),
            recordings,
            str(broker or ""),
            assembling(broker, state=settings.state),
            settings.steadiness,
            private=settings.words == "private",
        )
        visits = Visits(extractors, common, stream=settings.stream, most=most, tell=tell)
        if registry is not None:
            from realtime.metrics.collectors import StreamCollector

            registry.register(StreamCollector(visits.figures))
        others = None
        # Visitors from elsewhere are not shown one another.
        if broker is not None and address.token is None and address.proxy is None:
            others = Streams(broker)
            following = (await stack.enter_async_context(asyncio.TaskGroup())).create_task(others.follow())
            stack.callback(following.cancel)
        try:
            async with WebServer(Visitors(visits), address, recordings, others).open() as page:
                tell(f"page: {page}")
                if others is not None:
                    tell(f"all streams of {broker}: {page}streams")
                streams = f"{settings.stream}-1" + (f" to {settings.stream}-{most}" if most > 1 else "")
                tell(f"visitors at a time: {most}; published as {streams} to {broker or 'no broker'}")
                tell("Ctrl-C stops")
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), settings.duration)
        finally:
            await visits.ended()
    return visits.served


def assembling(broker: BrokerAddress | None, *, state: bool) -> Assemble:
    """Return what puts the outputs of each visit together. state: publish the flat values too."""

    @asynccontextmanager
    async def assemble(pipeline: Pipeline, dropped: Callable[[], Dropped]) -> AsyncIterator[Publisher | None]:
        asked = Destinations(stream=pipeline.stream, state=state)
        outputs, clock, statistics = pipeline.outputs, pipeline.clock, pipeline.statistics
        async with assembled(asked, broker, outputs, clock, statistics, dropped) as ready:
            yield ready.publisher

    return assemble
