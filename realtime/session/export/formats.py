"""The formats there are, in one table; nothing is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """A format. module: what holds `write`. what: one line for people."""

    module: str
    write: str
    what: str


FORMATS = {
    "jsonl": Format("jsonl", "write", "the estimates as they were published, one JSON object a line"),
    "csv": Format("table", "write_csv", "one row an estimate, for spreadsheets and pandas"),
    "parquet": Format("table", "write_parquet", "the same table with full precision"),
    "emotionml": Format("emotionml", "write", "W3C's Emotion Markup Language 1.0"),
    "xdf": Format("xdf", "write", "Extensible Data Format, for EEG tools and the lab streaming layer"),
    "srt": Format("srt", "write", "subtitles: what was said, and how"),
    "html": Format("html", "write", "a self-contained report page"),
    "png": Format("png", "write", "the report as one picture"),
}
