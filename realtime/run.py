"""`dhmd-live run`: put the parts of one run together, run it, and sum it up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from rich.console import Console

from dhmd.checkpoint import load
from realtime.broker import opened_broker
from realtime.capture.camera import Camera
from realtime.capture.media import MediaFile
from realtime.capture.microphone import Microphone, list_microphones
from realtime.capture.playback import MediaPlayer
from realtime.clock import MediaClock, SessionClock
from realtime.control import Control
from realtime.engine import Engine, resolve_device
from realtime.errors import MicrophoneUnavailable
from realtime.estimate import Dropped
from realtime.interrupts import stop_when_asked
from realtime.keys import marking_keys
from realtime.live import Delivery, LiveSource, Steering, run_live
from realtime.mqtt import Publisher, PublisherSink, publish_pipeline, publishing, taking_commands
from realtime.mqtt.discovery import announce
from realtime.offline import run_offline
from realtime.perception import Extractors, Observer, Perception
from realtime.pipeline import Emission, EstimateFile, Pipeline, Sink, Statistics
from realtime.prometheus import exposed
from realtime.session.folder import FolderRecording
from realtime.session.recorder import Recorder, describe, new_file
from realtime.settings import RunSettings
from realtime.view import Dashboard, TerminalView
from realtime.workers import WorkerStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

logger = logging.getLogger(__name__)
T = TypeVar("T")


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


class Stopwatch:
    """A sink that notes when the first estimate came, seconds after `started_s` on the monotonic clock."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self.first_s: float | None = None

    def put(self, _: Emission) -> None:
        if self.first_s is None:
            self.first_s = time.monotonic() - self._started_s


def run(
    settings: RunSettings,
    console: Console,
    *,
    title: str = "dhmd-live",
    sinks: Sequence[Sink] = (),
    web: WebServer[Viewers] | None = None,
) -> Summary:
    """Run until the source ends, the duration is over, or Ctrl-C. Raises DHMDLiveError for what cannot go on.

    sinks: who else is handed the estimates. web: the page that shows them.
    """
    watch = Stopwatch(time.monotonic())
    with ExitStack() as stack:
        # What can be wrong in the request is found out before the models are loaded.
        media = None if settings.is_live else MediaFile(settings.source)
        device = resolve_device(settings.device)
        session = stack.enter_context(new_file(Path(settings.record))) if settings.record else None
        file = stack.enter_context(EstimateFile(Path(settings.estimates))) if settings.estimates else None
        registry = stack.enter_context(exposed(settings.metrics_host, settings.metrics_port, console))
        checkpoint = load(settings.checkpoint)
        # One core is enough for a window; the other belongs to faces and speech.
        torch.set_num_threads(1)
        if console.is_terminal:
            with console.status("loading models"):
                extractors = Extractors.load(checkpoint)
        else:
            extractors = Extractors.load(checkpoint)
        engine = Engine(checkpoint, device, activations=web is not None)
        clock = MediaClock() if settings.pace == "max" else SessionClock()
        timed = settings.pace == "realtime"
        described = describe(
            checkpoint, stream=settings.stream, hop_s=settings.hop_s, timed=timed, settings=settings.shown()
        )
        recorder = None
        if session is not None:
            recorder = Recorder(
                session,
                clock,
                described,
                video=settings.record_video,
                sound=settings.record_audio,
                patient=not timed,
            )
        observers: list[Observer] = [recorder] if recorder else []
        observers += [web.audience.feed] if web else []
        perception = stack.enter_context(Perception(extractors, device, observers))
        source = open_source(settings, media, clock)
        delivery = Delivery(source)
        pipeline = Pipeline(perception, engine, clock, settings.stream, delivery.dropped, timed=timed)
        pipeline.sinks += [watch, *sinks]
        if web is not None:
            web.audience.feed.atoms = checkpoint.model.atoms
            pipeline.sinks.append(web.audience.feed)
        if file is not None:
            pipeline.sinks.append(file)
        if recorder is not None:
            pipeline.sinks.append(recorder)
        try:
            summary = asyncio.run(
                _run(settings, pipeline, media, source, delivery, recorder, described, web, registry, console, title)
            )
        except BaseException:
            # What failed before anything was perceived is tried again under the same name.
            if session is not None and not session.closed and recorder is not None and recorder.blank:
                session.truncate(0)
            raise
    summary.first_estimate_s = watch.first_s
    summary.recording_cpu_s = recorder.cpu_s if recorder else 0.0
    return summary


def open_source(settings: RunSettings, media: MediaFile | None, clock: SessionClock) -> LiveSource:
    """What to capture, and from where. A file brings its own sound; a camera goes with the default microphone."""
    microphone = settings.microphone or (_default_microphone() if settings.is_live else "none")
    heard = None if microphone == "none" else Microphone(microphone, clock)
    if media is not None:
        player, has = MediaPlayer(media, clock), media.describe()
        for kind, present in (("video", has.has_video), ("sound", has.has_audio or heard is not None)):
            if not present:
                logger.warning("%s has no %s: estimates come from the rest alone", settings.source, kind)
        frames = player.frames if has.has_video else None
        blocks = heard.blocks if heard else player.blocks if has.has_audio else None
    else:
        frames = None if settings.source == "none" else Camera(settings.source, clock).frames
        blocks = heard.blocks if heard else None

    def lost() -> Dropped:
        return Dropped(video=media.skipped if media else 0, audio=heard.overflows if heard else 0)

    return LiveSource(frames, blocks, lost)


def _default_microphone() -> str:
    """The default microphone where nobody asked for one: its absence is told, and nothing to stop for."""
    try:
        if any(microphone.is_default for microphone in list_microphones()):
            return "default"
        reason = "no default microphone"
    except MicrophoneUnavailable as error:
        reason = str(error)
    logger.warning("%s; going on without sound (--microphone none says so)", reason)
    return "none"


async def _run(
    settings: RunSettings,
    pipeline: Pipeline,
    media: MediaFile | None,
    source: LiveSource,
    delivery: Delivery,
    recorder: Recorder | None,
    described: Mapping[str, str],
    web: WebServer[Viewers] | None,
    registry: CollectorRegistry | None,
    console: Console,
    title: str,
) -> Summary:
    stop = stop_when_asked()
    loop = asyncio.get_running_loop()
    summary = Summary(pipeline.statistics)
    async with AsyncExitStack() as stack:
        broker = await opened_broker(settings.broker, stack, settings.access)
        dashboard = Dashboard(f"{title} · {settings.stream}", f"{broker}" if broker else "no broker")
        publisher = published = None
        if broker is not None:
            on_connection = _fan_out(dashboard.set_connection, web.audience.feed.on_connection if web else None)
            publisher = Publisher(broker, settings.stream, on_connection)
            published = _published(settings, pipeline, publisher)
            if settings.broker == "embedded":
                console.print(f"embedded broker on {broker}; another terminal: dhmd-live watch --broker {broker}")
        _expose(registry, pipeline, delivery, dashboard.workers, publisher)
        view = stack.enter_context(TerminalView(console, dashboard))
        pipeline.sinks.append(view)
        window_s = pipeline.perception.window.window_s
        tell = web.audience.feed.on_marks if web else _to_nobody
        marking = stack.enter_context(marking_keys(recorder, pipeline.clock, window_s, view, tell))

        on_status = _fan_out(dashboard.set_worker, published.on_worker if published else None)
        if web is not None:
            web.audience.on_key = marking.press if recorder else None
            on_status = _fan_out(on_status, await _recordable(web, pipeline, described, stack))
            address = await stack.enter_async_context(web.open())
            console.print(f"page: {address}", markup=False, highlight=False, soft_wrap=True)
            on_status = _fan_out(on_status, web.audience.feed.on_worker)
        steering = Steering()
        controlled, on_status = _controlled(
            settings, pipeline, publisher, steering=steering, described=described, recorder=recorder, tell=on_status
        )
        if recorder is not None:
            on_status = _fan_out(on_status, recorder.on_worker)
            recorder.start(lambda status: loop.call_soon_threadsafe(on_status, status))
        async with publishing(publisher, published) if publisher else nullcontext():
            try:
                if isinstance(pipeline.clock, MediaClock) and media is not None:
                    if publisher is not None:
                        await either(publisher.tried, stop)
                    await run_offline(
                        pipeline,
                        media.samples(),
                        pipeline.clock,
                        hop_s=settings.hop_s,
                        duration_s=settings.duration,
                        stop=stop,
                        delivered=publisher.settled if publisher else _nothing_to_wait_for,
                    )
                else:
                    async with controlled:
                        await run_live(
                            pipeline,
                            source,
                            delivery,
                            hop_s=settings.hop_s,
                            duration_s=settings.duration,
                            stop=stop,
                            on_status=on_status,
                            steering=steering,
                        )
            finally:
                marking.end()
                if recorder is not None:
                    await asyncio.to_thread(recorder.close)
        if publisher is not None:
            summary.undelivered = publisher.undelivered
    summary.dropped = delivery.dropped()
    summary.words = " ".join(word.text for word in pipeline.perception.words)
    return summary


def _expose(
    registry: CollectorRegistry | None,
    pipeline: Pipeline,
    delivery: Delivery,
    workers: Mapping[str, WorkerStatus],
    publisher: Publisher | None,
) -> None:
    if registry is not None:
        from realtime.collectors import StreamFigures, Streams

        figures = StreamFigures(pipeline.stream, pipeline.statistics, delivery.dropped, workers, publisher)
        registry.register(Streams(lambda: [figures]))


def _published(settings: RunSettings, pipeline: Pipeline, publisher: Publisher) -> PublisherSink:
    if settings.discovery:
        announce(publisher, settings.stream, settings.discovery_prefix)
    return publish_pipeline(pipeline, publisher, state=settings.state or settings.discovery)


def _controlled(
    settings: RunSettings,
    pipeline: Pipeline,
    publisher: Publisher | None,
    *,
    steering: Steering,
    described: Mapping[str, str],
    recorder: Recorder | None,
    tell: Callable[[WorkerStatus], None],
) -> tuple[AbstractAsyncContextManager[None], Callable[[WorkerStatus], None]]:
    """Commands are taken in this context, if they are allowed; and what is to be told of the workers then."""
    if not settings.allow_control or publisher is None:
        return nullcontext(), tell
    recording = None
    if settings.record_dir is not None:
        folder, video, sound = Path(settings.record_dir), settings.record_video, settings.record_audio
        recording = FolderRecording(folder, pipeline, tell, video=video, sound=sound)
        pipeline.sinks.append(recording)
        tell = _fan_out(tell, recording.on_worker)
    control = Control(pipeline, steering, described, recorder, recording)
    return taking_commands(publisher, control), tell


async def _recordable(
    web: WebServer[Viewers], pipeline: Pipeline, described: Mapping[str, str], stack: AsyncExitStack
) -> Callable[[WorkerStatus], None]:
    """Let pages record the run; returns what is to be told of its workers."""
    from realtime.web.recordings import Recordings

    feed = web.audience.feed
    web.recordings = await stack.enter_async_context(Recordings(web.address))
    recording = web.recordings.of(pipeline, described, on_change=feed.on_recording, on_marks=feed.on_marks)
    web.audience.recording = recording
    pipeline.sinks.append(recording)
    return recording.on_worker


async def either(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _fan_out(*listeners: Callable[[T], None] | None) -> Callable[[T], None]:
    there = [listener for listener in listeners if listener is not None]

    def tell(what: T) -> None:
        for listener in there:
            listener(what)

    return tell


def _to_nobody(_: str) -> None:
    """Where there is no page."""


async def _nothing_to_wait_for() -> None:
    return None
