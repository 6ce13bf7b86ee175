"""Tables of text cells: CSV in UTF-8 with a header, or Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

EXTRA: Final = "more"
"""Cells beyond the header."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns as the header names them, and rows: cells by column; an absent one is empty or missing.

    sha256: of the file. unit, first: what its rows are called, and the number of the first.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    sha256: str
    unit: str = "row"
    first: int = 2


def read_table(path: Path) -> Table:
    """Raises OSError; ValueError or csv.Error where it is neither CSV nor Parquet."""
    content = path.read_bytes()
    columns, rows = _parquet(path) if content[:4] == b"PAR1" else _csv(content)
    return Table(columns, rows, hashlib.sha256(content).hexdigest())


def _csv(content: bytes) -> tuple[list[str], list[dict[str, str]]]:
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    columns = [name.strip() for name in next(reader, ())]
    table = [[cell.strip() for cell in cells] for cells in reader]
    return columns, [
        {**dict(zip(columns, cells, strict=False)), EXTRA: "".join(cells[len(columns) :])} for cells in table
    ]


def _parquet(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    return table.column_names, [{name: cell_of(value) for name, value in row.items()} for row in table.to_pylist()]


def cell_of(value: Any) -> str:
    """A typed cell as a CSV file would have it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value).strip()
