"""Tables of text cells: CSV in UTF-8 with a header, or Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

EXTRA: Final = "more"
"""Cells beyond the header."""
DECIMALS: Final = frozenset({"start", "end", "sentiment"})
"""Columns of numbers: where `;` separates cells, a comma in them is a decimal point."""
FILES: Final = frozenset({"audio", "image", "video"})


@dataclass(frozen=True, slots=True)
class Table:
    """Columns as the header names them, and rows: cells by column; an absent one is empty or missing.

    sha256: of the file. unit, first: what its rows are called, and the number of the first. assumed: of
    a file that is not as it should be.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    sha256: str
    unit: str = "row"
    first: int = 2
    assumed: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """Raises OSError; ValueError or csv.Error where it is neither CSV nor Parquet."""
    content = path.read_bytes()
    columns, rows, assumed = (*_parquet(path), []) if content[:4] == b"PAR1" else _csv(content)
    return Table(columns, rows, hashlib.sha256(content).hexdigest(), assumed=tuple(assumed))


def _csv(content: bytes) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """Columns, rows, and what was assumed where the file is one as spreadsheets save them."""
    text, assumed = content.decode("utf-8-sig"), []
    first, _, rest = text.partition("\n")
    separator = ","
    if (said := re.fullmatch(r"sep=(.)\r?", first, re.IGNORECASE)) is not None:
        separator, text = said[1], rest
    else:
        separator = max(",;\t|", key=re.sub(r'"[^"]*"', "", first).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    named = [name.strip() for name in next(reader, ())]
    table = [[cell.strip() for cell in cells] for cells in reader]
    # What a spreadsheet once had beside the table: without a name, and empty.
    beside = [
        at for at, name in enumerate(named) if not name and not any(cells[at : at + 1] != [""] for cells in table)
    ]
    columns = [name.lower() for at, name in enumerate(named) if at not in beside]
    if separator != ",":
        assumed.append(f"{separator!r} stands between cells")
    if columns != [name for at, name in enumerate(named) if at not in beside]:
        assumed.append("columns are named in lower case")
    if beside:
        assumed.append(f"{len(beside)} empty columns without a name are left out")
    rows = []
    for cells in table:
        kept = [cell for at, cell in enumerate(cells) if at not in beside]
        row = dict(zip(columns, kept, strict=False))
        for name in DECIMALS & row.keys() if separator != "," else ():
            row[name] = re.sub(r"^([+-]?\d*),(\d+)$", r"\1.\2", row[name])
        for name in FILES & row.keys():
            if "\\" in row[name]:
                row[name] = row[name].replace("\\", "/")
                assumed.append("\\ in paths means /")
        rows.append({**row, EXTRA: "".join(kept[len(columns) :])})
    return columns, rows, list(dict.fromkeys(assumed))


def _parquet(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    return table.column_names, [{name: cell_of(value) for name, value in row.items()} for row in table.to_pylist()]


def cell_of(value: Any) -> str:
    """A typed cell as a CSV file would have it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value).strip()
