"""A recording that begins and ends while a run continues, within limits, wherever its file goes."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import IO, Final

from dhmd.errors import LibraryMissing
from realtime.errors import CommandRefused
from realtime.pipeline.pipeline import Emission, Pipeline
from realtime.session.media import require_encoder
from realtime.session.recorder import WORKER, Recorder
from realtime.workers import WorkerState, WorkerStatus

MOST_S: Final = 3600.0
MOST_BYTES: Final = 10**9
"""Limit of one recording."""
MOST_BYTES_IN_ALL: Final = 4 * 10**9
"""Limit of all recordings that are kept in one place."""
CHECK_EVERY_S: Final = 0.5


class LimitedRecording(abc.ABC):
    """Records parts of a run, one at a time: a sink of its estimates, told of its workers. Lives in the event loop.

    Subclasses say where files go, and what happens when a recording ends. on_status: told what the writer says of
    itself.
    """

    def __init__(self, pipeline: Pipeline, on_status: Callable[[WorkerStatus], object] = lambda _: None) -> None:
        self.recorder: Recorder | None = None
        """Writes the recording that is under way."""
        self._pipeline = pipeline
        self._on_status = on_status
        self._file: IO[bytes] | None = None
        self._checked_s = 0.0
        self._finishing: set[asyncio.Task[None]] = set()

    @abc.abstractmethod
    def _new_file(self, name: str) -> IO[bytes]:
        """Open a file for one more recording. name: without suffix. Raises OSError, and CommandRefused without room."""

    @abc.abstractmethod
    def _on_end(self) -> None:
        """Tell that a recording has ended; what is marked now is still part of it."""

    @abc.abstractmethod
    async def _on_written(self, recorder: Recorder, reason: str) -> None:
        """Tell that the file is whole. reason: the limit that ended it, if one did."""

    def _full(self) -> str:
        """Return why a recording that is under way has no more room; empty while it has."""
        return ""

    def begin(self, description: Mapping[str, str], *, video: bool, sound: bool) -> Recorder:
        """Record from now on, with what the first window is made of and the newest status of each worker.

        description: see `describe`. Raises CommandRefused.
        """
        self.end()  # one that failed just now
        pipeline, loop = self._pipeline, asyncio.get_running_loop()
        stream = re.sub(r"[^\w.-]+", "_", pipeline.stream)
        try:
            if video:
                require_encoder()
            self._file = self._new_file(f"{stream}-{time.strftime('%Y%m%d-%H%M%S')}")
        except LibraryMissing as error:
            raise CommandRefused(str(error)) from None
        except OSError as error:
            raise CommandRefused(f"nothing can be recorded: {error.strerror}") from None
        now_s, patient = pipeline.clock.now(), not pipeline.timed
        recorder = Recorder(
            self._file, pipeline.clock, description, video=video, sound=sound, patient=patient, start_s=now_s
        )
        self.recorder, self._checked_s = recorder, now_s
        for status in pipeline.outputs.workers.values():
            self.on_worker(status)
        recorder.from_revision = pipeline.perception.join(recorder, now_s)
        recorder.start(lambda status: loop.call_soon_threadsafe(self._on_writer, recorder, status))
        return recorder

    def end(self, reason: str = "") -> None:
        """End the one that is under way, if one is; its file is completed in the background."""
        recorder, file = self.recorder, self._file
        if recorder is None or file is None:
            return
        self.recorder = self._file = None
        self._pipeline.perception.leave(recorder)
        self._on_end()
        task = asyncio.create_task(self._finish(recorder, file, reason), name=WORKER)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def stop(self) -> None:
        """End the one that is under way, and wait until it is on the disk."""
        self.end()
        if self._finishing:
            await asyncio.wait(self._finishing)

    def on_estimate(self, emission: Emission) -> None:
        if (recorder := self.recorder) is None:
            return
        recorder.on_estimate(emission)
        end_s = emission.perceived.cut.end_s
        if end_s - self._checked_s >= CHECK_EVERY_S:
            self._checked_s = end_s
            if reason := self._limit(recorder, end_s):
                self.end(reason)

    def on_person(self, emission: Emission) -> None:
        if self.recorder is not None:
            self.recorder.on_person(emission)

    def on_worker(self, status: WorkerStatus) -> None:
        if self.recorder is not None and status.worker != WORKER:
            self.recorder.on_worker(status)

    def _limit(self, recorder: Recorder, now_s: float) -> str:
        if now_s - recorder.start_s >= MOST_S:
            return f"stopped after {MOST_S / 60:g} minutes, the longest that is recorded"
        if recorder.written >= MOST_BYTES:
            return f"stopped at {MOST_BYTES / 1e9:g} GB, the largest that is recorded"
        return self._full()

    def _on_writer(self, recorder: Recorder, status: WorkerStatus) -> None:
        self._on_status(status)
        if status.state is WorkerState.FAILED and self.recorder is recorder:
            self.end()

    async def _finish(self, recorder: Recorder, file: IO[bytes], reason: str) -> None:
        await asyncio.to_thread(_close, recorder, file)
        await self._on_written(recorder, reason)


def _close(recorder: Recorder, file: IO[bytes]) -> None:
    """Write what still waits, which may take a while."""
    recorder.close()
    with contextlib.suppress(OSError):
        file.close()
