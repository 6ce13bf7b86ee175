"""A run on the session clock: capture, perception, engine and publisher side by side under one task group.

capture threads -> LatestFrame / AudioRing -> perception threads -> window -> engine thread, at each hop -> sinks
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from dhmd.modality import Modality
from realtime.capture.queues import AudioFanOut, AudioRing, LatestFrame
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.messages.estimate import Dropped
from realtime.perception.perception import Perception
from realtime.pipeline.pipeline import Due, Hopping
from realtime.workers import BlockingWorker, Pause, WorkerStatus, supervise

VOICE_RING_S = 5.0
TRANSCRIPT_RING_S = 15.0
POLL_S = 0.1
GRACE_S = 1.2


@dataclass(frozen=True, slots=True)
class LiveSource:
    """What a run captures. Each stream is started in a thread of its own and ends when its event is set."""

    frames: Callable[[threading.Event], Iterator[VideoFrame]] | None
    blocks: Callable[[threading.Event], Iterator[AudioBlock]] | None
    lost: Callable[[], Dropped] = lambda: Dropped(video=0, audio=0)
    """Frames and blocks that were lost before they reached a queue."""


@dataclass(slots=True)
class Steering:
    """What may be changed of a run that is under way. hop_s: instead of the one it began with."""

    hop_s: float | None = None
    pause: Pause = field(default_factory=Pause)
    resumed_s: float = -math.inf
    """When the last pause ended, session time."""

    def takes(self, captured_s: float) -> bool:
        """Whether what was captured then may be perceived: nothing from a pause is, even if it is delivered later."""
        return self.pause.reason is None and captured_s >= self.resumed_s


class Delivery:
    """The queues between a source and perception, and what was lost on the way."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.frames = LatestFrame()
        self.voice = AudioRing(VOICE_RING_S)
        self.transcript = AudioRing(TRANSCRIPT_RING_S)
        self.sound = AudioFanOut([self.voice, self.transcript])

    def dropped(self) -> Dropped:
        lost = self.source.lost()
        return Dropped(
            video=lost.video + self.frames.dropped,
            audio=lost.audio + max(self.voice.dropped, self.transcript.dropped),
        )


async def run_live(
    pipeline: Hopping[Due],
    delivery: Delivery,
    *,
    hop_s: float,
    duration_s: float | None,
    stop: asyncio.Event,
    on_status: Callable[[WorkerStatus], None],
    steering: Steering | None = None,
) -> None:
    """Run until the source ends, `duration_s` is over, or `stop` is set; then end all workers in order.

    In a pause, the workers of capture are ended; the rest goes on, and perceives nothing.
    """
    steering = steering or Steering()
    capture, perceive = _capture(delivery, steering), _perceive(pipeline.perception, delivery)
    async with asyncio.TaskGroup() as group:

        def start(workers: dict[str, BlockingWorker], pause: Pause | None = None) -> list[asyncio.Task[None]]:
            return [
                group.create_task(supervise(name, worker, on_status=on_status, grace_s=GRACE_S, pause=pause), name=name)
                for name, worker in workers.items()
            ]

        capturing = start(capture, steering.pause)
        perceiving = start(perceive)
        ticking = group.create_task(_tick(pipeline, lambda: steering.hop_s or hop_s), name="engine")
        stopping = group.create_task(stop.wait(), name="stop")
        # Perception ends by itself once capture has ended and every queue is drained.
        ending = group.create_task(_all_done(perceiving), name="ending")
        try:
            await asyncio.wait({ending, stopping}, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, ending, *capturing, *perceiving, ticking):
                task.cancel()
            await asyncio.wait({*capturing, *perceiving, ticking})


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


def _capture(delivery: Delivery, steering: Steering) -> dict[str, BlockingWorker]:
    """One worker a stream. A stream that ends closes its queue; one that fails or is stopped leaves it open for the
    next try."""
    source = delivery.source
    workers: dict[str, BlockingWorker] = {}
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


def _perceive(perception: Perception, delivery: Delivery) -> dict[str, BlockingWorker]:
    """One worker a modality that the source feeds."""
    source = delivery.source
    frames, voice, transcript = delivery.frames, delivery.voice, delivery.transcript

    def see() -> None:
        # The newest when it is our turn, not the one that was new when we began to wait for it.
        with perception.turn(Modality.VISION):
            if (frame := frames.get(0.0)) is not None:
                perception.see(frame)

    def hear() -> None:
        if (block := voice.get(0.0)) is not None:
            perception.hear(block)

    workers: dict[str, BlockingWorker] = {}
    if source.frames is not None:
        workers["face"] = _consumer(frames, see)
    if source.blocks is not None:
        workers["voice"] = _consumer(voice, hear)
        workers["transcript"] = _consumer(
            transcript, lambda: perception.listen(_waiting(transcript)), perception.finish
        )
    return workers


def _consumer(
    queue: LatestFrame | AudioRing, use: Callable[[], None], finish: Callable[[], None] = lambda: None
) -> BlockingWorker:
    """A worker that uses what waits until the queue is closed and empty."""

    def work(stop: threading.Event, running: Callable[[], None]) -> None:
        running()
        while not stop.is_set():
            if queue.wait(POLL_S):
                use()
            elif queue.closed:
                finish()
                return

    return work


def _waiting(ring: AudioRing) -> list[AudioBlock]:
    """All blocks that wait."""
    blocks: list[AudioBlock] = []
    while (block := ring.get(0.0)) is not None:
        blocks.append(block)
    return blocks


class Phase:
    """Moves the ticks, a little each, to where a picture has just been taken up: the estimate waits for it, and is of
    the newest picture there is. Of ticks that fall differently among the pictures the best falls there.
    """

    AFTER_S = 0.008
    """What pictures come late by, now and then."""
    STEP_S = 0.001

    def __init__(self) -> None:
        self._waited_s: deque[float] = deque(maxlen=12)

    def shift_s(self, looking_for_s: float) -> float:
        """For the tick that is due; `looking_for_s` as of Perception."""
        self._waited_s.append(looking_for_s)
        least_s = min(self._waited_s)
        if least_s > 1.0:
            return 0.0
        shift_s = max(-self.STEP_S, min(self.STEP_S, self.AFTER_S - least_s))
        # As they would have been.
        self._waited_s = deque((waited_s + shift_s for waited_s in self._waited_s), self._waited_s.maxlen)
        return shift_s


async def _tick(pipeline: Hopping[Due], hop_now_s: Callable[[], float]) -> None:
    """One estimate a hop. A tick that comes more than a hop late is missed and counted, never made up for."""
    clock, loop, phase = pipeline.clock, asyncio.get_running_loop(), Phase()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine") as thread:
        due_s = clock.now()
        while True:
            hop_s = hop_now_s()
            due_s += hop_s
            late_hops = int((clock.now() - due_s) / hop_s)
            if late_hops > 0:
                pipeline.statistics.missed_ticks += late_hops
                due_s += late_hops * hop_s
            await asyncio.sleep(max(0.0, due_s - clock.now()))
            due_s += phase.shift_s(pipeline.perception.looking_for_s)
            pipeline.emit(await loop.run_in_executor(thread, pipeline.estimate, due_s))
