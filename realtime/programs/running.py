"""A run under way: its pipeline is driven, and all who are to know are told what it makes, and how it fares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from realtime.capture.delivery import Delivery
from realtime.capture.media import MediaFile
from realtime.clock import MediaClock
from realtime.messages.estimate import Dropped
from realtime.mqtt import Publisher, PublisherSink, publish_pipeline, publishing, taking_commands
from realtime.mqtt.broker import BrokerAddress, opened_broker
from realtime.mqtt.discovery import announce
from realtime.pipeline.interrupts import either, stop_when_asked
from realtime.pipeline.live import Steering, run_live
from realtime.pipeline.offline import run_offline
from realtime.pipeline.pipeline import Pipeline, Statistics
from realtime.programs.control import Control
from realtime.session.folder import FolderRecording
from realtime.session.marking import Marking
from realtime.session.recorder import Recorder
from realtime.settings import RunSettings
from realtime.terminal.keys import listening
from realtime.terminal.view import Dashboard, TerminalView
from realtime.workers import WorkerStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers


@dataclass(slots=True)
class Summary:
    """What a run achieved."""

    statistics: Statistics
    dropped: Dropped = field(default_factory=lambda: Dropped(video=0, audio=0))
    words: str = ""
    first_estimate_s: float | None = None
    """From the start of the run, loading included, to the first estimate."""
    undelivered: int | None = None
    """Estimates that found no broker; None when none was asked for."""
    recording_cpu_s: float = 0.0
    """Processor time of the thread that wrote the session."""


@dataclass(frozen=True)
class Run:
    """What a run consists of once all is loaded, and its course. Lives in the event loop.

    media: None where the source is live. description: of its recordings, see `describe`. recorder: of all of it. web:
    the page that shows it. registry: for its figures; None where nobody asks for them.
    """

    settings: RunSettings
    pipeline: Pipeline
    delivery: Delivery
    media: MediaFile | None
    description: Mapping[str, str]
    recorder: Recorder | None
    web: WebServer[Viewers] | None
    registry: CollectorRegistry | None
    steering: Steering = field(default_factory=Steering)
    listeners: list[Callable[[WorkerStatus], None]] = field(default_factory=list)
    """Who is told of its workers."""

    async def go(self, console: Console, title: str) -> Summary:
        """Tell all who are to know, and drive the pipeline to its end."""
        settings, recorder, pipeline = self.settings, self.recorder, self.pipeline
        stop = stop_when_asked()
        async with AsyncExitStack() as stack:
            broker = await opened_broker(settings.broker, stack, settings.access)
            dashboard = Dashboard(f"{title} · {settings.stream}", str(broker or "no broker"))
            self.listeners.append(dashboard.set_worker)
            publisher, published = self._publish(broker, dashboard) if broker else (None, None)
            if settings.broker == "embedded":
                console.print(f"embedded broker on {broker}; another terminal: dhmd-live watch --broker {broker}")
            self._expose(dashboard, publisher)
            view = stack.enter_context(TerminalView(console, dashboard))
            pipeline.sinks.append(view)
            window_s = pipeline.perception.window.window_s

            def show(line: str) -> None:
                dashboard.marks = line
                self._on_marks(line)

            marking = Marking(recorder, pipeline.clock, window_s, show)
            if stack.enter_context(listening(view, marking.press)):
                marking.teach()
            if self.web is not None:
                address = await self._show(self.web, marking, stack)
                console.print(f"page: {address}", markup=False, highlight=False, soft_wrap=True)
            self._start(recorder)
            async with publishing(publisher, published) if publisher else nullcontext():
                try:
                    await self._drive(stop, publisher)
                finally:
                    marking.end()
                    if recorder is not None:
                        await asyncio.to_thread(recorder.close)
        return Summary(
            pipeline.statistics,
            dropped=self.delivery.dropped(),
            words=" ".join(word.text for word in pipeline.perception.words),
            undelivered=publisher.undelivered if publisher else None,
            recording_cpu_s=recorder.cpu_s if recorder else 0.0,
        )

    def _publish(self, broker: BrokerAddress, dashboard: Dashboard) -> tuple[Publisher, PublisherSink]:
        settings = self.settings

        def on_connection(state: str) -> None:
            dashboard.set_connection(state)
            if self.web is not None:
                self.web.audience.feed.on_connection(state)

        publisher = Publisher(broker, settings.stream, on_connection)
        if settings.discovery:
            announce(publisher, settings.stream, settings.discovery_prefix)
        published = publish_pipeline(self.pipeline, publisher, state=settings.state or settings.discovery)
        self.listeners.append(published.on_worker)
        return publisher, published

    def _expose(self, dashboard: Dashboard, publisher: Publisher | None) -> None:
        """To Prometheus."""
        if self.registry is not None:
            from realtime.metrics.collectors import StreamFigures, Streams

            statistics, dropped = self.pipeline.statistics, self.delivery.dropped
            figures = StreamFigures(self.settings.stream, statistics, dropped, dashboard.workers, publisher)
            self.registry.register(Streams(lambda: [figures]))

    async def _show(self, web: WebServer[Viewers], marking: Marking, stack: AsyncExitStack) -> str:
        """Let pages look at the run, and record it, for as long as the stack lasts. Returns their address."""
        from realtime.web.recordings import Recordings

        feed, pipeline = web.audience.feed, self.pipeline
        web.recordings = await stack.enter_async_context(Recordings(web.address))
        recording = web.recordings.of(pipeline, self.description, on_change=feed.on_recording, on_marks=feed.on_marks)
        web.audience.recording = recording
        web.audience.on_key = marking.press if self.recorder else None
        feed.atoms = pipeline.engine.checkpoint.model.atoms
        pipeline.sinks += [feed, recording]
        pipeline.perception.join(feed, pipeline.clock.now())
        self.listeners.extend([recording.on_worker, feed.on_worker])
        return await stack.enter_async_context(web.open())

    def _start(self, recorder: Recorder | None) -> None:
        if recorder is not None:
            loop = asyncio.get_running_loop()
            self.listeners.append(recorder.on_worker)
            recorder.start(lambda status: loop.call_soon_threadsafe(self._on_status, status))

    async def _drive(self, stop: asyncio.Event, publisher: Publisher | None) -> None:
        """From hop to hop, until the source ends, the duration is over, or `stop` is set."""
        pipeline, hop_s, duration_s = self.pipeline, self.settings.hop_s, self.settings.duration
        if isinstance(pipeline.clock, MediaClock) and self.media is not None:
            if publisher is not None:
                await either(publisher.tried, stop)
            await run_offline(
                pipeline,
                self.media.samples(),
                pipeline.clock,
                hop_s=hop_s,
                duration_s=duration_s,
                stop=stop,
                delivered=publisher.settled if publisher else _nothing_to_wait_for,
            )
        else:
            async with self._taking_commands(publisher):
                await run_live(
                    pipeline,
                    self.delivery,
                    hop_s=hop_s,
                    duration_s=duration_s,
                    stop=stop,
                    on_status=self._on_status,
                    steering=self.steering,
                )

    def _taking_commands(self, publisher: Publisher | None) -> AbstractAsyncContextManager[None]:
        """Commands are carried out in this context, if they are allowed."""
        settings = self.settings
        if not settings.allow_control or publisher is None:
            return nullcontext()
        recording = None
        if settings.record_dir is not None:
            folder, video, sound = Path(settings.record_dir), settings.record_video, settings.record_audio
            recording = FolderRecording(folder, self.pipeline, self._on_status, video=video, sound=sound)
            self.pipeline.sinks.append(recording)
            self.listeners.append(recording.on_worker)
        control = Control(self.pipeline, self.steering, self.description, self.recorder, recording)
        return taking_commands(publisher, control)

    def _on_status(self, status: WorkerStatus) -> None:
        for tell in self.listeners:
            tell(status)

    def _on_marks(self, line: str) -> None:
        if self.web is not None:
            self.web.audience.feed.on_marks(line)


async def _nothing_to_wait_for() -> None:
    return None
