"""Outputs of a stream, put together in one place for every program that has a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from realtime.clock import StreamClock
from realtime.messages.estimate import Dropped
from realtime.metrics.prometheus import exposed
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.discovery import Announcer
from realtime.mqtt.publisher import Publisher, publishing
from realtime.mqtt.stream import PublisherSink
from realtime.outlets.lsl import LslOutlet
from realtime.outlets.osc import OscOutlet
from realtime.pipeline.outputs import E, Emitted, Outputs, Sink
from realtime.pipeline.pipeline import Statistics
from realtime.session.estimate_file import EstimateFile
from realtime.settings import RunSettings
from realtime.terminal.view import Dashboard, TerminalView

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from realtime.metrics.collectors import StreamFigures


class Figures:
    """What Prometheus reads of the streams of a program, to which each adds its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from realtime.metrics.collectors import StreamCollector

        self.registry = registry
        self.streams: list[StreamFigures] = []
        registry.register(StreamCollector(lambda: self.streams))


@contextmanager
def figures_of(settings: RunSettings, console: Console) -> Iterator[Figures | None]:
    """Answer Prometheus for as long as the context lasts, where the settings ask for it. Raises SettingsInvalid."""
    with exposed(settings.metrics_host, settings.metrics_port, console) as registry:
        yield None if registry is None else Figures(registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """Destinations that were asked for, opened as far as it can be before there is a stream.

    sinks: what writes the estimates, or sends them by other protocols. state: publish the flat values too. discovery:
    the prefix of Home Assistant's topics. metrics: publish how the stream fares. console: of the terminal view, with
    its title; None for no view. claim: see Publisher.
    """

    stream: str
    sinks: Sequence[Sink[Emitted]] = ()
    state: bool = False
    discovery: str | None = None
    metrics: bool = True
    console: Console | None = None
    title: str = ""
    figures: Figures | None = None
    claim: Literal["ask", "take"] | None = None


@contextmanager
def destinations(
    settings: RunSettings, figures: Figures | None, console: Console | None = None, title: str = ""
) -> Iterator[Destinations]:
    """Open what the settings of a run or an edge ask for, for as long as the context lasts.

    Raises SettingsInvalid, LibraryMissing for what cannot be opened: to be entered before any model is loaded.
    """
    with ExitStack() as stack:
        yield Destinations(
            stream=settings.stream,
            sinks=[*estimate_files(settings.estimates, stack), *outlets(settings, stack)],
            state=settings.state or settings.discovery,
            discovery=settings.discovery_prefix if settings.discovery else None,
            console=console,
            title=title,
            claim="take" if settings.take_over else "ask",
            figures=figures,
        )


def estimate_files(estimates: str | None, stack: ExitStack | AsyncExitStack) -> list[Sink[Emitted]]:
    """The sinks that write to a file. Raises SettingsInvalid."""
    return [stack.enter_context(EstimateFile(Path(estimates)))] if estimates else []


def outlets(settings: RunSettings, stack: ExitStack) -> Iterator[Sink[Emitted]]:
    """The sinks that send by other protocols. Raises SettingsInvalid, LibraryMissing."""
    if settings.lsl:
        yield stack.enter_context(LslOutlet(settings.stream))
    if settings.osc is not None:
        yield stack.enter_context(OscOutlet(settings.stream, settings.osc))


@dataclass(frozen=True, slots=True)
class Assembled:
    """Parts of the outputs that others need. view: None where there is none. publisher: None without a broker."""

    view: TerminalView | None
    publisher: Publisher | None


@asynccontextmanager
async def assembled(
    asked: Destinations,
    broker: BrokerAddress | None,
    outputs: Outputs[E],
    clock: StreamClock,
    statistics: Statistics,
    dropped: Callable[[], Dropped],
    *,
    published_elsewhere: bool = False,
) -> AsyncIterator[Assembled]:
    """Add what was asked for to the outputs of a stream, and keep it open for as long as the context lasts.

    published_elsewhere: whether somebody else publishes the estimates, as for an edge. Raises BrokerRefused, in a
    group.
    """
    async with AsyncExitStack() as stack:
        for sink in asked.sinks:
            outputs.add(sink)
        view = None
        if asked.console is not None:
            dashboard = Dashboard(f"{asked.title} · {asked.stream}", str(broker or "no broker"))
            view = stack.enter_context(TerminalView(asked.console, dashboard))
            outputs.add(view)
        publisher = Publisher(broker, asked.stream, outputs.on_connection, asked.claim) if broker is not None else None
        if asked.figures is not None:
            from realtime.metrics.collectors import StreamFigures

            asked.figures.streams.append(StreamFigures(asked.stream, statistics, dropped, outputs.workers, publisher))
        if publisher is not None:
            if asked.discovery is not None:
                outputs.add(Announcer(publisher, asked.stream, asked.discovery))
            published = PublisherSink(
                publisher, clock, statistics, state=asked.state, published_elsewhere=published_elsewhere
            )
            outputs.add(published)
            await stack.enter_async_context(publishing(publisher, published.report if asked.metrics else None))
        yield Assembled(view, publisher)
