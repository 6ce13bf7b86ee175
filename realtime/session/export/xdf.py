"""Extensible Data Format 1.0 (github.com/sccn/xdf): streams of samples with their times, as laboratories keep them.

Times are in seconds of the recording, to which all streams' clock offsets are zero. What there was none of is NaN.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.session import Session
from realtime.messages.estimate import Extra, ExtraNumber
from realtime.session.sentences import printable
from realtime.session.timeline import Floats, Timeline

MAGIC = b"XDF:"
FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, STREAM_FOOTER = 1, 2, 3, 4, 6
OFFSET_EVERY_S = 5.0
"""As the lab recorder measures it."""


@dataclass(frozen=True)
class XdfStream:
    """One stream of a file. times_s: (N,). values: (N, channels) numbers, or N texts of one channel.

    rate_hz: 0 where samples come as they come.
    """

    name: str
    kind: str
    channels: Sequence[tuple[str, str]]
    """(label, unit) of each."""
    times_s: Floats
    values: NDArray[np.float32] | Sequence[str]
    rate_hz: float = 0.0

    @property
    def is_text(self) -> bool:
        return not isinstance(self.values, np.ndarray)


def write(session: Session, file: IO[bytes]) -> None:
    timeline = Timeline.read(session)
    file.write(MAGIC)
    recorded = datetime.fromtimestamp(session.started_unix, UTC).isoformat() if session.started_unix else ""
    _chunk(file, FILE_HEADER, _xml("info", {"version": "1.0", "datetime": recorded}).encode())
    for number, stream in enumerate(_streams(timeline), start=1):
        _write_stream(file, number, stream, timeline)


def _streams(timeline: Timeline) -> list[XdfStream]:
    rate_hz = _rate_hz(timeline)
    numbers = {
        "emotions": ("Emotion", [(name, "probability") for name in EMOTIONS], timeline.emotions),
        "sentiment": ("Sentiment", [(name, "") for name in ("sentiment", "low", "high")], timeline.sentiment),
        "affect": ("Affect", [("valence", ""), ("arousal", "")], timeline.affect),
        "weights": (
            "Weight",
            [(str(m), "share") for m in Modality],
            np.stack([timeline.weight[m] for m in Modality], axis=1),
        ),
    }
    if timeline.extra:
        channels = [(name, _unit(timeline.heads.get(name))) for name in timeline.extra]
        numbers["extra"] = ("Extra", channels, np.stack([*timeline.extra.values()], axis=1))
    streams = [
        XdfStream(name, kind, channels, timeline.t_s, values.astype(np.float32), rate_hz)
        for name, (kind, channels, values) in numbers.items()
    ]
    words = sorted(timeline.words, key=lambda word: word.start_s)
    marks = sorted(timeline.marks, key=lambda mark: mark.start_s)
    events = (
        ("words", [word.start_s for word in words], [word.text for word in words]),
        ("marks", [mark.start_s for mark in marks], [mark.text for mark in marks]),
    )
    for name, times_s, texts in events:
        if texts:
            streams.append(XdfStream(name, "Markers", [(name, "")], np.array(times_s, np.float64), texts))
    return streams


def _unit(head: Extra | None) -> str:
    return head.unit if isinstance(head, ExtraNumber) else "probability"


def _rate_hz(timeline: Timeline) -> float:
    """Readers lay the samples of a regular stream out evenly: one with holes must not say that it is regular."""
    hops = np.diff(timeline.t_s) / timeline.session.hop_s
    return 1 / timeline.session.hop_s if np.all(np.abs(hops - 1) < 0.05) else 0.0


def _write_stream(file: IO[bytes], number: int, stream: XdfStream, timeline: Timeline) -> None:
    session = timeline.session
    identity = struct.pack("<I", number)
    header = {
        "name": f"{session.stream} {stream.name}",
        "type": stream.kind,
        "channel_count": str(len(stream.channels)),
        "nominal_srate": f"{stream.rate_hz:g}",
        "channel_format": "string" if stream.is_text else "float32",
        "source_id": f"dhmd-{session.stream}-{stream.name}",
        "created_at": "0",
        "desc": {
            "epoch_unix": repr(session.started_unix),
            "model": f"{session.metadata['model']} {session.metadata['checkpoint']}",
            "channels": [{"channel": {"label": label, "unit": unit}} for label, unit in stream.channels],
        },
    }
    _chunk(file, STREAM_HEADER, identity + _xml("info", header).encode())
    times_s = np.arange(0.0, timeline.length_s + OFFSET_EVERY_S, OFFSET_EVERY_S)
    for t_s in times_s:
        _chunk(file, CLOCK_OFFSET, identity + struct.pack("<dd", t_s, 0.0))
    count = len(stream.times_s)
    if count:
        _chunk(file, SAMPLES, identity + _length(count) + _samples(stream))
    footer = {
        "first_timestamp": repr(float(stream.times_s[0])) if count else "0",
        "last_timestamp": repr(float(stream.times_s[-1])) if count else "0",
        "sample_count": str(count),
        "clock_offsets": [{"offset": {"time": repr(float(t_s)), "value": "0.0"}} for t_s in times_s],
    }
    _chunk(file, STREAM_FOOTER, identity + _xml("info", footer).encode())


def _samples(stream: XdfStream) -> bytes:
    """Return samples, each with its time in eight bytes."""
    if isinstance(stream.values, np.ndarray):
        row = np.dtype([("stamped", "u1"), ("t", "<f8"), ("values", "<f4", (len(stream.channels),))])
        rows = np.zeros(len(stream.times_s), row)
        rows["stamped"], rows["t"], rows["values"] = 8, stream.times_s, stream.values
        return rows.tobytes()
    texts = (text.encode() for text in stream.values)
    return b"".join(
        struct.pack("<Bd", 8, t_s) + _length(len(text)) + text for t_s, text in zip(stream.times_s, texts, strict=True)
    )


def _chunk(file: IO[bytes], tag: int, content: bytes) -> None:
    file.write(_length(len(content) + 2) + struct.pack("<H", tag) + content)


def _length(count: int) -> bytes:
    return struct.pack("<BI", 4, count) if count < 2**32 else struct.pack("<BQ", 8, count)


def _xml(name: str, content: Any) -> str:
    if isinstance(content, dict):
        content = "".join(_xml(key, value) for key, value in content.items())
    elif isinstance(content, list):
        content = "".join(_xml(key, value) for entry in content for key, value in entry.items())
    else:
        content = escape(printable(str(content)))
    return f"<{name}>{content}</{name}>"
