"""Manifests: tables that name labelled utterances, the one way in which data enters training.

CSV (UTF-8, with a header) or Parquet, one row an utterance. Columns, of which any but `id` may be left out:
id; split: train, validation or test; emotion; sentiment: -3 to 3; text; audio, image, video: paths relative to the
manifest; start, end: the part of audio or video that is meant, in seconds; group: speaker, subject or dialogue;
words: [[word, start, end], ...] in JSON, in seconds from `start`, where the times of the words are known;
votes: {emotion: number, ...} in JSON, how many people named which emotion, where several were asked.
An empty cell means absent. Every row has at least one label and at least one modality.

A session that was recorded live stands for a manifest, too: its rows are a table of labels (start, end, emotion,
sentiment, and if wanted id, split, group) that lies beside it as NAME.csv or is named, or else the marks in it.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from dhmd.contract import Word
from dhmd.labels import EMOTIONS
from dhmd.model import Head
from dhmd.session import SessionInvalid
from dhmd.untrusted import Untrusted, number, read_json, read_json_object
from training.data.files import Files
from training.data.items import SESSION, Split, Utterance, is_session
from training.data.labels import LABELS, labels_beside, overlaps, read_labels
from training.data.media import Kind
from training.data.table import EXTRA, Table, read_table
from training.errors import ManifestInvalid

COLUMNS: Final = (
    "id",
    "split",
    "emotion",
    "sentiment",
    "votes",
    "text",
    "audio",
    "image",
    "video",
    "start",
    "end",
    "group",
    "words",
)
CONTENT: Final = ("text", "words", "audio", "image", "video")
SYNONYMS: Final = {name: name for name in EMOTIONS} | {
    "calm": "neutral",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "neutrality": "neutral",
    "sadness": "sad",
    "anger": "angry",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "disgusted": "disgust",
    "surprised": "surprise",
}
SPLITS: Final = {split.value: split for split in Split} | dict.fromkeys(("valid", "val", "dev"), Split.VALIDATION)
SLACK_S: Final = 0.1
"""By so much a label may end after its session, as times are often rounded."""
SHOWN: Final = 20
"""Faults told of at most; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read. has_splits: whether the table says who belongs to which split. sha256: of the table.

    bad: rows left out. notes: what else is missing, and no fault.
    """

    path: Path
    utterances: tuple[Utterance, ...]
    has_splits: bool
    sha256: str
    bad: int = 0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(slots=True)
class _Reading:
    """A manifest while it is read: row number -> utterance, its start and end in seconds, and what was wrong.

    Rows are numbered as a spreadsheet does, from the header on: the first utterance stands in row 2; marks in a session
    (unit "mark") from 1.
    table: where its rows stand, another file than `path` where that is a session with labels. barred: why it cannot be
    read at all, with the remedy.
    """

    path: Path
    table: Path
    unit: str = "row"
    sha256: str = ""
    has_splits: bool = False
    rows: dict[int, Utterance] = field(default_factory=dict)
    stretches: dict[int, tuple[float, float]] = field(default_factory=dict)
    bad: dict[int, list[str]] = field(default_factory=dict)
    unusable: list[str] = field(default_factory=list)
    barred: str = ""
    notes: list[str] = field(default_factory=list)
    heads: Sequence[Head] | None = ()
    unread: set[str] = field(default_factory=set)

    def fault(self, row: int, what: str) -> None:
        self.bad.setdefault(row, []).append(what)

    def faults(self) -> Iterator[str]:
        yield from (f"{self.table}: {what}" for what in self.unusable)
        yield from (f"{self.table}, {self.unit} {row}: {what}" for row in sorted(self.bad) for what in self.bad[row])


def read_manifests(
    paths: Sequence[Path],
    files: Files,
    *,
    labels: Path | None = None,
    skip_bad: bool = False,
    heads: Sequence[Head] | None = (),
) -> list[Manifest]:
    """Read manifests and look into every file that they name, without decoding it whole.

    files: remembers which were found readable.
    labels: of the sessions among them, in place of those beside them or in them.
    heads: of one's own, whose labels stand in columns of their names; None: whatever columns there are may be such, and
    are not read.
    skip_bad: leave out the rows with faults instead of refusing them; they are counted in `Manifest.bad`.
    Raises ManifestInvalid with all faults of all manifests, one line each.
    """
    readings = [_read(path, labels, heads) for path in paths]
    if barred := [reading.barred for reading in readings if reading.barred]:
        raise ManifestInvalid("\n".join(barred))
    for path in {path for path in paths if sum(other.stem == path.stem for other in paths) > 1}:
        readings[paths.index(path)].unusable.append("another manifest has the same name; rename one of them")
    _look(readings, files)
    faults = [fault for reading in readings for fault in reading.faults()]
    if any(reading.unusable for reading in readings):
        refuse(faults, "correct the manifest")
    elif not skip_bad:
        refuse(faults, "correct the manifest, or leave out such rows with --skip-bad")
    kept = [{row: one for row, one in reading.rows.items() if row not in reading.bad} for reading in readings]
    empty = [f"{r.table}: no row of it is usable" for r, rows in zip(readings, kept, strict=True) if not rows]
    refuse([*empty, *faults] if empty else [], "correct the manifest")
    return [
        Manifest(
            reading.path,
            tuple(rows.values()),
            reading.has_splits,
            reading.sha256,
            len(reading.bad),
            tuple(dict.fromkeys(reading.notes)),
        )
        for reading, rows in zip(readings, kept, strict=True)
    ]


def refuse(faults: Sequence[str], remedy: str) -> None:
    """Raise ManifestInvalid with the faults, one line each, if there are any."""
    if faults:
        lines = [*faults[:SHOWN], *([f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])]
        raise ManifestInvalid("\n".join([*lines[:-1], f"{lines[-1]}; {remedy}"]))


def _read(path: Path, labels: Path | None, heads: Sequence[Head] | None) -> _Reading:
    reading = _Reading(path, path, heads=heads)
    try:
        if is_session(path):
            labels = labels or labels_beside(path)
            reading.table = labels or path
            table, left_out = read_labels(path, labels)
            reading.notes += left_out
        else:
            table, session = read_table(path), path.with_suffix(SESSION)
            if "id" not in table.columns and session.is_file():
                reading.barred = f"{path}: has no column 'id'; if it holds the labels of {session}, name that instead"
    except SessionInvalid as error:
        reading.barred = str(error)
    except OSError as error:
        reading.unusable.append(f"cannot be read ({error.strerror or error})")
    except (ValueError, csv.Error) as error:
        reading.unusable.append(f"is neither CSV in UTF-8 nor Parquet ({error})")
    else:
        if table.assumed:
            reading.notes.append(f"{reading.table}: it is assumed that {', that '.join(table.assumed)}")
        _rows(reading, table)
    return reading


def _rows(reading: _Reading, table: Table) -> None:
    reading.unit, reading.sha256 = table.unit, table.sha256
    reading.unusable += _header(reading, table.columns)
    if not any(any(cells.values()) for cells in table.rows):
        reading.unusable.append("has no rows")
    reading.has_splits = any(cells.get("split") for cells in table.rows)
    first_of: dict[str, int] = {}
    for row, cells in enumerate(table.rows, start=table.first):
        if not any(cells.values()):
            continue  # an empty line
        if cells.get(EXTRA):
            reading.fault(row, f"has more cells than the header, which names {len(table.columns)}")
        name = cells.get("id", "")
        if "id" in table.columns and not name:
            reading.fault(row, "has no id")
        elif name in first_of:
            reading.fault(row, f"id {name!r} stands in {table.unit} {first_of[name]} already")
        elif name:
            first_of[name] = row
        _utterance(reading, row, cells)
    if is_session(reading.path):
        for row, other in overlaps(reading.stretches):
            reading.fault(row, f"overlaps {table.unit} {other}")


def _header(reading: _Reading, columns: Sequence[str]) -> Iterator[str]:
    known = (*(LABELS if is_session(reading.path) else COLUMNS), *(head.name for head in reading.heads or ()))
    for name in columns:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            if reading.heads is None and not close:
                reading.unread.add(name)
                continue
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            yield f"unknown column {name!r}; {hint}; labels of your own are declared by `heads:` in the configuration"
    if reading.unread:
        named = ", ".join(sorted(reading.unread))
        reading.notes.append(f"{reading.table}: {named} may be labels of your own, which `fit` reads by its `heads:`")
    yield from (f"column {name!r} stands there twice" for name in known if columns.count(name) > 1)
    if "id" not in columns and not is_session(reading.path):
        yield "has no column 'id'"


def _utterance(reading: _Reading, row: int, cells: Mapping[str, str]) -> None:
    """Check one row; it is kept in any case, so that its files are looked into as well."""
    corpus, name, wrong = reading.path.stem, cells.get("id", ""), partial(reading.fault, row)
    group = cells.get("group") or name
    emotion, split = cells.get("emotion", ""), cells.get("split", "")
    start_s, end_s = _stretch(reading, row, cells)
    if emotion and emotion.lower() not in SYNONYMS:
        wrong(f"unknown emotion {emotion!r}; there are {', '.join(EMOTIONS)}")
    if split and split.lower() not in SPLITS:
        wrong(f"unknown split {split!r}; there are {', '.join(Split)}")
    sentiment = _number(cells, "sentiment", wrong)
    if sentiment is not None and not -3 <= sentiment <= 3:
        wrong(f"sentiment {sentiment:g} is outside of -3 to 3")
    if (cells.get("start") or cells.get("end")) and not (cells.get("audio") or cells.get("video")):
        wrong("start and end say which part of audio or video is meant, and there is neither")
    own = [head.name for head in reading.heads or ()]
    if not any(cells.get(label) for label in ("emotion", "sentiment", *own, *reading.unread)):
        wrong(f"has no label: neither {' nor '.join(['emotion', 'sentiment', *own])}")
    if not any(cells.get(column) for column in CONTENT):
        wrong(f"has no modality: none of {', '.join(CONTENT)}")
    if cells.get("image") and cells.get("video"):
        wrong("has an image and a video; name one of them")
    reading.rows[row] = Utterance(
        id=f"{corpus}/{name}",
        corpus=corpus,
        split=SPLITS.get(split.lower()) or split_of(group),
        group=f"{corpus}/{group}",
        emotion=SYNONYMS.get(emotion.lower()),
        sentiment=sentiment,
        extra=_own(reading, row, cells),
        votes=_votes(reading, row, cells.get("votes", "")),
        text=cells.get("text") or None,
        words=_words(reading, row, cells.get("words", "")),
        start_s=start_s,
        end_s=end_s,
        **{kind: reading.path.parent / cells[kind] if cells.get(kind) else None for kind in Kind},
    )


def _own(reading: _Reading, row: int, cells: Mapping[str, str]) -> dict[str, float]:
    """Labels for the heads of one's own, by their name."""
    found: dict[str, float] = {}
    for head in reading.heads or ():
        cell, (low, high) = cells.get(head.name, ""), head.scale
        if not cell:
            continue
        if head.classes:
            places = {name.casefold(): i for i, name in enumerate(head.classes)}
            if cell.casefold() in places:
                found[head.name] = places[cell.casefold()]
            else:
                reading.fault(row, f"unknown {head.name} {cell!r}; there are {', '.join(head.classes)}")
        elif (value := _number(cells, head.name, partial(reading.fault, row))) is not None:
            if low <= value <= high:
                found[head.name] = value
            else:
                reading.fault(row, f"{head.name} {value:g} is outside of {low:g} to {high:g}")
    return found


def split_of(group: str) -> Split:
    """By hash, where nobody says: 70 % train, 15 % validation, 15 % test."""
    share = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8
    return Split.TRAIN if share < 0.7 else Split.VALIDATION if share < 0.85 else Split.TEST


def _stretch(reading: _Reading, row: int, cells: Mapping[str, str]) -> tuple[float, float | None]:
    """Start and end in seconds, None: to the end."""
    wrong: list[str] = []
    start_s, end_s = _number(cells, "start", wrong.append) or 0.0, _number(cells, "end", wrong.append)
    if start_s < 0 or (end_s is not None and end_s <= start_s):
        wrong.append(f"start {cells.get('start') or 0} and end {cells.get('end')} are not a stretch of time")
    for what in wrong:
        reading.fault(row, what)
    if not wrong:
        reading.stretches[row] = start_s, math.inf if end_s is None else end_s
    return start_s, end_s


def _number(cells: Mapping[str, str], column: str, wrong: Callable[[str], None]) -> float | None:
    if not cells.get(column):
        return None
    try:
        return number(cells[column])
    except Untrusted as error:
        wrong(f"{column} {error}")
        return None


def _words(reading: _Reading, row: int, cell: str) -> tuple[Word, ...] | None:
    if not cell:
        return None
    try:
        words = tuple(
            Word(str(text), number(start_s, 0.0), number(end_s, 0.0)) for text, start_s, end_s in read_json(cell)
        )
    except (ValueError, TypeError):
        words = ()
    ends = [word.end_s for word in words]
    if not words or ends != sorted(ends):
        reading.fault(row, "words are not [[word, start, end], ...] in JSON, in seconds, in the order of their ends")
        return None
    return words


def _votes(reading: _Reading, row: int, cell: str) -> tuple[float, ...] | None:
    """Share of each of EMOTIONS."""
    if not cell:
        return None
    try:
        named = {SYNONYMS[emotion.lower()]: number(count, 0.0) for emotion, count in read_json_object(cell).items()}
    except (ValueError, TypeError, AttributeError, KeyError):
        named = {}
    total = sum(named.values())
    if not 0 < total < math.inf:
        reading.fault(row, f"votes are not {{emotion: number, ...}} in JSON; there are {', '.join(EMOTIONS)}")
        return None
    return tuple(named.get(emotion, 0.0) / total for emotion in EMOTIONS)


def _look(readings: Sequence[_Reading], files: Files) -> None:
    """Note the files that are missing or unreadable, and the parts that lie past the end of their recording."""
    named = [
        (reading, row, kind, path)
        for reading in readings
        for row, one in reading.rows.items()
        for kind in Kind
        if (path := getattr(one, kind)) is not None
    ]
    found = files.look((kind, path) for _, _, kind, path in named)
    for reading, row, kind, path in named:
        file, one = found[kind, path], reading.rows[row]
        if file.cut:
            reading.notes.append(f"{path}: breaks off after {file.duration_s:.1f} s; what was recorded before is used")
        over = f"where {kind} {path} {'breaks off' if file.cut else 'is over'} ({file.duration_s or 0:.1f} s)"
        if file.fault is not None:
            reading.fault(row, f"{kind} {file.fault}")
        elif kind is Kind.IMAGE or file.duration_s is None:
            continue
        elif one.start_s >= file.duration_s:
            reading.fault(row, f"starts at {one.start_s:g} s, {over}")
        elif path == one.session and one.end_s is not None and one.end_s > file.duration_s + SLACK_S:
            reading.fault(row, f"ends at {one.end_s:g} s, {over}")
