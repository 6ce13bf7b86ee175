"""A flat table, one row an estimate. An empty cell is what there was none of, never a zero."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.modality import EDGES
from dhmd.session import Session
from realtime.session.timeline import Timeline, people_in

TEXTS = {"top", "transcript"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def columns(timeline: Timeline) -> Mapping[str, Sequence[Any]]:
    """Column name -> (N,) values; NaN and None are empty cells. docs/sessions.md says what each column holds."""
    started_unix = timeline.session.started_unix
    table: dict[str, Any] = {
        "seq": timeline.seq,
        "t_s": timeline.t_s,
        "unix": timeline.t_s + (started_unix or math.nan),
        "sentiment": timeline.sentiment[:, 0],
        "low": timeline.sentiment[:, 1],
        "high": timeline.sentiment[:, 2],
        **dict(zip(EMOTIONS, timeline.emotions.T, strict=True)),
        "top": timeline.top,
        "valence": timeline.affect[:, 0],
        "arousal": timeline.affect[:, 1],
    }
    for m, channel in CHANNELS.items():
        table[f"{channel}_present"] = timeline.present[m]
        table[f"{channel}_late"] = timeline.late[m]
        table[f"{channel}_age_s"] = timeline.age_s[m]
        table[f"{channel}_influence"] = timeline.influence[m]
        table[f"{channel}_sentiment"] = timeline.alone[m]
        for name, values in zip(EMOTIONS, timeline.alone_emotions[m].T, strict=True):
            table[f"{channel}_{name}"] = values
        table[f"{channel}_weight"] = timeline.weight[m]
    for graph, weights in (("homo", timeline.homo), ("hetero", timeline.hetero)):
        for edge, weight in zip(EDGES, weights.T, strict=True):
            table[f"{graph}_{CHANNELS[edge.source]}_to_{CHANNELS[edge.target]}"] = weight
    table |= {f"extra_{name}": values for name, values in timeline.extra.items()}
    table |= {
        "faces": timeline.faces,
        "transcript": timeline.transcript,
        "capture_to_estimate_ms": timeline.latency_ms,
        "inference_ms": timeline.inference_ms,
        "dropped_video": timeline.dropped_video,
        "dropped_audio": timeline.dropped_audio,
    }
    return table


def table_of(session: Session) -> Mapping[str, Sequence[Any]]:
    """Return the columns of a session. Where several people were followed there is one more, `person`, and a row for
    each estimate of theirs after that of the stream, in which it is empty."""
    people = people_in(session)
    if not people:
        return columns(Timeline.read(session))
    tables = [(person, columns(Timeline.read(session, person))) for person in (None, *people)]
    names = dict.fromkeys(name for _, table in tables for name in table)
    joined: dict[str, list[Any]] = {name: [] for name in ("person", *names)}
    for person, table in tables:
        count = len(table["seq"])
        joined["person"] += [person] * count
        for name in names:
            joined[name] += list(table[name]) if name in table else [math.nan] * count
    order = sorted(range(len(joined["seq"])), key=lambda row: (joined["seq"][row], joined["person"][row] or 0))
    return {name: [values[row] for row in order] for name, values in joined.items()}


def write_csv(session: Session, file: IO[bytes]) -> None:
    table = table_of(session)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text)
    rows.writerow(table)
    exact = {"t_s": "{:.6f}", "unix": "{:.6f}"}
    cells = [[_cell(value, exact.get(name, "{:.6g}")) for value in values] for name, values in table.items()]
    rows.writerows(zip(*cells, strict=True))
    text.detach()


def _cell(value: Any, digits: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return digits.format(value) if isinstance(value, float) else as_text(str(value))


def as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: words are what somebody said."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def write_parquet(session: Session, file: IO[bytes]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    # NaN is written as null, so that every reader takes it for missing.
    arrays = {
        name: pa.array(values, type=pa.string() if name in TEXTS else None, from_pandas=True)
        for name, values in table_of(session).items()
    }
    table = pa.table(arrays)
    description = {f"dhmd.{key}": value for key, value in session.metadata.items()}
    parquet.write_table(table.replace_schema_metadata(description), file)
