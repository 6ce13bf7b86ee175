"""Labels of a session as rows of a manifest: from a table of stretches, or from the marks made as it was recorded."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from dhmd.session import Session, SessionInvalid
from training.data.recorded import marks
from training.data.table import Table, cell_of, read_table

LABELS: Final = ("start", "end", "emotion", "sentiment", "id", "split", "group")
"""Columns of such a table: start and end in seconds of the session; the last three are rarely needed."""
_OF_MARK: Final = {"start": "start_s", "end": "end_s", "emotion": "emotion", "sentiment": "sentiment"}


def labels_beside(session: Path) -> Path | None:
    """The table of the same name, if there is one. A session exported as CSV has that name too, but no start or end."""
    beside = session.with_suffix(".csv")
    try:
        columns = read_table(beside).columns
    except FileNotFoundError:
        return None
    except (OSError, ValueError, csv.Error):
        return beside  # its reader tells why
    return beside if {"start", "end"} & set(columns) else None


def read_labels(session: Path, labels: Path | None) -> tuple[Table, list[str]]:
    """Rows of a manifest for a session, from its labels (None: its marks), and what is left out of them.

    Raises SessionInvalid, also without any label; else see `read_table`.
    """
    opened, left_out = Session.open(session), []
    if labels is not None:
        table = read_table(labels)
    else:
        marked, unlabelled = marks(opened)
        if not marked:
            found = (
                f"none of its {unlabelled} marks has an emotion"
                if unlabelled
                else "has neither marks nor a table of labels"
            )
            raise SessionInvalid(
                f"{session}: {found}; label it in {session.stem}.csv (start, end, emotion, sentiment; seconds of the "
                "session), or with the keys m and 1 to 7 as you record"
            )
        if unlabelled:
            left_out.append(f"{session}: {unlabelled} of its marks have no emotion and are left out")
        rows = [{column: cell_of(getattr(mark, field)) for column, field in _OF_MARK.items()} for mark in marked]
        table = Table(list(_OF_MARK), rows, hashlib.sha256(json.dumps(rows).encode()).hexdigest(), "mark", 1)
    named = "id" in table.columns
    return replace(table, rows=[_row(session, cells, named=named) for cells in table.rows]), left_out


def _row(session: Path, cells: Mapping[str, str], *, named: bool) -> Mapping[str, str]:
    if not any(cells.values()):
        return cells
    own = {} if named else {"id": f"{cells.get('start') or 0}-{cells.get('end') or 'end'}"}
    return {**cells, **own, "video": session.name}


def overlaps(stretches: Mapping[int, tuple[float, float]]) -> Iterator[tuple[int, int]]:
    """Rows that overlap another, with that: what a session shows at one moment has one label.

    stretches: row -> start and end in seconds.
    """
    last_s, last_row = -math.inf, 0
    for row, (start_s, end_s) in sorted(stretches.items(), key=lambda item: item[1]):
        if start_s < last_s:
            yield row, last_row
        if end_s > last_s:
            last_s, last_row = end_s, row
