"""The pipeline behind every run: at each hop, the window becomes an estimate, and the estimate goes to the sinks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

from dhmd.checkpoint import Checkpoint
from realtime.clock import StreamClock
from realtime.messages.estimate import Dropped, Estimate, ModelName
from realtime.perception.perception import Perceived, Perception
from realtime.perception.window import WindowCut
from realtime.pipeline.outputs import Outputs
from realtime.recognition.attribution import Attribution
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

    @cached_property
    def payload(self) -> bytes:
        return self.estimate.model_dump_json().encode()


class Recogniser(Protocol):
    """Turns a window into numbers: an engine of one's own, or one that is shared."""

    checkpoint: Checkpoint

    def infer(self, cut: WindowCut, /) -> Inference | None: ...


@dataclass(slots=True)
class Statistics:
    """Figures of a run, told when it ends."""

    estimates: int = 0
    missed_ticks: int = 0
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
        self._attribution = Attribution()
        self._dropped = dropped
        self._model = ModelName(name=engine.checkpoint.name, checkpoint=engine.checkpoint.digest)
        self._seq = 0

    def estimate(self, end_s: float) -> Emission:
        """Cut the window that ends at `end_s`, run the model, build the estimate."""
        perceived = self.perception.perceive(end_s)
        inference = self._attribution.known(perceived.cut, self.engine.infer(perceived.cut))
        newest_s = perceived.cut.newest_present_s
        latency_ms = None if newest_s is None else (self.clock.now() - newest_s) * 1000
        shown, top = self.steadied.of(inference, end_s)
        estimate = build_estimate(
            perceived.cut,
            shown,
            top,
            stream=self.stream,
            seq=self._seq,
            epoch_unix=self.clock.epoch_unix,
            faces=perceived.faces,
            transcript=" ".join(word.text for word in perceived.words),
            capture_to_estimate_ms=latency_ms,
            timed=self.timed,
            dropped=self._dropped(),
            model=self._model,
        )
        self._seq += 1
        if inference is not None:
            self.statistics.inference_ms.append(inference.inference_ms)
        if self.timed and latency_ms is not None:
            self.statistics.capture_to_estimate_ms.append(latency_ms)
        return Emission(estimate, perceived, inference, newest_s, self.timed)

    def emit(self, emission: Emission) -> None:
        """Hand the estimate to the outputs."""
        end_s = emission.perceived.cut.end_s
        self.statistics.estimates += 1
        self.statistics.last_estimate_s = end_s
        if self.statistics.first_estimate_s is None:
            self.statistics.first_estimate_s = end_s
        self.outputs.on_estimate(emission)

    def afterwards(self, emission: Emission) -> None:
        """Do what the estimate need not wait for: measure what a modality has to do with it."""
        self._attribution.measure(self.engine, emission.perceived.cut, emission.inference)
