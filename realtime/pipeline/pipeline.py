"""The pipeline behind every run: at each hop, the window becomes an estimate, and the estimate goes to the sinks."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeVar

from dhmd.checkpoint import Checkpoint
from realtime.clock import StreamClock
from realtime.messages.estimate import Dropped, Estimate, ModelName, Silence
from realtime.perception.perception import Perceived, Perception
from realtime.perception.window import WindowCut
from realtime.pipeline.fair import FairTurns
from realtime.pipeline.lag import PeopleLag
from realtime.pipeline.outputs import Outputs
from realtime.recognition.attribution import Attribution, measure
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import Inference
from realtime.recognition.steadied import Steadied
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness

logger = logging.getLogger(__name__)

LATENCIES_KEPT = 36_000
Due = TypeVar("Due")
"""A thing that comes due at a hop."""


@dataclass(frozen=True)
class Emission:
    """An estimate on its way to the sinks; its JSON is built once, and only if a sink asks."""

    estimate: Estimate
    perceived: Perceived
    inference: Inference | None
    newest_s: float | None
    """Capture time of the newest thing perceived, on the stream clock."""
    timed: bool
    """Whether the stream clock is the machine's, so that latencies mean something."""
    people: tuple[Emission, ...] = ()
    """Of those in view, where several are followed, as far as it was their turn."""
    took_s: float = 0.0
    """Time that all these took."""

    @cached_property
    def payload(self) -> bytes:
        return self.estimate.model_dump_json().encode()


class Recogniser(Protocol):
    """Turns a window into numbers: an engine of one's own, or one that is shared."""

    checkpoint: Checkpoint

    def infer(self, cut: WindowCut, /) -> Inference | None: ...
    def infer_many(self, cuts: Sequence[WindowCut], /) -> list[Inference | None]: ...


@dataclass(slots=True)
class Statistics:
    """Figures of a run, told when it ends."""

    estimates: int = 0
    missed_ticks: int = 0
    people: int | None = None
    """In view, where several are followed."""
    of_people: Counter[int] = field(default_factory=Counter)
    """Estimates of people, by how many were in view."""
    first_estimate_s: float | None = None
    last_estimate_s: float = 0.0
    capture_to_estimate_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    capture_to_published_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    inference_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    @property
    def rate_hz(self) -> float:
        if self.first_estimate_s is None or self.last_estimate_s <= self.first_estimate_s:
            return 0.0
        return (self.estimates - 1) / (self.last_estimate_s - self.first_estimate_s)


class HopPipeline(Protocol[Due]):
    """A pipeline as a run drives it from hop to hop: see Pipeline."""

    @property
    def perception(self) -> Perception: ...
    @property
    def clock(self) -> StreamClock: ...
    @property
    def statistics(self) -> Statistics: ...
    def estimate(self, end_s: float, /) -> Due: ...
    def emit(self, due: Due, /) -> None: ...
    def afterwards(self, due: Due, /) -> None: ...


@dataclass(slots=True)
class _Followed:
    """What goes on from estimate to estimate of the stream, or of one person."""

    steadied: Steadied
    attribution: Attribution = field(default_factory=Attribution)


class Pipeline:
    """Perception, engine and sinks of one stream.

    `estimate` and, once its result is handed over, `afterwards` run in one thread, `emit` where the sinks live.
    """

    def __init__(
        self,
        perception: Perception,
        engine: Recogniser,
        clock: StreamClock,
        stream: str,
        dropped: Callable[[], Dropped],
        *,
        timed: bool,
        steadiness: Steadiness = BY_DEFAULT,
    ) -> None:
        self.perception = perception
        self.engine = engine
        self.clock = clock
        self.stream = stream
        self.timed = timed
        self.statistics = Statistics()
        self.outputs = Outputs[Emission](perception, clock)
        self.steadied = Steadied(steadiness)
        self._stream = _Followed(self.steadied)
        self._persons: dict[int, _Followed] = {}
        self._turns = FairTurns()
        self._people_lag = PeopleLag(self.outputs.on_worker)
        self._dropped = dropped
        self._model = ModelName(name=engine.checkpoint.name, checkpoint=engine.checkpoint.digest)
        self._seq = 0

    def estimate(self, end_s: float) -> Emission:
        """Cut the windows that end at `end_s`, run the model, build the estimates."""
        perceived = self.perception.perceive(end_s)
        if perceived.view is None:
            emission = self._emission(self._stream, perceived, self.engine.infer(perceived.cut))
        else:
            emission = self._estimate_people(perceived, end_s)
        self._seq += 1
        if emission.inference is not None:
            self.statistics.inference_ms.append(emission.inference.inference_ms)
        if self.timed and emission.newest_s is not None:
            self.statistics.capture_to_estimate_ms.append((self.clock.now() - emission.newest_s) * 1000)
        return emission

    def _estimate_people(self, perceived: Perceived, end_s: float) -> Emission:
        """The stream's estimate, and with it those of the people whose turn it is, in one batch."""
        here = {one.person: one for one in perceived.people}
        self._persons = {
            person: self._persons.get(person) or _Followed(Steadied(self.steadied.steadiness)) for person in here
        }
        due = self._turns.at(end_s, list(here)) if self.timed else list(here)
        begun_s = time.monotonic()
        first, *others = self.engine.infer_many([perceived.cut, *(here[person].cut for person in due)])
        emission = self._emission(self._stream, perceived, first)
        told = []
        for person, inference in zip(due, others, strict=True):
            followed, one = self._persons[person], here[person]
            followed.steadied.keep(self.steadied.steadiness)
            own = replace(perceived, cut=one.cut, words=one.words)
            told.append(self._emission(followed, own, inference, person, one.silent))
        return replace(emission, people=tuple(told), took_s=time.monotonic() - begun_s)

    def _emission(
        self,
        followed: _Followed,
        perceived: Perceived,
        inference: Inference | None,
        person: int | None = None,
        silent: Silence | None = None,
    ) -> Emission:
        inference = followed.attribution.known(perceived.cut, inference)
        newest_s = perceived.cut.newest_present_s
        shown, top = followed.steadied.of(inference, perceived.cut.end_s)
        estimate = build_estimate(
            perceived.cut,
            shown,
            top,
            stream=self.stream,
            seq=self._seq,
            epoch_unix=self.clock.epoch_unix,
            faces=perceived.faces,
            transcript=" ".join(word.text for word in perceived.words),
            overlapped=any(word.overlapped for word in perceived.words),
            capture_to_estimate_ms=None if newest_s is None else (self.clock.now() - newest_s) * 1000,
            timed=self.timed,
            dropped=self._dropped(),
            model=self._model,
            person=person,
            silent=silent,
        )
        return Emission(estimate, perceived, inference, newest_s, self.timed)

    def emit(self, emission: Emission) -> None:
        """Hand the estimates to the outputs."""
        end_s = emission.perceived.cut.end_s
        self.statistics.estimates += 1
        self.statistics.last_estimate_s = end_s
        if self.statistics.first_estimate_s is None:
            self.statistics.first_estimate_s = end_s
        self.outputs.on_estimate(emission)
        if (view := emission.perceived.view) is not None:
            self.statistics.people = len(view.people)
            if emission.people:
                self.statistics.of_people[len(view.people)] += len(emission.people)
            self.outputs.on_people(view)
            for one in emission.people:
                self.outputs.on_person(one)
            if self.timed:
                people = len(view.people)
                self._people_lag.check(view, (self._turns.rate_hz(people), self._turns.rate_hz(1)))

    def afterwards(self, emission: Emission) -> None:
        """Do what the estimate need not wait for: measure what a modality has to do with it; of people one a hop."""
        if emission.perceived.view is None:
            self._stream.attribution.measure(self.engine, emission.perceived.cut, emission.inference)
            return
        begun_s = time.monotonic()
        measured = [(self._stream, emission)]
        if told := emission.people:
            one = told[emission.estimate.seq % len(told)]
            measured += [(who, one) for person, who in self._persons.items() if person == one.estimate.person]
        measure(self.engine, [(who.attribution, each.perceived.cut, each.inference) for who, each in measured])
        self._turns.took(1 + len(told), emission.took_s + time.monotonic() - begun_s)
