"""Recordings that a page starts and stops while its stream runs, kept in a private folder until they are fetched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self
from urllib.parse import quote

from filelock import FileLock, Timeout
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from dhmd.errors import DHMDError
from realtime.errors import CommandRefused
from realtime.languages import ENGLISH, LANGUAGES
from realtime.pipeline.pipeline import Pipeline
from realtime.session.export.write import export
from realtime.session.limited import MOST_BYTES_IN_ALL, LimitedRecording
from realtime.session.marking import Marking
from realtime.session.recorder import Recorder
from realtime.web.address import WebAddress

MOST_OF_SESSION: Final = 4
"""Recordings that a session keeps; the oldest makes room."""
KEPT_S: Final = 600.0
"""Time in which recordings can be fetched after their session is over."""
MEDIA_TYPES: Final = {
    ".mcap": "application/octet-stream",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
MADE_OF_THEM: Final = ("csv", "html")
"""Formats in which recordings are offered, too: a table, and a report to be looked at."""
REPORT_MAY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; sandbox"
"""Content-Security-Policy of a report, which has its style in it, and no script."""
PREFIX, LOCK, YOUNG_S = "dhmd-recordings-", ".lock", 60.0


@dataclass(eq=False)
class RecordingFiles:
    """Files of one recording, in a folder of its own, under a name that nobody guesses."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    files: dict[str, Path] = field(default_factory=dict)
    """Files that can be fetched, by name."""

    @property
    def bytes(self) -> int:
        """Size on the disk, with what cannot be fetched yet."""
        total = 0
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                total += path.stat().st_size
        return total


class _Scratch:
    """A private folder in the temporary one, gone with its context. What a killed program left of its own is removed
    at the next start: a lock, which the system takes from the dead, tells it from those of the living."""

    def __init__(self) -> None:
        _sweep()
        # Made with mode 0700.
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = FileLock(self.path / LOCK, thread_local=False)
        self._lock.acquire(blocking=False)

    def remove(self) -> None:
        self._lock.release()
        self._folder.cleanup()


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            told = folder.lstat()
            young = time.time() - told.st_mtime < YOUNG_S and not (folder / LOCK).exists()
            if not stat.S_ISDIR(told.st_mode) or young or (sys.platform != "win32" and told.st_uid != os.getuid()):
                continue
            with FileLock(folder / LOCK, blocking=False):
                shutil.rmtree(folder, ignore_errors=True)


class Recordings:
    """All recordings of a server. Lives in the event loop; recordings are deleted when its context ends."""

    def __init__(self, address: WebAddress) -> None:
        self.address = address
        self._scratch: _Scratch | None = None
        self._kept: dict[str, RecordingFiles] = {}
        self._sessions: list[PageRecording] = []
        self._forgetting: set[asyncio.TimerHandle] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._scratch = await asyncio.to_thread(_Scratch)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kept.clear()
        for session in list(self._sessions):
            await session.abandon()
        if self._ending:
            await asyncio.wait(self._ending)
        for timer in self._forgetting:
            timer.cancel()
        if self._scratch is not None:
            await asyncio.to_thread(self._scratch.remove)

    @property
    def route(self) -> Route:
        """Route by which files are fetched."""
        return Route("/recordings/{token}/{name}", self._fetch)

    def begin(self, session: PageRecording) -> None:
        """Take in the recordings of a session, until `end`."""
        self._sessions.append(session)

    @property
    def bytes(self) -> int:
        return sum(kept.bytes for kept in self._kept.values())

    def make(self) -> RecordingFiles:
        """Make a folder for one more recording. Raises OSError."""
        if self._scratch is None:
            raise RuntimeError("recordings are made while their context lasts")
        kept = RecordingFiles(Path(tempfile.mkdtemp(dir=self._scratch.path)))
        self._kept[kept.token] = kept
        return kept

    def at(self, folder: Path) -> RecordingFiles | None:
        """Return what is kept in a folder; None once it is deleted."""
        return next((kept for kept in self._kept.values() if kept.folder == folder), None)

    def forget(self, kept: RecordingFiles) -> None:
        self._kept.pop(kept.token, None)
        shutil.rmtree(kept.folder, ignore_errors=True)

    def end(self, session: PageRecording) -> None:
        """Keep the recordings of a session that is over for KEPT_S more; the session goes once they are written."""
        recorded = session.kept

        def forget() -> None:
            self._forgetting.discard(timer)
            for kept in recorded:
                self.forget(kept)

        async def let_go() -> None:
            await session.stop()
            self._sessions.remove(session)

        timer = asyncio.get_running_loop().call_later(KEPT_S, forget)
        self._forgetting.add(timer)
        task = asyncio.create_task(let_go(), name="recordings")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def files(self, kept: RecordingFiles) -> list[dict[str, Any]]:
        """Return name, bytes and url of each file of a recording that can be fetched; none once it is deleted."""
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
        seen = path.suffix == ".html"
        return FileResponse(
            path,
            media_type=MEDIA_TYPES[path.suffix],
            filename=path.name,
            headers={"Content-Security-Policy": REPORT_MAY} if seen else None,
            content_disposition_type="inline" if seen else "attachment",
        )


class PageRecording(LimitedRecording):
    """Recordings of one session, begun, marked and ended by its page.

    description: see `describe`. on_change: given `state()` whenever it changes. on_marks: shows what was marked.
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
        super().__init__(pipeline)
        self._recordings = recordings
        self._description = description
        self._on_change = on_change
        self._on_marks = on_marks
        self._marking: Marking | None = None
        """Keys that mark the recording that is under way."""
        self._state, self._reason = "off", ""
        self._language = ENGLISH
        self._over = False
        self.kept: list[RecordingFiles] = []
        recordings.begin(self)

    def state(self) -> dict[str, Any]:
        """Return the fields of the message `recording`. Files of earlier recordings come after the newest."""
        recorder = self.recorder
        return {
            "state": self._state,
            "reason": self._reason,
            "started": None if recorder is None else round(recorder.start_s, 4),
            "video": recorder is not None and recorder.video,
            "audio": recorder is not None and recorder.sound,
            "files": [file for kept in reversed(self.kept) for file in self._recordings.files(kept)],
        }

    def on_request(self, on: bool, video: bool, audio: bool, language: str = ENGLISH) -> None:
        """Start, with pictures or sound only if asked, or stop; does nothing where that is so already.

        language: of the report, if it is one of LANGUAGES.
        """
        if not on:
            self.end()
        elif self.recorder is None and not self._over:
            self._language = language if language in LANGUAGES else ENGLISH
            self._start(video=video, audio=audio)

    def on_key(self, key: str) -> None:
        """Mark what is recorded."""
        if self._marking is None:
            self._on_marks("marks need a recording: start one first")
        else:
            self._marking.press(key)

    def close(self) -> None:
        """End with the session; its recordings can be fetched for ten minutes more."""
        if self._over:
            return
        self._over = True
        self.end()
        self._recordings.end(self)

    async def abandon(self) -> None:
        """End what is under way as the server ends; nobody can fetch it any more."""
        self._over = True
        await self.stop()

    def _start(self, *, video: bool, audio: bool) -> None:
        try:
            recorder = self.begin(self._description, video=video, sound=audio)
        except CommandRefused as refusal:
            self._tell("failed", str(refusal))
            return
        window_s = self._pipeline.perception.window.window_s
        self._marking = Marking(recorder, self._pipeline.clock, window_s, self._on_marks)
        self._marking.teach()
        self._tell("on")

    def _new_file(self, name: str) -> IO[bytes]:
        if self._recordings.bytes >= MOST_BYTES_IN_ALL:
            raise CommandRefused("there is no room for another recording now; try again later")
        while len(self.kept) >= MOST_OF_SESSION:
            self._recordings.forget(self.kept.pop(0))
        self.kept.append(self._recordings.make())
        return (self.kept[-1].folder / f"{name}.mcap").open("xb")

    def _full(self) -> str:
        full = self._recordings.bytes >= MOST_BYTES_IN_ALL
        return "stopped, as there is no room for more recordings" if full else ""

    def _on_end(self) -> None:
        if self._marking is not None:
            self._marking.end()
            self._marking = None
        self._tell("off", "the files are being made")

    async def _on_written(self, recorder: Recorder, reason: str) -> None:
        path = Path(recorder.name)
        kept = self._recordings.at(path.parent)
        if kept is not None:
            kept.files = await asyncio.to_thread(_files, path, self._language)
        if self.recorder is not None:
            self._on_change(self.state())  # another one is under way already
        elif recorder.failed is not None:
            what = recorder.failed.removeprefix(f"{recorder.name}: ")
            fetched = "; what was recorded before can be fetched" if kept is not None and kept.files else ""
            self._tell("failed", f"recording stopped: {what}{fetched}")
        else:
            self._tell("ready", reason)

    def _tell(self, state: str, reason: str = "") -> None:
        self._state, self._reason = state, reason
        self._on_change(self.state())


def _files(path: Path, language: str) -> dict[str, Path]:
    """Put table and report of a recording beside it; returns the files by name. Without estimates, or room, there
    are none of these."""
    if not path.exists() or not path.stat().st_size:
        return {}
    files = [path]
    with contextlib.suppress(DHMDError, OSError):
        files += [export(path, to, language=language) for to in MADE_OF_THEM]
    return {one.name: one for one in files}
