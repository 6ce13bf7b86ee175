"""Recording of a run: what was perceived, when, and what the model made of it, as an MCAP file that survives a crash.

Everything is handed over without waiting, to a bounded queue; one thread encodes and writes. A message that finds the
queue full is dropped, counted, and named in the file. At least once a second all that has arrived goes to the file as
one complete chunk: a killed run loses no more than that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from dhmd.checkpoint import Checkpoint
from dhmd.contract import Rows, Word
from dhmd.features.face import FaceObservation
from dhmd.modality import Modality
from dhmd.session import schema
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.clock import StreamClock
from realtime.concerned import carried
from realtime.errors import SettingsInvalid
from realtime.perception.speaking import Turn
from realtime.perception.transcript import TranscriptUpdate
from realtime.pipeline.pipeline import Emission
from realtime.session import messages
from realtime.session.files import private
from realtime.session.media import VideoEncoder
from realtime.session.writer import Build, SessionWriter
from realtime.workers import WorkerState, WorkerStatus

logger = logging.getLogger(__name__)

WORKER = "recording"
CHUNK_S = 0.8
ENCODE_S = 0.2
"""Time between two encodings of what has arrived, so that little is left to do when a chunk is due."""
QUEUE_MESSAGES = 4096
QUEUE_BYTES = 64 * 2**20
LANDMARKS_EVERY_S = 0.3
CLOSING_S = 5.0
"""Time in which what still waits has to be written at the end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Message that waits to be written. weight: bytes it holds on to."""

    topic: str
    arrived_s: float
    captured_s: float
    build: Build
    weight: int = 0


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for a recording, which replaces none; left empty, it is removed again.

    Raises SettingsInvalid.
    """
    try:
        file = open(path, "xb", opener=private)  # noqa: SIM115 - a path takes no opener
    except FileExistsError:
        raise SettingsInvalid(f"--record {path}: already exists; name another file, or move it away") from None
    except OSError as error:
        raise SettingsInvalid(f"--record {path}: cannot be written ({error.strerror}); name another file") from None
    try:
        yield file
    finally:
        # After a full disk closing fails once more, and closes.
        with contextlib.suppress(OSError):
            file.close()
        if path.stat().st_size == 0:
            path.unlink()


def describe(
    checkpoint: Checkpoint, *, stream: str, hop_s: float, timed: bool, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Return the metadata of a session. settings: without secrets."""
    specs = [checkpoint.features[m].to_dict() for m in Modality]
    return {
        "stream": stream,
        "hop_s": repr(hop_s),
        "timed": json.dumps(timed),
        "model": checkpoint.name,
        "checkpoint": checkpoint.digest,
        "features": json.dumps(specs),
        "settings": json.dumps(dict(settings)),
    }


class Recorder:
    """A sink of estimates and an observer of perception that writes a session file.

    file: see `new_file`. description: see `describe`. video, sound: whether pictures and sound are recorded too.
    patient: whether to wait when the queue is full, where time is the file's own and nothing is late.
    start_s: the beginning on the stream clock: now, where it joins a run that is under way.
    """

    def __init__(
        self,
        file: IO[bytes],
        clock: StreamClock,
        description: Mapping[str, str],
        *,
        video: bool = False,
        sound: bool = False,
        patient: bool = False,
        start_s: float = 0.0,
    ) -> None:
        self.name = file.name
        self.start_s = start_s
        self.from_revision = 0
        """First revision of the window (see Perception.join) whose estimates are recorded; earlier ones lack rows."""
        self.written = 0
        """Bytes in the file, in whole chunks."""
        self._clock = clock
        self._patient = patient
        self.video, self.sound = video, sound
        self._encoder = VideoEncoder() if video else None
        self._landmarks_s = -LANDMARKS_EVERY_S
        self._words: TranscriptUpdate | None = None
        self._wake = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._weight = 0
        self._lost: Counter[str] = Counter()
        self._closing = False
        self.failed: str | None = None
        """Reason why recording stopped before the run did; None while it continues."""
        self._blank = True
        """True until something is perceived."""
        self.cpu_s = 0.0
        """Processor time of the writing thread, once it has ended."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        opening = {"version": str(schema.VERSION), "created": created, "epoch_unix": repr(clock.epoch_unix)}
        opening |= {"start_s": repr(start_s)}
        self._head = {**opening, **description}
        self._file = file
        self._thread: threading.Thread | None = None

    def on_frame(self, frame: VideoFrame) -> None:
        if (encoder := self._encoder) is not None:
            image = frame.image
            self._put(schema.VIDEO, frame.captured_s, lambda when: encoder.encode(image, when), image.nbytes)

    def on_sound(self, block: AudioBlock) -> None:
        if self.sound:
            self._put(schema.SOUND, block.captured_s, lambda when: messages.sound(block, when), block.samples.nbytes)

    def on_face(self, observation: FaceObservation) -> None:
        captured_s = observation.captured_s
        self._put(schema.FACE, captured_s, lambda when: messages.face(observation, when))
        # The small term is for times that are sums of many durations.
        if observation.landmarks is not None and captured_s - self._landmarks_s > LANDMARKS_EVERY_S - 0.01:
            self._landmarks_s = captured_s
            self._put(schema.LANDMARKS, captured_s, lambda when: messages.landmarks(observation, when))

    def on_rows(self, modality: Modality, rows: Rows, revision: int) -> None:
        self._blank = False
        topic, captured_s = schema.FEATURES[modality], float(rows.times_s[-1])
        self._put(topic, captured_s, lambda when: messages.features(rows, revision, when), rows.values.nbytes)

    def on_person_rows(self, person: int, modality: Modality, rows: Rows, revision: int, replaces: bool) -> None:
        topic, captured_s = (
            schema.PERSON_FEATURES[modality],
            float(rows.times_s[-1]) if len(rows) else self._clock.now(),
        )
        self._put(
            topic,
            captured_s,
            lambda when: messages.features(rows, revision, when, person, replaces),
            rows.values.nbytes,
        )

    def on_person_words(self, person: int, words: Sequence[Word], revision: int) -> None:
        now_s = self._clock.now()
        self._put(schema.PERSON_WORDS, now_s, lambda when: messages.person_words(person, words, revision, when))

    def on_turns(self, turns: Sequence[Turn]) -> None:
        self._put(schema.TURNS, self._clock.now(), lambda when: messages.turns(turns, when))

    def on_words(self, update: TranscriptUpdate, revision: int) -> None:
        if not update.final and self._words is not None and update.partial == self._words.partial:
            return
        self._words = update
        self._put(schema.WORDS, self._clock.now(), lambda when: messages.words(update, revision, when))

    def on_estimate(self, emission: Emission) -> None:
        cut = emission.perceived.cut
        if cut.revision < self.from_revision or cut.end_s < self.start_s:
            return
        self._put(schema.ESTIMATE, cut.end_s, lambda when: messages.estimate(emission, when))

    def on_person(self, emission: Emission) -> None:
        end_s = emission.perceived.cut.end_s
        if end_s >= self.start_s:
            self._put(schema.PERSON_ESTIMATE, end_s, lambda when: messages.person_estimate(emission, when))

    def on_worker(self, status: WorkerStatus) -> None:
        self._put(schema.STATUS, self._clock.now(), lambda when: messages.status(status, when))

    def mark(self, start_s: float, end_s: float, emotion: str | None = None, sentiment: float | None = None) -> None:
        """Label a stretch of the session."""
        self._put(schema.MARK, start_s, lambda when: messages.mark(start_s, end_s, emotion, sentiment, when))

    @property
    def lost(self) -> int:
        """Number of messages that found the queue full."""
        with self._wake:
            return self._lost.total()

    def _put(self, topic: str, captured_s: float, build: Build, weight: int = 0) -> None:
        entry = Entry(topic, self._clock.now(), captured_s, build, weight)
        with self._wake:
            if self._full(weight) and self._patient:
                self._wake.wait_for(lambda: self._ended or not self._full(weight))
            if self._ended:
                return
            if self._full(weight):
                self._lost[topic] += 1
                return
            self._queue.append(entry)
            self._weight += weight
            if self._filling:
                self._wake.notify_all()

    @property
    def _ended(self) -> bool:
        return self._closing or self.failed is not None

    @property
    def _filling(self) -> bool:
        """True when the queue had better be emptied before the chunk is due: pictures are large."""
        return len(self._queue) >= QUEUE_MESSAGES // 2 or self._weight >= QUEUE_BYTES // 4

    def _full(self, weight: int) -> bool:
        return len(self._queue) >= QUEUE_MESSAGES or (bool(self._queue) and self._weight + weight > QUEUE_BYTES)

    def _take(self, timeout_s: float) -> tuple[list[Entry], bool]:
        """Return what arrives within a time, earlier if it is much, and whether it is the last."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._filling, timeout_s)
            entries = list(self._queue)
            self._queue.clear()
            self._weight = 0
            self._wake.notify_all()
            return entries, self._closing

    def _write(self, on_status: Callable[[WorkerStatus], object]) -> None:
        def tell(state: WorkerState, reason: str = "") -> None:
            # Held up by a slow disk, this thread may outlive the event loop.
            with contextlib.suppress(RuntimeError):
                on_status(WorkerStatus(WORKER, state, reason))

        tell(WorkerState.RUNNING)
        whole = 0
        try:
            for whole in self._chunks():
                self.written = whole
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            with self._wake:
                self.failed = f"{self.name}: {reason}"
                self._queue.clear()
                self._wake.notify_all()
            _cut(self._file, whole)
            logger.warning("recording stopped, %s; what was written is kept, recognition continues", self.failed)
            tell(WorkerState.FAILED, self.failed)
        else:
            tell(WorkerState.ENDED)
        self.cpu_s = time.thread_time()

    def _chunks(self) -> Iterator[int]:
        """Write chunk after chunk until the recording is closed; yields the length of the file after each."""
        writer = SessionWriter(self._file, self._clock.epoch_unix, self._head)
        yield self._file.tell()
        told: Counter[str] = Counter()
        ended = False
        due_s = time.monotonic() + CHUNK_S
        while not ended:
            entries, ended = self._take(min(ENCODE_S, due_s - time.monotonic()))
            taken_s = time.monotonic()
            for entry in entries:
                writer.add(entry.topic, entry.arrived_s, entry.captured_s, entry.build)
            if not ended and taken_s < due_s:
                continue
            due_s = taken_s + CHUNK_S
            with self._wake:
                lost = self._lost - told
            for topic, count in lost.items():
                now_s = self._clock.now()
                writer.add(schema.LOST, now_s, now_s, lambda when, t=topic, n=count: messages.lost(t, n, when))  # type: ignore[misc]
            told += lost
            writer.end_chunk()
            yield self._file.tell()
        writer.finish()

    def start(self, on_status: Callable[[WorkerStatus], object] = lambda _: None) -> None:
        """Begin to write; until then all that arrives waits. on_status: called from the writing thread."""
        self._thread = threading.Thread(target=carried(self._write), args=(on_status,), name=WORKER, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def emptied_if_blank(self) -> Iterator[None]:
        """Empty the file on a failure before anything was perceived, so that the same name can be used again."""
        try:
            yield
        except BaseException:
            if self._blank and not self._file.closed:
                self._file.truncate(0)
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what still waits and complete the file. Closing again does nothing."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is None:
            return
        self._thread.join(None if self._patient else CLOSING_S)
        if self._thread.is_alive():
            logger.warning("%s: the disk is slow, the end of the recording is not on it yet", self.name)


def _cut(file: IO[bytes], length: int) -> None:
    """Close a file and cut it to a length: what its buffer still holds would go behind a gap."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.dup(file.fileno())
        with contextlib.suppress(OSError):
            file.close()
        os.ftruncate(descriptor, length)
        os.close(descriptor)
