"""Recordings into a folder, begun and ended by command."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from realtime.errors import CommandRefused
from realtime.pipeline.pipeline import Pipeline
from realtime.session.files import private
from realtime.session.limited import MOST_BYTES_IN_ALL, LimitedRecording
from realtime.session.marks import Marks
from realtime.session.recorder import WORKER, Recorder
from realtime.workers import WorkerState, WorkerStatus

logger = logging.getLogger(__name__)

MOST_FILES: Final = 1000
"""Sessions in the folder at which no other one begins."""


class FolderRecording(LimitedRecording):
    """Recordings into one folder. video, sound: whether they are recorded, too."""

    def __init__(self, folder: Path, pipeline: Pipeline, *, video: bool, sound: bool) -> None:
        super().__init__(pipeline, pipeline.outputs.on_worker)
        self.marks: Marks | None = None
        """Marks by command on the recording that is under way."""
        self._folder = folder
        self._video, self._sound = video, sound

    def start(self, description: Mapping[str, str]) -> str:
        """Begin a recording; returns the name of its file. description: see `describe`. Raises CommandRefused."""
        recorder = self.begin(description, video=self._video, sound=self._sound)
        self.marks = Marks(recorder)
        return Path(recorder.name).name

    def _new_file(self, name: str) -> IO[bytes]:
        sizes = [path.stat().st_size for path in self._folder.glob("*.mcap")]
        if len(sizes) >= MOST_FILES or sum(sizes) >= MOST_BYTES_IN_ALL:
            raise CommandRefused("the folder of recordings is full; move some away")
        for number in range(1, 100):
            with contextlib.suppress(FileExistsError):
                path = self._folder / f"{name}{f'-{number}' if number > 1 else ''}.mcap"
                return open(path, "xb", opener=private)
        raise CommandRefused("too many recordings in one second")

    def _on_end(self) -> None:
        if self.marks is not None:
            self.marks.close(self._pipeline.clock.now())
            self.marks = None

    async def _on_written(self, recorder: Recorder, reason: str) -> None:
        if reason:
            logger.warning("%s: %s", recorder.name, reason)
            self._on_status(WorkerStatus(WORKER, WorkerState.ENDED, reason))
