"""Files that manifests name: looked into once, and again when they have changed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dhmd.errors import MediaUnreadable
from dhmd.session import SessionInvalid
from training.data.items import is_session
from training.data.media import Kind, probe
from training.data.recorded import extent
from training.progress import followed

_TABLE: Final = (
    "found (kind TEXT, path TEXT, mark TEXT, digest TEXT, duration REAL, cut INTEGER, PRIMARY KEY (kind, path))"
)
_MANY: Final = 2000


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was found. digest: sha256 of its content; duration_s: of a recording that states it.

    cut: whether it is a session that breaks off after that. fault: which file cannot be read and why, None if it can.
    """

    digest: str = ""
    duration_s: float | None = None
    cut: bool = False
    fault: str | None = None


class Files:
    """Remembers in a database which files were found readable."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")

    def look(self, named: Iterable[tuple[Kind, Path]]) -> dict[tuple[Kind, Path], File]:
        """Look into every file that was not found readable before, or has changed since."""
        known = {(kind, path): rest for kind, path, *rest in self._database.execute("SELECT * FROM found")}
        result: dict[tuple[Kind, Path], File] = {}
        fresh: list[tuple[Kind, Path, str]] = []
        for kind, path in dict.fromkeys(named):
            mark = _mark(path)
            before = known.get((kind, str(path.absolute())))
            if mark and before and before[0] == mark:
                result[kind, path] = File(before[1], before[2], bool(before[3]))
            else:
                fresh.append((kind, path, mark))
        looked: list[tuple[str, str, str, str, float | None, bool]] = []
        for kind, path, mark in followed(fresh, "Looking into the files", "files", hidden=len(fresh) < _MANY):
            result[kind, path] = file = _look(kind, path)
            if file.fault is None:
                looked.append((kind, str(path.absolute()), mark, file.digest, file.duration_s, file.cut))
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?, ?, ?)", looked)
        return result


def _look(kind: Kind, path: Path) -> File:
    try:
        recorded = kind is Kind.VIDEO and is_session(path)
        duration_s, cut = extent(path) if recorded else (probe(kind, path), False)
        with path.open("rb") as content:
            return File(hashlib.file_digest(content, "sha256").hexdigest(), duration_s, cut)
    except (MediaUnreadable, SessionInvalid) as error:
        return File(fault=str(error))
    except OSError as error:
        return File(fault=f"{path}: cannot be read ({error.strerror})")


def _mark(path: Path) -> str:
    """Another one when the file was written again; empty where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"
