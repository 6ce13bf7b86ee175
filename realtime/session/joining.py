"""A recording that begins in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO

from realtime.pipeline.pipeline import Pipeline
from realtime.session.recorder import Recorder
from realtime.workers import WorkerStatus


def join_run(
    pipeline: Pipeline,
    file: IO[bytes],
    description: Mapping[str, str],
    statuses: Iterable[WorkerStatus],
    *,
    video: bool,
    sound: bool,
) -> Recorder:
    """Record a run from now on: with what its first window is made of, and the newest status of each worker.

    It is to be started, and handed the estimates. description: see `describe`.
    """
    now_s = pipeline.clock.now()
    recorder = Recorder(
        file, pipeline.clock, description, video=video, sound=sound, patient=not pipeline.timed, start_s=now_s
    )
    for status in statuses:
        recorder.on_worker(status)
    recorder.from_revision = pipeline.perception.join(recorder, now_s)
    return recorder
