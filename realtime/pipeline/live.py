"""A run on the stream clock: capture, perception, engine and publisher side by side under one task group.

capture threads -> LatestFrame / AudioRing -> perception threads -> window -> engine thread, at each hop -> sinks
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from dhmd.modality import Modality
from realtime.capture.delivery import Delivery
from realtime.capture.queues import AudioRing, HandOver, LatestFrame
from realtime.perception.perception import Perception
from realtime.pipeline.lag import LagWatch, Yielding
from realtime.pipeline.pipeline import Due, HopPipeline
from realtime.pipeline.ticks import tick
from realtime.workers import BlockingWorker, Pause, WorkerStatus, supervise

POLL_S = 0.1
GRACE_S = 1.2
OVERTAKEN_S = 0.5
"""Length of newer sound that waits, above which the voice leaves out what came before it."""


@dataclass(slots=True)
class Steering:
    """Changes to a run under way. hop_s: instead of the one it began with."""

    hop_s: float | None = None
    pause: Pause = field(default_factory=Pause)
    resumed_s: float = -math.inf
    """End of the last pause, stream time."""

    def takes(self, captured_s: float) -> bool:
        """Returns whether what was captured then may be perceived: nothing from a pause is, even if it comes later."""
        return self.pause.reason is None and captured_s >= self.resumed_s


async def run_live(
    pipeline: HopPipeline[Due],
    delivery: Delivery,
    *,
    hop_s: float,
    duration_s: float | None,
    stop: asyncio.Event,
    on_status: Callable[[WorkerStatus], None],
    steering: Steering | None = None,
    patient: bool = False,
) -> None:
    """Run until the source ends, `duration_s` is over, or `stop` is set; then end all workers in order.

    patient: wait for what is not there at the start; else it ends the run.

    In a pause, the workers of capture are ended; the rest goes on, and perceives nothing.
    """
    steering = steering or Steering()
    pipeline.perception.progress.follow(delivery, pipeline.clock.now)
    lag = LagWatch(pipeline.perception.progress, on_status)
    capture, perceive = _capture(delivery, steering), _perceive(pipeline, delivery, steering)
    async with asyncio.TaskGroup() as group:

        def start(workers: dict[str, BlockingWorker], pause: Pause | None = None) -> list[asyncio.Task[None]]:
            return [
                group.create_task(
                    supervise(name, worker, on_status=lag.on_worker, grace_s=GRACE_S, pause=pause, patient=patient),
                    name=name,
                )
                for name, worker in workers.items()
            ]

        capturing = start(capture, steering.pause)
        perceiving = start(perceive)
        ticking = group.create_task(tick(pipeline, lambda: steering.hop_s or hop_s), name="engine")
        watching = group.create_task(lag.watch(), name="lag")
        stopping = group.create_task(stop.wait(), name="stop")
        # Perception ends by itself once capture has ended and every queue is drained.
        ending = group.create_task(asyncio.wait(perceiving), name="ending")
        try:
            await asyncio.wait({ending, stopping}, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, ending, watching, *capturing, *perceiving, ticking):
                task.cancel()
            await asyncio.wait({*capturing, *perceiving, ticking})


def _capture(delivery: Delivery, steering: Steering) -> dict[str, BlockingWorker]:
    """One worker a stream of the source. A stream that ends closes its queue; one that fails or is stopped leaves it
    open for the next try."""
    source, workers = delivery.source, dict[str, BlockingWorker]()
    if source is None:
        return workers
    if source.frames is not None:
        workers["video"] = _producer(source.frames, delivery.frames, steering)
    if source.blocks is not None:
        workers["audio"] = _producer(source.blocks, delivery.sound, steering)
    return workers


class _Sample(Protocol):
    @property
    def captured_s(self) -> float: ...


S = TypeVar("S", bound=_Sample)
S_contra = TypeVar("S_contra", contravariant=True)


class _Queue(Protocol[S_contra]):
    def put(self, sample: S_contra, /) -> None: ...
    def close(self) -> None: ...


def _producer(
    samples: Callable[[threading.Event], Iterator[S]], queue: _Queue[S], steering: Steering
) -> BlockingWorker:
    """A worker that puts what is captured into a queue until there is no more, or it is stopped."""

    def work(stop: threading.Event, running: Callable[[], None]) -> None:
        for sample in samples(stop):
            running()
            if steering.takes(sample.captured_s):
                queue.put(sample)
        if not stop.is_set():
            queue.close()

    return work


def _perceive(pipeline: HopPipeline[Due], delivery: Delivery, steering: Steering) -> dict[str, BlockingWorker]:
    """One worker a modality that is captured."""
    perception, voice = pipeline.perception, delivery.voice

    def hear() -> None:
        if (block := voice.take()) is not None:
            overtaken = voice.waiting_s > OVERTAKEN_S
            delivery.overtaken += overtaken
            perception.hear(block, overtaken=overtaken)

    workers: dict[str, BlockingWorker] = {}
    if delivery.has_frames:
        see, see_again = _looking(pipeline, delivery.frames, steering)
        workers["face"] = _consumer(delivery.frames, see, meanwhile=see_again)
    if delivery.has_sound:
        workers["voice"] = _consumer(voice, hear)
    if delivery.has_words:
        listen = _listening(perception, delivery.transcript)
        workers["transcript"] = _consumer(delivery.transcript, listen, perception.finish)
    return workers


def _looking(
    pipeline: HopPipeline[Due], frames: LatestFrame, steering: Steering
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Looking at a new picture, and at one that stands."""
    perception = pipeline.perception

    def see() -> None:
        # The newest when it is our turn, not the one that was new when we began to wait for it.
        with perception.turn(Modality.VISION):
            picture = frames.take()
            frame = None if picture is None else picture.decoded()
            if frame is not None:
                perception.see(frame)
            elif picture is not None:
                perception.progress.looked(Modality.VISION, picture.captured_s)

    def see_again() -> None:
        now_s = pipeline.clock.now()
        with perception.turn(Modality.VISION):
            if steering.takes(now_s) and (frame := frames.standing(now_s)) is not None:
                perception.see(frame)

    return see, see_again


def _listening(perception: Perception, transcript: AudioRing) -> Callable[[], None]:
    words, a_while = Yielding(perception.progress), threading.Event()

    def listen() -> None:
        if words.gives_way():
            a_while.wait(POLL_S)
        else:
            perception.listen(list(iter(transcript.take, None)))

    return listen


def _consumer(
    queue: HandOver[Any],
    use: Callable[[], None],
    finish: Callable[[], None] = lambda: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> BlockingWorker:
    """A worker that uses what waits until the queue is closed and empty. meanwhile: done while nothing does."""

    def work(stop: threading.Event, running: Callable[[], None]) -> None:
        running()
        while not stop.is_set():
            if queue.wait(POLL_S):
                use()
            elif queue.closed:
                finish()
                return
            else:
                meanwhile()

    return work
