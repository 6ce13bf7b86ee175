"""`dhmd-live replay` of media files and folders: each becomes a session, as many at a time as asked for."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from queue import Empty
from typing import Any, Final
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dhmd.checkpoint import load
from dhmd.errors import DHMDError, MediaUnreadable
from dhmd.media.reader import STILLS, MediaReader
from dhmd.modality import Modality
from dhmd.session import Session, SessionInvalid, schema
from realtime.errors import SettingsInvalid
from realtime.pipeline.pipeline import Emission
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness
from realtime.session.export.write import export
from realtime.session.files import whole_file
from realtime.session.messages import inference_of

MEDIA: Final = STILLS | frozenset(
    (".avi", ".flac", ".m4a", ".m4v", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpg", ".ogg", ".opus", ".wav", ".webm")
)
"""Suffixes of what is taken from a folder; a file that is named is tried whatever its suffix."""
SUMMARY: Final = "sessions"
"""Name of the table of all, as CSV and as a page."""


@dataclass(frozen=True, slots=True)
class Job:
    """A media file and the session it becomes."""

    media: Path
    session: Path


@dataclass(slots=True)
class Report:
    """Outcome of a session; shares and means over its estimates. error: why there is none."""

    file: str
    session: str = ""
    seconds: float = 0.0
    estimates: int = 0
    top: str = ""
    share_of_top: float = 0.0
    mean_sentiment: float | None = None
    vision: float = 0.0
    audio: float = 0.0
    text: float = 0.0
    words: int = 0
    error: str = ""


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
    *,
    out: Path | None,
    checkpoint: str,
    jobs: int,
    console: Console,
    steadiness: Steadiness = BY_DEFAULT,
) -> int:
    """Make a session, and its report, of each file that has none yet by this checkpoint; and a table of all.

    Returns the exit status.
    """
    todo = jobs_of(media_files(paths), out)
    digest = load(checkpoint).digest
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    done = [job for job in todo if _is_done(job.session, digest)]
    pending = [job for job in todo if job not in done]
    if done:
        console.print(f"{len(done)} of {len(todo)} are sessions already", highlight=False)
    errors = _run_all(pending, checkpoint, steadiness, jobs, console)
    reports = [_report(job, errors.get(job.media, "")) for job in todo]
    summary = (out or Path()) / f"{SUMMARY}.csv"
    _write_table(summary, reports)
    _write_page(summary.with_suffix(".html"), reports)
    for report in reports:
        line = f"failed: {report.error}" if report.error else _told(report)
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(todo) - len(errors)} sessions, {len(errors)} failed; {summary} and .html tell of all", highlight=False
    )
    return 1 if errors else 0


def _is_done(path: Path, digest: str) -> bool:
    """Tell whether it is a whole session by this checkpoint. Anything else there is left alone: the run will say so."""
    try:
        session = Session.open(path)
    except SessionInvalid:
        return False
    return session.complete and session.metadata["checkpoint"] == digest


def _run_all(
    pending: Sequence[Job], checkpoint: str, steadiness: Steadiness, jobs: int, console: Console
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
        futures = {pool.submit(_make, job, checkpoint, steadiness, moved): job for job in pending}
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


def _make(job: Job, checkpoint: str, steadiness: Steadiness, moved: Any) -> str | None:
    """Run one file, in a process of its own. Returns why it failed."""
    from realtime.programs.run import run
    from realtime.settings import RunSettings

    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    part = job.session.with_name(f"{job.session.name}.part")
    part.unlink(missing_ok=True)
    if job.session.exists():
        return f"{job.session} already exists, and is another session; move it away, or name another folder with --out"
    settings = RunSettings(
        source=str(job.media),
        pace="max",
        broker="none",
        stream="file",
        checkpoint=checkpoint,
        record=str(part),
        smoothing_s=steadiness.smoothing_s,
        margin=steadiness.margin,
    )
    try:
        run(settings, Console(quiet=True), sinks=[_Progress(moved, job.media)])
    except DHMDError as error:
        part.unlink(missing_ok=True)
        return str(error)
    part.rename(job.session)
    export(job.session, "html", force=True)
    return None


def _report(job: Job, error: str) -> Report:
    report = Report(str(job.media), error=error)
    if error:
        return report
    report.session = str(job.session)
    tops: Counter[str] = Counter()
    sentiments: list[float] = []
    present: Counter[str] = Counter()
    session = Session.open(job.session)
    for record in session.records({schema.ESTIMATE, schema.WORDS}):
        message = record.message
        if record.topic == schema.WORDS:
            report.words += len(message.final)
            continue
        report.estimates += 1
        report.seconds = round(message.end_s, 2)
        present.update(m.value for m in Modality if getattr(message.modalities, m.value).present)
        if (inference := inference_of(message)) is not None:
            tops[message.top] += 1
            sentiments.append(inference.sentiment.value)
    if tops:
        report.top, count = tops.most_common(1)[0]
        report.share_of_top = round(count / report.estimates, 3)
        report.mean_sentiment = round(sum(sentiments) / len(sentiments), 3)
    for m in Modality:
        setattr(report, m.value, round(present[m.value] / max(1, report.estimates), 3))
    return report


def _told(report: Report) -> str:
    seen = f"{report.top} {report.share_of_top:.0%}" if report.top else "nobody seen or heard"
    sentiment = "" if report.mean_sentiment is None else f", sentiment {report.mean_sentiment:+.2f}"
    return f"{report.session}: {report.seconds:.1f} s, {seen}{sentiment}, {report.words} words"


def _write_table(path: Path, reports: Sequence[Report]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [field.name for field in fields(Report)])
    table.writeheader()
    table.writerows(asdict(report) for report in reports)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def _write_page(path: Path, reports: Sequence[Report]) -> None:
    """A table whose rows lead to the reports."""

    def cells(report: Report) -> Iterator[str]:
        if report.error:
            yield html.escape(report.file)
            yield f"<td colspan=6>{html.escape(report.error)}"
            return
        link = os.path.relpath(Path(report.session).with_suffix(".html"), path.parent)
        yield f'<a href="{html.escape(quote(link))}">{html.escape(Path(report.session).stem)}</a>'
        yield f"<td>{report.seconds:.0f} s"
        yield f"<td>{report.top or 'nobody'} {report.share_of_top:.0%}"
        yield "<td>" + ("-" if report.mean_sentiment is None else f"{report.mean_sentiment:+.2f}")
        yield from (f"<td>{getattr(report, m.value):.0%}" for m in (Modality.VISION, Modality.AUDIO, Modality.TEXT))

    rows = "".join(f"<tr><th scope=row>{''.join(cells(report))}" for report in reports)
    with whole_file(path) as file:
        file.write(_PAGE.format(count=len(reports), rows=rows).encode())


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sessions</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
max-width: 60rem; padding: 0 1rem }} td, th {{ padding: .25rem .9rem .25rem 0; text-align: left; font-weight: 400 }}
thead th {{ opacity: .6 }}</style>
<h1>{count} sessions</h1>
<table><thead><tr><th>session<th>length<th>mostly<th>sentiment<th>face<th>voice<th>words</thead><tbody>{rows}</tbody></table>
</html>
"""
