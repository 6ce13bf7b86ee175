"""A run under way: its pipeline is driven, and all who are to know are told what it makes, and how it fares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from realtime.capture.delivery import Delivery
from realtime.capture.media import MediaFile
from realtime.clock import MediaClock
from realtime.invocation import command
from realtime.messages.estimate import Dropped
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.commands import taking_commands
from realtime.mqtt.embedded import opened_broker
from realtime.mqtt.publisher import Publisher
from realtime.perception.rates import Rates
from realtime.pipeline.interrupts import either
from realtime.pipeline.live import Steering, run_live
from realtime.pipeline.offline import run_offline
from realtime.pipeline.pipeline import Pipeline, Statistics
from realtime.programs.control import Control
from realtime.programs.outputs import Assembled, Destinations, assembled
from realtime.session.folder import FolderRecording
from realtime.session.marking import Marking
from realtime.session.recorder import Recorder
from realtime.settings import RunSettings
from realtime.terminal.keys import listening
from realtime.terminal.view import TerminalView
from realtime.workers import WorkerState, WorkerStatus

if TYPE_CHECKING:
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

RATES: Final = "rates"
"""Name under which it is told at which rates a machine goes that keeps no higher ones."""


@dataclass(slots=True)
class Summary:
    """Outcome of a run."""

    statistics: Statistics
    dropped: Dropped = field(default_factory=lambda: Dropped(video=0, audio=0))
    words: str = ""
    first_estimate_s: float | None = None
    """From the start of the run, loading included, to the first estimate."""
    undelivered: int | None = None
    """Estimates that found no broker; None when none was asked for."""
    recording_cpu_s: float = 0.0
    """Processor time of the thread that wrote the session."""


@asynccontextmanager
async def reached(settings: RunSettings, console: Console) -> AsyncIterator[BrokerAddress | None]:
    """The broker that the settings name, for as long as the context lasts; one of our own is started, and told."""
    async with AsyncExitStack() as stack:
        broker = await opened_broker(settings.broker, stack, settings.access)
        if settings.broker == "embedded":
            console.print(f"embedded broker on {broker}; to see the stream in another terminal:", soft_wrap=True)
            console.print(command("watch", "--broker", broker), markup=False, highlight=False, soft_wrap=True)
        yield broker


@dataclass(frozen=True)
class Run:
    """Parts of a run once all is loaded, and its course. Lives in the event loop.

    media: None where the source is live. asked: what its estimates go to. description: of its recordings, see
    `describe`. recorder: of all of it. web: the page that shows it. patient: wait for a source that is not there.
    slowed: why the machine keeps no full rates, or empty.
    """

    settings: RunSettings
    rates: Rates
    pipeline: Pipeline
    delivery: Delivery
    media: MediaFile | None
    asked: Destinations
    description: Mapping[str, str]
    recorder: Recorder | None
    web: WebServer[Viewers] | None
    patient: bool = False
    slowed: str = ""
    steering: Steering = field(default_factory=Steering)

    async def go(self, console: Console, stop: asyncio.Event, broker: BrokerAddress | None) -> Summary:
        """Put the outputs together, and drive the pipeline to its end, or until `stop` is set."""
        recorder, pipeline = self.recorder, self.pipeline
        async with AsyncExitStack() as stack:
            outputs = await stack.enter_async_context(
                assembled(
                    self.asked, broker, pipeline.outputs, pipeline.clock, pipeline.statistics, self.delivery.dropped
                )
            )
            marking = self._marked_by_keys(outputs.view, stack)
            if self.web is not None:
                address = await self._show(self.web, marking, stack)
                console.print(f"page: {address}", markup=False, highlight=False, soft_wrap=True)
            if recorder is not None:
                loop = asyncio.get_running_loop()
                recorder.start(lambda status: loop.call_soon_threadsafe(pipeline.outputs.on_worker, status))
            if self.slowed:
                pipeline.outputs.on_worker(WorkerStatus(RATES, WorkerState.RUNNING, self.slowed))
            try:
                await self._drive(stop, outputs)
            finally:
                if self.slowed:
                    pipeline.outputs.on_worker(WorkerStatus(RATES, WorkerState.ENDED))
                marking.end()
                if recorder is not None:
                    await asyncio.to_thread(recorder.close)
        publisher = outputs.publisher
        return Summary(
            pipeline.statistics,
            dropped=self.delivery.dropped(),
            words=" ".join(word.text for word in pipeline.perception.words),
            undelivered=publisher.undelivered if publisher else None,
            recording_cpu_s=recorder.cpu_s if recorder else 0.0,
        )

    def _marked_by_keys(self, view: TerminalView | None, stack: AsyncExitStack) -> Marking:
        """Marking by the keys of the terminal, where there is one, and of the page."""

        def show(line: str) -> None:
            if view is not None:
                view.dashboard.marks = line
            if self.web is not None:
                self.web.audience.feed.on_marks(line)

        marking = Marking(self.recorder, self.pipeline.clock, self.pipeline.perception.window.window_s, show)
        if view is not None and stack.enter_context(listening(view, marking.press)):
            marking.teach()
        return marking

    async def _show(self, web: WebServer[Viewers], marking: Marking, stack: AsyncExitStack) -> str:
        """Let pages look at the run, and record it, for as long as the stack lasts. Returns their address."""
        from realtime.web.recordings import PageRecording, Recordings

        feed, pipeline = web.audience.feed, self.pipeline
        web.recordings = await stack.enter_async_context(Recordings(web.address))
        recording = PageRecording(
            web.recordings, pipeline, self.description, on_change=feed.on_recording, on_marks=feed.on_marks
        )
        web.audience.recording = recording
        web.audience.steers = pipeline
        web.audience.on_key = marking.press if self.recorder else None
        feed.atoms = pipeline.engine.checkpoint.model.atoms
        pipeline.outputs.add(feed)
        pipeline.outputs.add(recording)
        return await stack.enter_async_context(web.open())

    async def _drive(self, stop: asyncio.Event, outputs: Assembled) -> None:
        """Drive the pipeline from hop to hop, until the source ends, the duration is over, or `stop` is set."""
        pipeline, hop_s, duration_s = self.pipeline, self.rates.hop_s, self.settings.duration
        if isinstance(pipeline.clock, MediaClock) and self.media is not None:
            if outputs.publisher is not None:
                await either(outputs.publisher.tried, stop)
            await run_offline(
                pipeline,
                self.media.samples(),
                pipeline.clock,
                hop_s=hop_s,
                duration_s=duration_s,
                stop=stop,
                delivered=pipeline.outputs.settled,
            )
        else:
            async with self._taking_commands(outputs.publisher):
                await run_live(
                    pipeline,
                    self.delivery,
                    hop_s=hop_s,
                    duration_s=duration_s,
                    stop=stop,
                    on_status=pipeline.outputs.on_worker,
                    steering=self.steering,
                    patient=self.patient,
                )

    def _taking_commands(self, publisher: Publisher | None) -> AbstractAsyncContextManager[None]:
        """Carry out commands while the context lasts, if they are allowed."""
        settings = self.settings
        if not settings.allow_control or publisher is None:
            return nullcontext()
        recording = None
        if settings.record_dir is not None:
            folder, video, sound = Path(settings.record_dir), settings.record_video, settings.record_audio
            recording = FolderRecording(folder, self.pipeline, video=video, sound=sound)
            self.pipeline.outputs.add(recording)
        control = Control(self.pipeline, self.steering, self.description, self.recorder, recording)
        return taking_commands(publisher, control)
