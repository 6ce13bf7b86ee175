"""W3C's Emotion Markup Language 1.0 (Recommendation of 22 May 2014): an `emotion` an estimate.

The probability of an emotion is the confidence in its category. A scale goes from 0 to 1 there: -1 to 1 of valence and
arousal and -3 to 3 of sentiment are stretched to that. Where nothing was perceived there is no element.
"""

from __future__ import annotations

import math
from typing import IO
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.session import Session
from realtime.session.sentences import printable
from realtime.session.timeline import Timeline

NAMESPACE = "http://www.w3.org/2009/10/emotionml"
EXPRESSED_THROUGH = {Modality.TEXT: "text", Modality.VISION: "face", Modality.AUDIO: "voice"}
"""The Recommendation's words for the three."""
SCALES = {"valence": (-1.0, 1.0), "arousal": (-1.0, 1.0), "sentiment": (-3.0, 3.0)}


def write(session: Session, file: IO[bytes]) -> None:
    timeline = Timeline.read(session)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<emotionml version="1.0" xmlns="{NAMESPACE}" category-set="#emotions" dimension-set="#scales">',
        f" <info>{escape(printable(_told(session)))}</info>",
        ' <vocabulary type="category" id="emotions">',
        *(f'  <item name="{name}"/>' for name in EMOTIONS),
        " </vocabulary>",
        ' <vocabulary type="dimension" id="scales">',
        *(
            f'  <item name="{name}"><info>0 is {low:g}, 1 is {high:g}</info></item>'
            for name, (low, high) in SCALES.items()
        ),
        " </vocabulary>",
    ]
    file.writelines(line.encode() + b"\n" for line in lines)
    for i in range(len(timeline)):
        if not math.isnan(timeline.emotions[i, 0]):
            file.write(_emotion(timeline, i).encode())
    file.write(b"</emotionml>\n")


def _told(session: Session) -> str:
    return f"stream {session.stream}, model {session.metadata['model']} ({session.metadata['checkpoint']})"


def _emotion(timeline: Timeline, i: int) -> str:
    through = " ".join(name for m, name in EXPRESSED_THROUGH.items() if timeline.present[m][i])
    categories = "".join(
        f'<category name="{name}" confidence="{_unit(p):.4f}"/>'
        for name, p in zip(EMOTIONS, timeline.emotions[i], strict=True)
    )
    numbers = (*timeline.affect[i], timeline.sentiment[i, 0])
    dimensions = "".join(
        f'<dimension name="{name}" value="{_unit((x - low) / (high - low)):.4f}"/>'
        for (name, (low, high)), x in zip(SCALES.items(), numbers, strict=True)
    )
    return f' <emotion {_when(timeline, i)} expressed-through="{through}">{categories}{dimensions}</emotion>\n'


def _when(timeline: Timeline, i: int) -> str:
    """Return the window in unix milliseconds, or from the beginning of the file whose own time it was."""
    session = timeline.session
    zero_s = session.epoch_unix + session.start_s
    start_ms, end_ms = (round((zero_s + t_s) * 1000) for t_s in (timeline.start_s[i], timeline.t_s[i]))
    if session.epoch_unix:
        return f'start="{start_ms}" end="{end_ms}"'
    start_ms = max(0, start_ms)
    uri = quoteattr(_source(session))
    return f'time-ref-uri={uri} offset-to-start="{start_ms}" duration="{max(0, end_ms - start_ms)}"'


def _source(session: Session) -> str:
    try:
        source = str(session.settings["source"])
    except KeyError:
        source = session.path.name
    return quote(source.rpartition("/")[2])


def _unit(x: float) -> float:
    return min(1.0, max(0.0, float(x)))
