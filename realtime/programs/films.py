"""`dhmd-live replay` of media files and folders: each becomes a session, as many at a time as asked for."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dhmd.checkpoint import load
from dhmd.errors import DHMDError, MediaUnreadable
from dhmd.media.reader import STILLS, MediaReader
from dhmd.session import Session, SessionInvalid
from realtime.errors import SettingsInvalid
from realtime.pipeline.pipeline import Emission
from realtime.session.export.comparison import Compared, page, write_csv
from realtime.session.export.write import COMPARED, export
from realtime.session.files import whole_file
from realtime.settings import HEARD_BY, RunSettings

MEDIA: Final = STILLS | frozenset(
    (".avi", ".flac", ".m4a", ".m4v", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpg", ".ogg", ".opus", ".wav", ".webm")
)
"""Suffixes of what is taken from a folder; a file that is named is tried whatever its suffix."""
MADE_BY: Final = ("people", *HEARD_BY)
"""Settings by which a session is another one."""


@dataclass(frozen=True, slots=True)
class Job:
    """A media file and the session it becomes."""

    media: Path
    session: Path


def media_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files named, and those with a medium's suffix in folders named but for hidden ones, in order.

    Raises SettingsInvalid.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in MEDIA and p.is_file())
            # What begins with a dot is a system's own: ._film.mp4 holds what macOS knows of film.mp4.
            inside = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
            if not inside:
                raise SettingsInvalid(f"{path}: no media file in it; name files, or another folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise SettingsInvalid(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def jobs_of(files: Sequence[Path], out: Path | None) -> list[Job]:
    """Sessions stand beside their media, or all in `out`. Raises SettingsInvalid where two would be one."""
    jobs = [Job(file, (out or file.parent) / f"{file.stem}.mcap") for file in files]
    taken = Counter(job.session for job in jobs)
    for job in jobs:
        if taken[job.session] > 1:
            same = [str(other.media) for other in jobs if other.session == job.session]
            raise SettingsInvalid(
                f"{' and '.join(same[:2])} would both become {job.session}; rename one, or leave --out"
            )
    return jobs


def process(
    paths: Sequence[Path],
    settings: RunSettings,
    *,
    out: Path | None,
    jobs: int,
    console: Console,
) -> int:
    """Make a session, and its report, of each file that has none yet by these settings; and a table of all.

    settings: of each run, but for its source and where it is recorded. Returns the exit status.
    """
    todo = jobs_of(media_files(paths), out)
    digest = load(settings.checkpoint).digest
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    done = [job for job in todo if _is_done(job.session, digest, settings)]
    pending = [job for job in todo if job not in done]
    if done:
        console.print(f"{len(done)} of {len(todo)} are sessions already", highlight=False)
    errors = _run_all(pending, settings, jobs, console)
    compared = [
        Compared(job.media, job.session, error=error)
        if (error := errors.get(job.media))
        else Compared.of(job.session, job.media)
        for job in todo
    ]
    summary = (out or Path()) / f"{COMPARED}.csv"
    with whole_file(summary) as file:
        file.write(write_csv(compared))
    beside = summary.with_suffix(".html")
    with whole_file(beside) as file:
        file.write(page(compared, beside).encode())
    for one in compared:
        console.print(_told(one), markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(todo) - len(errors)} sessions, {len(errors)} failed; {summary} and .html tell of all", highlight=False
    )
    return 1 if errors else 0


def _is_done(path: Path, digest: str, settings: RunSettings) -> bool:
    """Tell whether it is a whole session by this checkpoint, of as many people, with words heard in the same way.
    Anything else there is left alone: the run will say so."""
    try:
        session = Session.open(path)
    except SessionInvalid:
        return False
    # What a session of before a setting does not tell was as it is by default.
    usual = RunSettings(source="none").model_dump(include=set(MADE_BY))
    same = all(
        session.settings.get(name, usual[name]) == value
        for name, value in settings.model_dump(include=set(MADE_BY)).items()
    )
    return session.complete and same and session.metadata["checkpoint"] == digest


def _run_all(
    pending: Sequence[Job],
    settings: RunSettings,
    jobs: int,
    console: Console,
) -> Mapping[Path, str]:
    """Errors by media file."""
    errors: dict[Path, str] = {}
    if not pending:
        return errors
    context = multiprocessing.get_context("spawn")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(min(jobs, len(pending)), mp_context=context) as pool,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        moved: Any = manager.Queue()
        lengths = {job.media: _length_s(job.media) for job in pending}
        bar = progress.add_task("seconds of media", total=round(sum(lengths.values())))
        futures = {pool.submit(_make, job, settings, moved): job for job in pending}
        for future in _watched(futures, moved, lengths, progress, bar):
            if (error := future.result()) is not None:
                errors[futures[future].media] = error
    return errors


def _watched(
    futures: Mapping[Future[str | None], Job],
    moved: Any,
    lengths: Mapping[Path, float],
    progress: Progress,
    bar: TaskID,
) -> Iterator[Future[str | None]]:
    """Each future as it ends, moving the bar meanwhile."""
    at = dict.fromkeys(lengths, 0.0)
    waiting = set(futures)
    while waiting:
        with contextlib.suppress(Empty):
            media, end_s = moved.get(timeout=0.2)
            at[media] = min(end_s, lengths[media])
        for future in [one for one in waiting if one.done()]:
            waiting.discard(future)
            at[futures[future].media] = lengths[futures[future].media]
            yield future
        progress.update(bar, completed=round(sum(at.values())))


def _length_s(path: Path) -> float:
    try:
        return MediaReader(path).duration_s or 0.0
    except MediaUnreadable:
        return 0.0


class _Progress:
    """Tells how far a file is, once a media second."""

    def __init__(self, moved: Any, media: Path) -> None:
        self._moved = moved
        self._media = media
        self._told_s = 0.0

    def on_estimate(self, emission: Emission) -> None:
        end_s = emission.perceived.cut.end_s
        if end_s >= self._told_s + 1:
            self._told_s = end_s
            self._moved.put((self._media, end_s))


def _make(job: Job, settings: RunSettings, moved: Any) -> str | None:
    """Run one file, in a process of its own. Returns why it failed."""
    from realtime.programs.run import run

    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    part = job.session.with_name(f"{job.session.name}.part")
    part.unlink(missing_ok=True)
    if job.session.exists():
        return f"{job.session} already exists, and is another session; move it away, or name another folder with --out"
    own = {"source": str(job.media), "pace": "max", "broker": "none", "stream": "file", "record": str(part)}
    try:
        run(settings.model_copy(update=own), Console(quiet=True), sinks=[_Progress(moved, job.media)])
    except DHMDError as error:
        part.unlink(missing_ok=True)
        return str(error)
    part.rename(job.session)
    export(job.session, "html", force=True)
    return None


def _told(one: Compared) -> str:
    """Describe a session in one line."""
    summary = one.summary
    if summary is None:
        return f"failed: {one.error}"
    seen = f"{one.top} {summary.on_top[one.top].value:.0%}" if one.top else "nobody seen or heard"
    sentiment = f", sentiment {summary.scales['sentiment'].value:+.2f}" if one.top else ""
    length_s, words = summary.timeline.length_s, len(summary.timeline.words)
    return f"{one.session}: {length_s:.1f} s, {seen}{sentiment}, {words} words"
