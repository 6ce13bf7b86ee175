"""Recordings that a page starts and stops while its stream runs, kept in a private folder until they are fetched."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from dhmd.errors import DHMDError
from realtime.pipeline.pipeline import Emission, Pipeline
from realtime.session.export.write import export
from realtime.session.joining import join_run
from realtime.session.marking import Marking
from realtime.session.recorder import Recorder
from realtime.web.address import WebAddress
from realtime.workers import WorkerState, WorkerStatus

MOST_S: Final = 3600.0
MOST_BYTES: Final = 10**9
"""Of one recording."""
MOST_BYTES_IN_ALL: Final = 4 * 10**9
MOST_OF_SESSION: Final = 4
"""Recordings that a session keeps; the oldest makes room."""
KEPT_S: Final = 600.0
"""How long what was recorded can be fetched after its session is over."""
CHECK_EVERY_S: Final = 0.5
MEDIA_TYPES: Final = {".mcap": "application/octet-stream", ".csv": "text/csv; charset=utf-8"}


@dataclass(eq=False)
class Kept:
    """What one recording leaves: files in a folder of its own, under a name that nobody guesses."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    files: dict[str, Path] = field(default_factory=dict)
    """Those that can be fetched."""

    @property
    def bytes(self) -> int:
        """On the disk, with what cannot be fetched yet."""
        total = 0
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                total += path.stat().st_size
        return total


class Recordings:
    """All recordings of a server. A context: what was not fetched at its end is gone. Lives in the event loop."""

    def __init__(self, address: WebAddress) -> None:
        self.address = address
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._kept: dict[str, Kept] = {}
        self._sessions: list[SessionRecording] = []
        self._forgetting: set[asyncio.TimerHandle] = set()

    async def __aenter__(self) -> Self:
        # Made with mode 0700.
        self._scratch = tempfile.TemporaryDirectory(prefix="dhmd-recordings-", ignore_cleanup_errors=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for session in list(self._sessions):
            await session.abandon()
        for timer in self._forgetting:
            timer.cancel()
        self._kept.clear()
        if self._scratch is not None:
            await asyncio.to_thread(self._scratch.cleanup)

    @property
    def route(self) -> Route:
        """Where the files are fetched."""
        return Route("/recordings/{token}/{name}", self._fetch)

    def of(
        self,
        pipeline: Pipeline,
        description: Mapping[str, str],
        *,
        on_change: Callable[[Mapping[str, Any]], object],
        on_marks: Callable[[str], object],
    ) -> SessionRecording:
        """The recordings of one session; see SessionRecording."""
        session = SessionRecording(self, pipeline, description, on_change=on_change, on_marks=on_marks)
        self._sessions.append(session)
        return session

    @property
    def bytes(self) -> int:
        return sum(kept.bytes for kept in self._kept.values())

    def make(self) -> Kept:
        """Room for one more. Raises OSError."""
        if self._scratch is None:
            raise RuntimeError("recordings are made while their context lasts")
        kept = Kept(Path(tempfile.mkdtemp(dir=self._scratch.name)))
        self._kept[kept.token] = kept
        return kept

    def forget(self, kept: Kept) -> None:
        self._kept.pop(kept.token, None)
        shutil.rmtree(kept.folder, ignore_errors=True)

    def end(self, session: SessionRecording) -> None:
        """The session is over; what it recorded is kept for KEPT_S more."""

        def forget() -> None:
            self._forgetting.discard(timer)
            self._sessions.remove(session)
            for kept in session.kept:
                self.forget(kept)

        timer = asyncio.get_running_loop().call_later(KEPT_S, forget)
        self._forgetting.add(timer)

    def files(self, kept: Kept) -> list[dict[str, Any]]:
        """What can be fetched of a recording: name, bytes and url of each file; nothing once it is forgotten."""
        if kept.token not in self._kept:
            return []
        return [
            {
                "name": name,
                "bytes": path.stat().st_size,
                "url": f"/recordings/{kept.token}/{quote(name)}{self.address.query}",
            }
            for name, path in kept.files.items()
        ]

    async def _fetch(self, request: Request) -> Response:
        if (refusal := self.address.refusal(request)) is not None:
            return refusal
        kept = self._kept.get(request.path_params["token"])
        path = kept.files.get(request.path_params["name"]) if kept is not None else None
        if path is None:
            return PlainTextResponse("there is no such recording, or not any more", 404)
        return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], filename=path.name)


@dataclass(eq=False)
class _Running:
    """The recording that is under way."""

    recorder: Recorder
    marking: Marking
    file: IO[bytes]
    kept: Kept
    video: bool
    audio: bool
    checked_s: float = 0.0


class SessionRecording:
    """The recordings of one session, one at a time: a sink of its estimates, told of its workers, and of its end.

    All of it in the event loop. description: see `describe`. on_change: given `state()` whenever it changes. on_marks:
    shows what was marked.
    """

    def __init__(
        self,
        recordings: Recordings,
        pipeline: Pipeline,
        description: Mapping[str, str],
        *,
        on_change: Callable[[Mapping[str, Any]], object],
        on_marks: Callable[[str], object],
    ) -> None:
        self._recordings = recordings
        self._pipeline = pipeline
        self._description = description
        self._on_change = on_change
        self._on_marks = on_marks
        self._running: _Running | None = None
        self._state, self._reason = "off", ""
        self._statuses: dict[str, WorkerStatus] = {}
        self._finishing: set[asyncio.Task[None]] = set()
        self._over = False
        self.kept: list[Kept] = []

    def state(self) -> dict[str, Any]:
        """The fields of the message `recording`. Files of earlier recordings of the session come after the newest."""
        running = self._running
        return {
            "state": self._state,
            "reason": self._reason,
            "started": None if running is None else round(running.recorder.start_s, 4),
            "video": running is not None and running.video,
            "audio": running is not None and running.audio,
            "files": [file for kept in reversed(self.kept) for file in self._recordings.files(kept)],
        }

    def on_request(self, on: bool, video: bool, audio: bool) -> None:
        """Start, keeping pictures or sound too only if asked, or stop; what is so already stays so."""
        if on and self._running is None and not self._over:
            self._start(video=video, audio=audio)
        elif not on and self._running is not None:
            self._stop(self._running)

    def on_worker(self, status: WorkerStatus) -> None:
        """A recording begins with the newest status of each worker."""
        self._statuses[status.worker] = status
        if self._running is not None:
            self._running.recorder.on_worker(status)

    def on_key(self, key: str) -> None:
        """Mark what is recorded."""
        if self._running is None:
            self._on_marks("marks need a recording: start one first")
        else:
            self._running.marking.press(key)

    def on_estimate(self, emission: Emission) -> None:
        if (running := self._running) is None:
            return
        running.recorder.on_estimate(emission)
        end_s = emission.perceived.cut.end_s
        if end_s - running.checked_s >= CHECK_EVERY_S:
            running.checked_s = end_s
            if (limit := self._limit(running, end_s)) is not None:
                self._stop(running, limit)

    def close(self) -> None:
        """The session is over: what is being recorded is ended, and all can be fetched for ten minutes more."""
        if self._over:
            return
        self._over = True
        if self._running is not None:
            self._stop(self._running)
        self._recordings.end(self)

    async def abandon(self) -> None:
        """End at once what is under way; the server goes, and nobody can fetch anything."""
        self._over = True
        if (running := self._running) is not None:
            self._detach(running)
            await asyncio.to_thread(_end, running)
        if self._finishing:
            await asyncio.wait(self._finishing)

    def _start(self, *, video: bool, audio: bool) -> None:
        if self._recordings.bytes >= MOST_BYTES_IN_ALL:
            self._tell("failed", "there is no room for another recording now; try again later")
            return
        while len(self.kept) >= MOST_OF_SESSION:
            self._recordings.forget(self.kept.pop(0))
        pipeline, loop = self._pipeline, asyncio.get_running_loop()
        try:
            kept = self._recordings.make()
            self.kept.append(kept)
            stream = re.sub(r"[^\w.-]+", "_", pipeline.stream)
            name = f"{stream}-{time.strftime('%Y%m%d-%H%M%S')}.mcap"
            file = (kept.folder / name).open("xb")
        except OSError as error:
            self._tell("failed", f"nothing can be recorded: {error.strerror}")
            return
        statuses = self._statuses.values()
        recorder = join_run(pipeline, file, self._description, statuses, video=video, sound=audio)
        window_s = pipeline.perception.window.window_s
        marking = Marking(recorder, pipeline.clock, window_s, self._on_marks)
        running = self._running = _Running(recorder, marking, file, kept, video, audio, recorder.start_s)
        recorder.start(lambda status: loop.call_soon_threadsafe(self._on_writer, running, status))
        marking.teach()
        self._tell("on")

    def _on_writer(self, running: _Running, status: WorkerStatus) -> None:
        if status.state is WorkerState.FAILED and self._running is running:
            self._stop(running)

    def _limit(self, running: _Running, now_s: float) -> str | None:
        """Why a recording may not go on."""
        if now_s - running.recorder.start_s >= MOST_S:
            return f"stopped after {MOST_S / 60:g} minutes, the longest that is recorded"
        if running.recorder.written >= MOST_BYTES:
            return f"stopped at {MOST_BYTES / 1e9:g} GB, the largest that is recorded"
        if self._recordings.bytes >= MOST_BYTES_IN_ALL:
            return "stopped, as there is no room for more recordings"
        return None

    def _detach(self, running: _Running) -> None:
        self._running = None
        self._pipeline.perception.leave(running.recorder)
        running.marking.end()

    def _stop(self, running: _Running, reason: str = "") -> None:
        self._detach(running)
        self._tell("off", "the files are being made")
        task = asyncio.create_task(self._finish(running, reason), name="recording")
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finish(self, running: _Running, reason: str) -> None:
        running.kept.files = await asyncio.to_thread(_files, running)
        recorder = running.recorder
        if self._running is not None:
            self._on_change(self.state())  # another one is under way already
        elif recorder.failed is not None:
            what = recorder.failed.removeprefix(f"{recorder.name}: ")
            kept = "; what was recorded before can be fetched" if running.kept.files else ""
            self._tell("failed", f"recording stopped: {what}{kept}")
        else:
            self._tell("ready", reason)

    def _tell(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self._on_change(self.state())


def _end(running: _Running) -> None:
    """Write what waits. May take a while, as all that the disk does."""
    running.recorder.close()
    with contextlib.suppress(OSError):
        running.file.close()


def _files(running: _Running) -> dict[str, Path]:
    """End a recording and put its table beside it. Returns the files by name; the table is missing without estimates,
    or room for it."""
    _end(running)
    path = Path(running.recorder.name)
    if not path.exists() or not path.stat().st_size:
        return {}
    files = [path]
    with contextlib.suppress(DHMDError, OSError):
        files.append(export(path, "csv"))
    return {one.name: one for one in files}
