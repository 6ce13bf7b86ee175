"""`dhmd-live run`: put the parts of one run together, and run it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch
from rich.console import Console

from dhmd.checkpoint import load
from dhmd.machine import processors
from realtime import event_loop
from realtime.capture.delivery import Delivery
from realtime.capture.media import MediaFile
from realtime.capture.sources import open_source
from realtime.clock import MediaClock, StreamClock
from realtime.memory import spare_what_is_loaded
from realtime.perception.extractors import StreamExtractors, loaded_beside
from realtime.perception.perception import Perception
from realtime.perception.rates import Rates
from realtime.perception.turns import Turns
from realtime.pipeline.costs import measured, rates_kept, surely_keeps, told
from realtime.pipeline.interrupts import stop_when_asked
from realtime.pipeline.outputs import Sink
from realtime.pipeline.pipeline import Emission, Pipeline
from realtime.programs.outputs import Destinations, destinations, figures_of
from realtime.programs.reload import Reread, followed
from realtime.programs.running import Run, Summary, reached
from realtime.recognition.engine import Engine, resolve_device
from realtime.recognition.shared_engine import SharedEngine
from realtime.session.recorder import Recorder, describe, new_file
from realtime.settings import RunSettings

if TYPE_CHECKING:
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers


class Stopwatch:
    """A sink that notes when the first estimate came, seconds after `started_s` on the monotonic clock."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self.first_s: float | None = None

    def on_estimate(self, _: Emission) -> None:
        if self.first_s is None:
            self.first_s = time.monotonic() - self._started_s


def run(
    settings: RunSettings,
    console: Console,
    *,
    title: str = "dhmd-live",
    sinks: Sequence[Sink[Emission]] = (),
    web: WebServer[Viewers] | None = None,
    reread: Reread | None = None,
) -> Summary:
    """Run until the source ends, the duration is over, or Ctrl-C. Raises DHMDLiveError for what ends it early.

    sinks: who else is handed the estimates. web: the page that shows them. reread: reads the settings again.
    """
    watch = Stopwatch(time.monotonic())
    with prepared(settings, console, title=title, sinks=(watch, *sinks), web=web) as under_way:
        summary = event_loop.run(_until_asked(under_way, console, reread))
    summary.first_estimate_s = watch.first_s
    return summary


async def _until_asked(under_way: Run, console: Console, reread: Reread | None) -> Summary:
    stop, settings = stop_when_asked(), under_way.settings
    async with reached(settings, console) as broker:
        with followed(reread, [settings], {settings.stream: under_way.pipeline.steadied}):
            return await under_way.go(console, stop, broker)


@contextmanager
def prepared(
    settings: RunSettings,
    console: Console,
    *,
    title: str,
    sinks: Sequence[Sink[Emission]],
    web: WebServer[Viewers] | None = None,
) -> Iterator[Run]:
    """Load all that a run needs, and hold it for as long as the context lasts. Raises DHMDLiveError."""
    with ExitStack() as stack:
        opened, device = Opened.of(settings, stack), resolve_device(settings.device)
        figures = stack.enter_context(figures_of(settings, console))
        asked = stack.enter_context(destinations(settings, figures, console, title))
        checkpoint = load(settings.checkpoint)
        # One core is enough for a window; the other belongs to faces and speech.
        torch.set_num_threads(1)
        with console.status("loading models") if console.is_terminal else nullcontext():
            extractors, engine = loaded_beside(
                lambda: StreamExtractors.load(checkpoint, settings.listening, people=settings.most_people),
                lambda: Engine(checkpoint, device, activations=web is not None),
            )
            rates, why = opened.rates(extractors, engine)
        if why:
            console.print(why, markup=False, highlight=False, soft_wrap=True)
        spare_what_is_loaded()
        yield opened.run(stack, extractors, engine, asked, sinks, rates=rates, slowed=why, web=web)


@dataclass(frozen=True, slots=True)
class Opened:
    """Files of one stream, opened before any model is loaded, and before any other is overwritten: what can be wrong
    in the request is found out then.

    media: None where the source is live. session: the file of its recording.
    """

    settings: RunSettings
    media: MediaFile | None
    session: IO[bytes] | None

    @classmethod
    def of(cls, settings: RunSettings, stack: ExitStack) -> Opened:
        """Open what the settings name, for as long as the stack lasts. Raises DHMDLiveError."""
        media = None if settings.is_live else MediaFile(settings.source)
        session = stack.enter_context(new_file(Path(settings.record))) if settings.record else None
        return cls(settings, media, session)

    def rates(self, extractors: StreamExtractors, engine: Engine) -> tuple[Rates, str]:
        """Choose rates that this machine can keep; and say why, where they are lower than they could be."""
        settings, lent = self.settings, processors()
        if settings.pace == "max" or settings.wish.is_all or surely_keeps(engine, lent):
            return settings.rates, ""
        seen = settings.source != "none" if self.media is None else self.media.reader.film is not None
        silent = self.media is None or self.media.reader.soundtrack is None
        heard = not silent if settings.microphone is None and self.media else settings.microphone != "none"
        costs = measured(extractors, engine, seen=seen, heard=heard)
        chosen = rates_kept(costs, lent, settings.wish)
        return chosen, "" if chosen == settings.rates else told(chosen, costs, lent, settings.wish)

    def run(
        self,
        stack: ExitStack,
        extractors: StreamExtractors,
        engine: Engine | SharedEngine,
        asked: Destinations,
        sinks: Sequence[Sink[Emission]],
        *,
        rates: Rates | None = None,
        slowed: str = "",
        turns: Turns | None = None,
        web: WebServer[Viewers] | None = None,
    ) -> Run:
        """Put the parts of its run together.

        rates: None: as they were asked for. slowed: why they are lower. turns: at computing, where other streams are
        read here too, for whose sake it waits for its source.
        """
        settings, checkpoint = self.settings, engine.checkpoint
        rates = rates or settings.rates
        clock = MediaClock() if settings.pace == "max" else StreamClock()
        timed = settings.pace == "realtime"
        description = describe(
            checkpoint,
            stream=settings.stream,
            hop_s=rates.hop_s,
            timed=timed,
            settings={**settings.shown(), **asdict(rates)},
        )
        recorder = None
        if self.session is not None:
            video, sound = settings.record_video, settings.record_audio
            recorder = Recorder(self.session, clock, description, video=video, sound=sound, patient=not timed)
            stack.enter_context(recorder.emptied_if_blank())
        private = settings.words == "private"
        perception = stack.enter_context(
            Perception(extractors, engine.device, turns=turns, private=private, rates=rates)
        )
        source = open_source(settings.source, settings.microphone, self.media, clock, settings.trust)
        delivery = Delivery(source, words=settings.words != "off", pictures_hz=rates.pictures_hz)
        pipeline = Pipeline(
            perception,
            engine,
            clock,
            settings.stream,
            delivery.dropped,
            timed=timed,
            steadiness=settings.steadiness,
        )
        for sink in (*sinks, *([recorder] if recorder else [])):
            pipeline.outputs.add(sink)
        return Run(
            settings,
            rates,
            pipeline,
            delivery,
            self.media,
            asked,
            description,
            recorder,
            web,
            patient=turns is not None,
            slowed=slowed,
        )
