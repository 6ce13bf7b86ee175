"""`dhmd-live run` of several streams: each has its own source and topics; all share the models and one engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

import torch
from rich.console import Console

from dhmd.checkpoint import load
from dhmd.errors import DHMDError
from dhmd.machine import cores
from realtime import event_loop
from realtime.concerned import concerning
from realtime.errors import known
from realtime.memory import spare_what_is_loaded
from realtime.perception.extractors import StreamExtractors, loaded_beside
from realtime.perception.turns import Turns
from realtime.pipeline.interrupts import stop_when_asked
from realtime.programs.outputs import destinations, figures_of
from realtime.programs.reload import Reread, followed
from realtime.programs.run import Opened, Stopwatch
from realtime.programs.running import Run, Summary, reached
from realtime.recognition.engine import Engine, resolve_device
from realtime.recognition.shared_engine import SharedEngine
from realtime.settings import RunSettings
from realtime.terminal.streams import StreamsView

logger = logging.getLogger(__name__)


def run_several(streams: Sequence[RunSettings], console: Console, reread: Reread | None = None) -> dict[str, Summary]:
    """Run until all sources have ended, or Ctrl-C; a stream that ends early is told of, and leaves the others alone.

    Returns how each of the others fared, by its name. Raises DHMDLiveError where none could go on, and for what keeps
    all from beginning.

    streams: their settings, as `each_stream` gives them. reread: reads them again.
    """
    first, watches = streams[0], {one.stream: Stopwatch(time.monotonic()) for one in streams}
    with ExitStack() as stack:
        device, opened = resolve_device(first.device), []
        for one in streams:
            with concerning(one.stream):
                opened.append(Opened.of(one, stack))
        figures = stack.enter_context(figures_of(first, console))
        asked = [stack.enter_context(destinations(one, figures)) for one in streams]
        checkpoint = load(first.checkpoint)
        torch.set_num_threads(1)
        listening = next((one.listening for one in streams if one.listening is not None), None)
        with console.status("loading models") if console.is_terminal else nullcontext():
            most = max(one.most_people for one in streams)
            extractors, made = loaded_beside(
                lambda: StreamExtractors.load(checkpoint, listening, people=most), lambda: Engine(checkpoint, device)
            )
            stack.enter_context(extractors.face)
            engine = stack.enter_context(SharedEngine(made))
        spare_what_is_loaded()
        view, turns = StreamsView(console, list(watches)), Turns(cores())
        runs = [
            one.run(
                stack,
                extractors.another(people=one.settings.most_people, words=one.settings.words != "off"),
                engine,
                to,
                [watches[one.settings.stream], view.row(one.settings.stream)],
                turns=turns,
            )
            for one, to in zip(opened, asked, strict=True)
        ]
        summaries = event_loop.run(_until_asked(runs, view, console, reread))
    for name, summary in summaries.items():
        summary.first_estimate_s = watches[name].first_s
    return summaries


async def _until_asked(
    runs: Sequence[Run], view: StreamsView, console: Console, reread: Reread | None
) -> dict[str, Summary]:
    stop, settings = stop_when_asked(), [run.settings for run in runs]
    steadied = {run.settings.stream: run.pipeline.steadied for run in runs}
    async with reached(settings[0], console) as broker:
        with view, followed(reread, settings, steadied):

            async def go(run: Run) -> Summary | DHMDError:
                try:
                    with concerning(run.settings.stream):
                        return await run.go(console, stop, broker)
                except Exception as error:
                    if (reason := known(error)) is None:
                        raise
                logger.warning("stream %s has ended: %s", run.settings.stream, reason)
                return reason

            async with asyncio.TaskGroup() as group:
                going = {run.settings.stream: group.create_task(go(run), name=run.settings.stream) for run in runs}
    ended = {name: task.result() for name, task in going.items()}
    summaries = {name: one for name, one in ended.items() if isinstance(one, Summary)}
    if not summaries:
        raise next(one for one in ended.values() if isinstance(one, DHMDError))
    return summaries
