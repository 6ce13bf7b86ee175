"""A summary of a session file."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dhmd.checkpoint import shipped
from dhmd.labels import CHANNELS
from dhmd.modality import Modality
from dhmd.session import Session, schema
from dhmd.session.reader import Contents, Mark, TopicContents, mark_of
from realtime.invocation import command
from realtime.session.export.look import clock, length

MEDIA = {schema.VIDEO: "video", schema.SOUND: "sound"}


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One kind of message. bytes: before compression. rate_hz: over the time between its first and its last."""

    name: str
    messages: int
    bytes: int
    rate_hz: float | None


@dataclass(frozen=True, slots=True)
class Info:
    """Summary of one file, with the names that `--json` prints.

    started: ISO 8601 in local time; None where time was a file's own. shipped: whether the model is one of ours.
    lost: messages of each topic that were not recorded. state: complete, cut or damaged.
    """

    file: str
    bytes: int
    version: int
    state: str
    stream: str
    started: str | None
    recorded: str
    length_s: float
    model: str
    checkpoint: str
    shipped: bool
    features: list[dict[str, Any]]
    topics: list[TopicInfo]
    media: list[str]
    lost: dict[str, int]
    marks: list[Mark]


def read_info(path: Path) -> Info:
    """Read a whole file. Raises SessionInvalid."""
    session = Session.open(path)
    contents = Contents.of(session)
    started = datetime.fromtimestamp(session.started_unix).astimezone() if session.started_unix else None
    marks, lost = _labels(session)
    return Info(
        file=str(path),
        bytes=path.stat().st_size,
        version=int(session.metadata["version"]),
        state="complete" if contents.whole else "damaged" if session.complete else "cut",
        stream=session.stream,
        started=started.isoformat(timespec="seconds") if started else None,
        recorded=session.metadata.get("created", ""),
        length_s=round(max(0.0, contents.last_s), 3),
        model=session.metadata["model"],
        checkpoint=session.metadata["checkpoint"],
        shipped=session.metadata["checkpoint"] in shipped().values(),
        features=[spec.to_dict() for spec in session.features.values()],
        topics=[_topic(name, found) for name, found in sorted(contents.topics.items())],
        media=[name for topic, name in MEDIA.items() if topic in contents.topics],
        lost=lost,
        marks=marks,
    )


def _topic(name: str, found: TopicContents) -> TopicInfo:
    span_s = found.last_s - found.first_s
    rate_hz = round((found.messages - 1) / span_s, 2) if found.messages > 1 and span_s > 0 else None
    return TopicInfo(name, found.messages, found.bytes, rate_hz)


def _labels(session: Session) -> tuple[list[Mark], dict[str, int]]:
    """Return the marks, and how many messages of each topic were lost."""
    marks: list[Mark] = []
    lost: Counter[str] = Counter()
    for record in session.records([schema.MARK, schema.LOST]):
        if record.topic == schema.MARK:
            marks.append(mark_of(record.message, session))
        else:
            lost[record.message.topic] += record.message.count
    return marks, dict(lost)


def show_info(path: Path, console: Console, *, as_json: bool) -> int:
    """Print the summary of a file. Raises SessionInvalid."""
    info = read_info(path)
    if as_json:
        print(json.dumps(asdict(info), indent=2))
        return 0
    console.print(_summary(info))
    console.print(_topics(info))
    if info.state != "complete":
        console.print(f"It is {info.state}; a whole file of what can be read is made by:", soft_wrap=True)
        console.print(command("repair", path), markup=False, highlight=False, soft_wrap=True)
    return 0


def _summary(info: Info) -> Table:
    """Return all but the topics. Text from the file stays plain text, never markup."""
    table = Table(title=Text(info.file), show_header=False, box=None, padding=(0, 2), title_justify="left")
    started = info.started or f"time is a file's own, recorded {info.recorded or 'at a time unknown'}"
    whose = "the one shipped here" if info.shipped else "not one shipped here"
    rows = {
        "stream": info.stream,
        "started": started.replace("T", " "),
        "length": length(info.length_s),
        "model": f"{info.model} {info.checkpoint}, {whose}",
        "media": ", ".join(info.media) or "none: features and words alone",
        "lost": ", ".join(f"{count} of {topic}" for topic, count in info.lost.items()) or "nothing",
        "file": f"{size(info.bytes)}, session version {info.version}, {info.state}",
    }
    for spec in info.features:
        rate = "as they come" if spec["rate_hz"] is None else f"{spec['rate_hz']:g} a second"
        rows[CHANNELS[Modality(spec["modality"])]] = (
            f"{spec['extractor']} {spec['version']}: {spec['width']} numbers, {rate}, {spec['window_s']:g} s"
        )
    for number, mark in enumerate(info.marks, start=1):
        rows[f"mark {number}"] = f"{clock(mark.start_s, fine=True)} to {clock(mark.end_s, fine=True)}  {mark.text}"
    for name, value in rows.items():
        table.add_row(Text(name, "grey50"), Text(value))
    return table


def _topics(info: Info) -> Table:
    columns = (Column(name, justify="right") for name in ("messages", "a second", "bytes"))
    table = Table("topic", *columns, box=None, padding=(0, 2), header_style="grey50")
    for topic in info.topics:
        rate = "" if topic.rate_hz is None else f"{topic.rate_hz:.1f}"
        table.add_row(Text(topic.name), f"{topic.messages:,}", rate, size(topic.bytes))
    return table


def size(count: int) -> str:
    """Return a number of bytes in a unit that people read."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:,.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"
