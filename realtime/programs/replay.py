"""`dhmd-live replay SESSION`: the windows of a session through a model again, at any pace, to any sink."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from dhmd.checkpoint import Checkpoint, CheckpointInvalid, load
from dhmd.contract import ContractMismatch
from dhmd.features.speech import DEFAULT_SPEECH, SPEECH_MODELS
from dhmd.session import Session, SessionInvalid, schema
from dhmd.untrusted import shown
from realtime import event_loop
from realtime.clock import MediaClock
from realtime.errors import SettingsInvalid
from realtime.layers import read_settings
from realtime.messages.estimate import Dropped, ModelName
from realtime.mqtt.broker import BrokerAccess, named_broker
from realtime.perception.extractors import StreamExtractors, loaded_beside
from realtime.perception.listening import Listening
from realtime.perception.perception import Perceived, Perception
from realtime.pipeline.interrupts import stop_when_asked
from realtime.pipeline.offline import run_offline
from realtime.pipeline.outputs import Outputs
from realtime.pipeline.pipeline import Emission, Pipeline, Statistics
from realtime.programs.outputs import Destinations, assembled, estimate_files
from realtime.recognition.engine import Engine, Inference, resolve_device
from realtime.recognition.steadied import Steadied
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness
from realtime.session.compare import Comparison
from realtime.session.media import has_media, samples
from realtime.session.messages import estimate_again, inference_of, top_of
from realtime.session.rewound import TOLERANCE, Agreement, Moment, Rewound, require_features
from realtime.settings import HEARD_BY, most_people

ENGINES = 2
"""Batches under way at a time, each in a thread of its own."""
BATCH = 256


@dataclass(frozen=True)
class ReplaySettings:
    """pace: session seconds a second; None as fast as the machine allows.

    checkpoint: another model than the recorded one. again: extract the features again, from recorded media.
    plot: file for the comparison's picture.
    steadiness: instead of what was published; None for that, or the default where the estimates are others.
    heard: settings by which words are recognised again, instead of those of the recorded run.
    """

    path: Path
    pace: float | None = None
    verify: bool = False
    checkpoint: str | None = None
    again: bool = False
    broker: str = "none"
    access: BrokerAccess = field(default_factory=BrokerAccess)
    stream: str | None = None
    estimates: str | None = None
    plot: Path | None = None
    device: str = "auto"
    steadiness: Steadiness | None = None
    heard: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """Outcome of a replay. lost: messages that the recorder had to leave out, by topic."""

    estimates: int = 0
    agreement: Agreement = field(default_factory=Agreement)
    comparison: Comparison = field(default_factory=Comparison)
    session_s: float = 0.0
    wall_s: float = 0.0
    lost: dict[str, int] = field(default_factory=dict)


def replay(request: ReplaySettings, console: Console) -> int:
    """Replay and say what came of it. Returns the exit status: 1 where --verify found a difference."""
    session = Session.open(request.path)
    checkpoint = _model(session, request)
    again = request.again or _mismatch(session, checkpoint) is not None
    another = checkpoint.digest != session.metadata["checkpoint"]
    if request.verify and (again or another):
        raise SettingsInvalid("--verify takes the recorded model and features; leave --checkpoint and --again out")
    if request.plot is not None:
        _check_plot(request.plot, compared=again or another)
    if again:
        _require_media(session, checkpoint)
        if request.pace is not None:
            raise SettingsInvalid(
                f"{request.path}: its features are to be extracted again, and come as fast as they do; use --pace max"
            )
    if not session.complete:
        console.print(f"{request.path} was cut; what is whole of it is replayed", markup=False, soft_wrap=True)
    torch.set_num_threads(1)
    outcome = event_loop.run(Replay(request, session, checkpoint, console).run(again=again))
    return _conclude(request, session, checkpoint, outcome, console)


def _model(session: Session, request: ReplaySettings) -> Checkpoint:
    """The model asked for, or the one of the recording."""
    if request.checkpoint is not None:
        return load(request.checkpoint)
    name, digest = session.metadata["model"], session.metadata["checkpoint"]
    place = str(session.settings.get("checkpoint", name))
    remedy = "name a model with --checkpoint, and its estimates are compared with the recorded ones"
    recorded = f"{request.path} was recorded with the model {name} ({digest})"
    try:
        checkpoint = load(place)
    except CheckpointInvalid:
        raise SettingsInvalid(f"{recorded}, which is not at {place}; {remedy}") from None
    if checkpoint.digest != digest:
        raise SettingsInvalid(f"{recorded}, and {place} is another now ({checkpoint.digest}); {remedy}")
    return checkpoint


def _mismatch(session: Session, checkpoint: Checkpoint) -> ContractMismatch | None:
    try:
        require_features(session.features, checkpoint)
    except ContractMismatch as error:
        return error
    return None


def _require_media(session: Session, checkpoint: Checkpoint) -> None:
    if has_media(session):
        return
    if (mismatch := _mismatch(session, checkpoint)) is not None:
        raise ContractMismatch(f"{mismatch}; {session.path} holds no media to extract them from") from None
    raise SettingsInvalid(f"--again: {session.path} holds no media; record with --record-video and --record-audio")


def _check_plot(path: Path, *, compared: bool) -> None:
    if not compared:
        raise SettingsInvalid("--plot shows another model beside the recorded one; name it with --checkpoint")
    if not path.absolute().parent.is_dir():
        raise SettingsInvalid(f"--plot {path}: there is no folder {path.absolute().parent}; make it, or name another")


def _conclude(
    request: ReplaySettings, session: Session, checkpoint: Checkpoint, outcome: Outcome, console: Console
) -> int:
    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    speed = outcome.session_s / outcome.wall_s if outcome.wall_s else 0.0
    say(f"{outcome.estimates} estimates of {outcome.session_s:.1f} s, {speed:.1f} times as fast as they were made")
    for topic, lost in outcome.lost.items():
        say(f"the recorder had to leave out {lost} messages of {topic}: what they told is missing here")
    names = f"{session.metadata['model']} (recorded)", checkpoint.name
    if checkpoint.digest != session.metadata["checkpoint"] or request.again:
        console.print(outcome.comparison.table(*names))
        if request.plot is not None:
            outcome.comparison.plot(request.plot, *names)
            say(f"picture: {request.plot}")
    if not request.verify:
        return 0
    agreement = outcome.agreement
    for name, difference in agreement.largest.items():
        say(f"largest difference in {name}: {difference:.1e}")
    if agreement.absent:
        say(f"in {agreement.absent} estimates other modalities were perceived than in the recording")
    say(f"verified: all within {TOLERANCE:g}" if agreement.holds else f"not verified: more than {TOLERANCE:g} apart")
    return 0 if agreement.holds else 1


class Replay:
    """One replay on its way to its sinks."""

    def __init__(self, request: ReplaySettings, session: Session, checkpoint: Checkpoint, console: Console) -> None:
        self._request = request
        self._session = session
        self._checkpoint = checkpoint
        self._console = console
        self._device = resolve_device(request.device)
        self._stream = request.stream or session.stream
        self._clock = MediaClock(session.epoch_unix)
        self._outputs = Outputs[Emission](None, self._clock)
        self._steadiness = request.steadiness or BY_DEFAULT
        self._another = checkpoint.digest != session.metadata["checkpoint"]
        recorded = request.steadiness is None and not self._another
        self._steadied: dict[int, Steadied] | None = None if recorded else {}
        """Of the stream (0), and of each person; None where what was recorded is shown as it was published."""
        self._stop = asyncio.Event()
        first = next(session.records({schema.ESTIMATE}), None)
        if first is None:
            raise SessionInvalid(f"{session.path}: no estimate in it; nothing to replay")
        self._first_s: float = first.message.end_s
        end_s = session.stated_end_s()
        self._length_s = None if end_s is None else end_s - self._first_s

    async def run(self, *, again: bool) -> Outcome:
        stop_when_asked(self._stop)
        request = self._request
        async with AsyncExitStack() as stack:
            broker = None if request.broker == "none" else named_broker(request.broker, request.access)
            asked = Destinations(
                stream=self._stream,
                sinks=estimate_files(request.estimates, stack),
                metrics=False,
                console=self._console if request.pace is not None else None,
                title="replay",
            )
            outputs = await stack.enter_async_context(
                assembled(asked, broker, self._outputs, self._clock, Statistics(), _nothing_dropped)
            )
            if (publisher := outputs.publisher) is not None:
                await publisher.tried.wait()
            return await (self._extracted_again() if again else self._from_features())

    async def _from_features(self) -> Outcome:
        engine = Engine(self._checkpoint, self._device)
        rewound = Rewound(self._session, self._checkpoint, self._device)
        pace, outcome = self._request.pace, Outcome(lost=rewound.lost)
        started_s = time.monotonic()
        hidden = pace is not None or not self._console.is_terminal
        with Progress(console=self._console, transient=True, disable=hidden) as progress:
            bar = progress.add_task("replaying", total=self._length_s)
            async with contextlib.aclosing(_inferred(rewound, engine, BATCH if pace is None else 1)) as inferred:
                async for moment, inference in inferred:
                    end_s = moment.cut.end_s
                    passed_s = end_s - self._first_s
                    if pace is not None:
                        await _until(started_s + passed_s / pace, self._stop)
                    if self._stop.is_set():
                        break
                    if self._request.verify:
                        outcome.agreement.add(moment.recorded, moment.cut, inference)
                    if self._outputs.told:
                        self._tell(moment, inference)
                    if moment.recorded.person:
                        continue
                    outcome.estimates += 1
                    if self._another:
                        told_s = end_s - self._session.start_s
                        outcome.comparison.add(told_s, inference_of(moment.recorded), inference)
                    if pace is None:
                        await self._outputs.settled()
                    outcome.session_s, outcome.wall_s = passed_s, time.monotonic() - started_s
                    progress.update(bar, completed=passed_s)
        return outcome

    def _tell(self, moment: Moment, inference: Inference | None) -> None:
        emission = self._emission(moment, inference)
        if moment.recorded.person:
            self._outputs.on_person(emission)
            return
        self._outputs.on_estimate(emission)
        if moment.view is not None:
            self._outputs.on_people(moment.view)

    def _emission(self, moment: Moment, inference: Inference | None) -> Emission:
        model = ModelName(name=self._checkpoint.name, checkpoint=self._checkpoint.digest)
        recorded = inference_of(moment.recorded)
        if inference and recorded and not self._another:
            inference = replace(inference, shares=recorded.shares)
        if self._steadied is not None:
            steadied = self._steadied.setdefault(moment.recorded.person, Steadied(self._steadiness))
            shown, top = steadied.of(inference, moment.cut.end_s)
        else:
            shown, top = inference, top_of(moment.recorded, self._session)
        estimate = estimate_again(moment.recorded, moment.cut, shown, top, self._session, self._stream, model)
        return Emission(estimate, Perceived(moment.cut, moment.recorded.faces, ()), inference, None, timed=False)

    @property
    def _people(self) -> int:
        """How many people the recorded run followed at most."""
        try:
            return most_people(self._session.settings.get("people", 1))
        except ValueError:
            raise SessionInvalid(f"{self._session.path}: damaged, the number of people cannot be read") from None

    @property
    def _listening(self) -> Listening | None:
        """What words are recognised again with: as in the recorded run, where it is not asked otherwise. A file does
        not choose what is fetched from elsewhere: a model that does not ship has to be named."""
        recorded, heard = self._session.settings, self._request.heard
        if recorded.get("words") == "off" and not heard:
            return None
        speech = recorded.get("speech", DEFAULT_SPEECH)
        if "speech" not in heard and speech not in SPEECH_MODELS:
            raise SettingsInvalid(f"--again: its words were recognised with {shown(str(speech))}; name a --speech")
        same = {name: recorded[name] for name in HEARD_BY if name in recorded}
        return read_settings(None, {"source": "media", "pace": "max", "broker": "none", **same, **heard}).listening

    async def _extracted_again(self) -> Outcome:
        """Extract again, as from a file at --pace max; compared with the recorded estimates nearest in time."""
        outcome = Outcome()
        extractors, engine = loaded_beside(
            lambda: StreamExtractors.load(self._checkpoint, self._listening, people=self._people),
            lambda: Engine(self._checkpoint, self._device),
        )
        with (
            Perception(extractors, self._device) as perception,
            Progress(console=self._console, transient=True, disable=not self._console.is_terminal) as progress,
        ):
            pipeline = Pipeline(
                perception,
                engine,
                self._clock,
                self._stream,
                _nothing_dropped,
                timed=False,
                steadiness=self._steadiness,
            )
            bar = progress.add_task("extracting again", total=self._length_s)
            compared = _Compared(self._session, outcome.comparison)
            told = _Progress(lambda end_s: progress.update(bar, completed=end_s - self._first_s))
            for sink in (self._outputs, compared, told):
                pipeline.outputs.add(sink)
            started_s = time.monotonic()
            await run_offline(
                pipeline,
                samples(self._session),
                self._clock,
                hop_s=self._session.hop_s,
                duration_s=None,
                stop=self._stop,
                delivered=self._outputs.settled,
                start_s=self._session.start_s,
            )
        outcome.wall_s = time.monotonic() - started_s
        outcome.estimates = pipeline.statistics.estimates
        outcome.session_s = compared.last_s - self._first_s
        return outcome


def _nothing_dropped() -> Dropped:
    return Dropped(video=0, audio=0)


class _Progress:
    def __init__(self, tell: Callable[[float], object]) -> None:
        self._tell = tell

    def on_estimate(self, emission: Emission) -> None:
        self._tell(emission.perceived.cut.end_s)


class _Compared:
    """Sets each estimate beside the recorded one nearest in time, if that is within a hop."""

    def __init__(self, session: Session, comparison: Comparison) -> None:
        recorded = [record.message for record in session.records({schema.ESTIMATE})]
        self._recorded = [inference_of(message) for message in recorded]
        self._ends_s = [message.end_s for message in recorded]
        self.last_s = self._ends_s[-1]
        self._start_s = session.start_s
        self._hop_s = session.hop_s
        self._comparison = comparison

    def on_estimate(self, emission: Emission) -> None:
        end_s = emission.perceived.cut.end_s
        after = bisect.bisect_left(self._ends_s, end_s)
        near = [i for i in (after - 1, after) if 0 <= i < len(self._ends_s)]
        nearest = min(near, key=lambda i: abs(self._ends_s[i] - end_s))
        if abs(self._ends_s[nearest] - end_s) <= self._hop_s:
            self._comparison.add(end_s - self._start_s, self._recorded[nearest], emission.inference)


async def _inferred(
    moments: Iterable[Moment], engine: Engine, size: int
) -> AsyncGenerator[tuple[Moment, Inference | None]]:
    """Yield each moment with what the engine makes of it, in order; batches of `size` run ahead, ENGINES of them."""
    loop = asyncio.get_running_loop()
    source = iter(moments)
    ahead = ENGINES + 1 if size > 1 else 1
    under_way: deque[tuple[list[Moment], asyncio.Future[list[Inference | None]]]] = deque()
    more = True
    with ThreadPoolExecutor(1, "rewind") as reader, ThreadPoolExecutor(ENGINES, "engine") as engines:
        while more or under_way:
            while more and len(under_way) < ahead:
                batch = await loop.run_in_executor(reader, lambda: list(itertools.islice(source, size)))
                more = len(batch) == size
                future = loop.run_in_executor(engines, engine.infer_many, [moment.cut for moment in batch])
                under_way.append((batch, future))
            batch, future = under_way.popleft()
            for pair in zip(batch, await future, strict=True):
                yield pair


async def _until(due_s: float, stop: asyncio.Event) -> None:
    """Wait for a moment of the monotonic clock, or for `stop`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), max(0.0, due_s - time.monotonic()))
