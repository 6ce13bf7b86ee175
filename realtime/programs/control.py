"""Commands to a run that is under way: to record, to pause, to mark, to change its hop and its smoothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from realtime.errors import CommandRefused
from realtime.messages.commands import Command, SetHop, SetMark, SetPause, SetRecord, SetSmoothing
from realtime.pipeline.live import Steering
from realtime.pipeline.pipeline import Pipeline
from realtime.session.folder import FolderRecording
from realtime.session.marks import Label, Marks
from realtime.session.recorder import Recorder

RELEASED_WITHIN_S: Final = 3.0
"""Time for which the answer to a pause waits for camera and microphone."""


class Control:
    """Carries out commands on one run. Lives in the event loop.

    description: of a recording that begins now, see `describe`. recorder: of the whole run. recording: into a folder;
    None where none was named.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        steering: Steering,
        description: Mapping[str, str],
        recorder: Recorder | None = None,
        recording: FolderRecording | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._steering = steering
        self._description = dict(description)
        self._whole = Marks(recorder) if recorder is not None else None
        self._recording = recording

    async def carry_out(self, command: Command, received_s: float) -> str:
        """Carry out a command; returns the new state in words. received_s: on the monotonic clock.

        Raises CommandRefused.
        """
        match command:
            case SetRecord():
                return self._record() if command.on else await self._stop_recording()
            case SetPause():
                return await self._pause() if command.on else self._resume()
            case SetMark():
                return self._mark(command, self._pipeline.clock.now() - (time.monotonic() - received_s))
            case SetHop():
                return self._set_hop(command.seconds)
            case SetSmoothing():
                self._pipeline.steadied.smoothing.seconds = command.seconds
                return f"averaged over {command.seconds:g} s" if command.seconds else "not averaged"
            case _:
                raise CommandRefused("there is no such command")

    async def close(self) -> None:
        """End what is being recorded and marked, with the run."""
        if self._whole is not None:
            self._whole.close(self._pipeline.clock.now())
        if self._recording is not None:
            await self._recording.stop()

    @property
    def _marks(self) -> Marks | None:
        """Marks on what is recorded now."""
        marks = self._whole or (self._recording.marks if self._recording else None)
        return None if marks is None or marks.recorder.failed is not None else marks

    def _record(self) -> str:
        if self._whole is not None:
            raise CommandRefused("the whole run is recorded already, by --record")
        if self._recording is None:
            raise CommandRefused("no folder for recordings; start the run with --record-dir")
        if self._marks is not None:
            raise CommandRefused("it is recorded already; stop that first")
        return f"recording into {self._recording.start(self._description)}"

    async def _stop_recording(self) -> str:
        if self._recording is None or (marks := self._marks) is None or self._whole is not None:
            raise CommandRefused("nothing is recorded that could be stopped")
        await self._recording.stop()
        if marks.recorder.failed is not None:
            raise CommandRefused("the recording failed; what was written before is kept")
        return "recorded"

    async def _pause(self) -> str:
        pause = self._steering.pause
        if pause.reason is None:
            pause.begin("by command")
        if not await pause.released(RELEASED_WITHIN_S):
            return f"paused; not released yet: {', '.join(sorted(pause.holding))}"
        return "paused; camera and microphone are released"

    def _resume(self) -> str:
        pause = self._steering.pause
        if pause.reason is None:
            return "not paused"
        self._steering.resumed_s = self._pipeline.clock.now()
        pause.end()
        return "resumed"

    def _mark(self, command: SetMark, now_s: float) -> str:
        if (marks := self._marks) is None:
            raise CommandRefused("marks label a recording, and there is none")
        label = Label(command.emotion, command.sentiment)
        if command.mark == "begin":
            marks.begin(now_s, label)
            return "marking"
        if command.mark == "end":
            return marks.end(now_s, label)
        return marks.last(command.seconds or self._pipeline.perception.window.window_s, now_s, label)

    def _set_hop(self, seconds: float) -> str:
        if self._marks is not None:
            raise CommandRefused("a recording keeps one hop; stop it first")
        self._steering.hop_s = seconds
        self._description["hop_s"] = repr(seconds)
        return f"an estimate every {seconds:g} s"
