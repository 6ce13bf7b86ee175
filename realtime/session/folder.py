"""Recordings into a folder, one at a time, begun and ended while a run goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

from realtime.errors import CommandRefused
from realtime.pipeline.pipeline import Emission, Pipeline
from realtime.session.joining import join_run
from realtime.session.recorder import WORKER, Recorder
from realtime.workers import WorkerState, WorkerStatus

logger = logging.getLogger(__name__)

MOST_S: Final = 3600.0
MOST_BYTES: Final = 10**9
"""Of one recording."""
MOST_FILES: Final = 1000
MOST_BYTES_IN_ALL: Final = 4 * 10**9
"""Of the sessions in the folder, when another one begins."""
CHECK_EVERY_S: Final = 0.5


class FolderRecording:
    """A sink of the estimates, told of the workers. Lives in the event loop.

    on_status: told how the recording fares. video, sound: whether they are recorded, too.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        on_status: Callable[[WorkerStatus], object],
        *,
        video: bool,
        sound: bool,
    ) -> None:
        self.recorder: Recorder | None = None
        """The one that is under way."""
        self._folder = folder
        self._pipeline = pipeline
        self._on_status = on_status
        self._video, self._sound = video, sound
        self._statuses: dict[str, WorkerStatus] = {}
        self._file: IO[bytes] | None = None
        self._checked_s = 0.0
        self._ending: set[asyncio.Task[None]] = set()

    def start(self, description: Mapping[str, str]) -> str:
        """Begin one; returns the name of its file. description: see `describe`. Raises CommandRefused."""
        try:
            sizes = [path.stat().st_size for path in self._folder.glob("*.mcap")]
            if len(sizes) >= MOST_FILES or sum(sizes) >= MOST_BYTES_IN_ALL:
                raise CommandRefused("the folder of recordings is full; move some away")
            self._file = self._new_file()
        except OSError as error:
            raise CommandRefused(f"nothing can be recorded: {error.strerror}") from None
        file, loop = self._file, asyncio.get_running_loop()
        statuses = self._statuses.values()
        recorder = join_run(self._pipeline, file, description, statuses, video=self._video, sound=self._sound)

        def written(status: WorkerStatus) -> None:
            self._on_status(status)
            if status.state is WorkerState.FAILED and self.recorder is recorder:
                self._end()

        self.recorder, self._checked_s = recorder, recorder.start_s
        recorder.start(lambda status: loop.call_soon_threadsafe(written, status))
        return Path(file.name).name

    async def stop(self) -> None:
        """End the one that is under way, and wait until it is on the disk."""
        if self.recorder is not None:
            self._end()
        if self._ending:
            await asyncio.wait(self._ending)

    def on_estimate(self, emission: Emission) -> None:
        if (recorder := self.recorder) is None:
            return
        recorder.on_estimate(emission)
        end_s = emission.perceived.cut.end_s
        if end_s - self._checked_s < CHECK_EVERY_S:
            return
        self._checked_s = end_s
        if end_s - recorder.start_s >= MOST_S:
            self._end(f"stopped after {MOST_S / 60:g} minutes, the longest that is recorded")
        elif recorder.written >= MOST_BYTES:
            self._end(f"stopped at {MOST_BYTES / 1e9:g} GB, the largest that is recorded")

    def on_worker(self, status: WorkerStatus) -> None:
        """A recording begins with the newest status of each worker."""
        if status.worker == WORKER:
            return
        self._statuses[status.worker] = status
        if self.recorder is not None:
            self.recorder.on_worker(status)

    def _new_file(self) -> IO[bytes]:
        stream = re.sub(r"[^\w.-]+", "_", self._pipeline.stream)
        name = f"{stream}-{time.strftime('%Y%m%d-%H%M%S')}"
        for number in range(1, 100):
            with contextlib.suppress(FileExistsError):
                return (self._folder / f"{name}{f'-{number}' if number > 1 else ''}.mcap").open("xb")
        raise CommandRefused("too many recordings in one second")

    def _end(self, reason: str = "") -> None:
        recorder, file, self.recorder, self._file = self.recorder, self._file, None, None
        if recorder is None or file is None:
            return
        self._pipeline.perception.leave(recorder)
        task = asyncio.create_task(self._finish(recorder, file, reason), name=WORKER)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _finish(self, recorder: Recorder, file: IO[bytes], reason: str) -> None:
        await asyncio.to_thread(_close, recorder, file)
        if reason:
            logger.warning("%s: %s", recorder.name, reason)
            self._on_status(WorkerStatus(WORKER, WorkerState.ENDED, reason))


def _close(recorder: Recorder, file: IO[bytes]) -> None:
    """Write what waits. May take a while, as all that the disk does."""
    recorder.close()
    with contextlib.suppress(OSError):
        file.close()
