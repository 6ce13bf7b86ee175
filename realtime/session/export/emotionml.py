"""W3C's Emotion Markup Language 1.0 (Recommendation of 22 May 2014): an `emotion` an estimate.

The probability of an emotion is the confidence in its category. A scale goes from 0 to 1 there: -1 to 1 of valence and
arousal and -3 to 3 of sentiment are stretched to that, as is the range of a number of the checkpoint's own. Classes of
its own have a vocabulary and elements of theirs. Where nothing was perceived there is no element.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import IO
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.session import Session
from realtime.messages.estimate import ExtraClasses, ExtraNumber
from realtime.session.sentences import printable
from realtime.session.timeline import Timeline

NAMESPACE = "http://www.w3.org/2009/10/emotionml"
EXPRESSED_THROUGH = {Modality.TEXT: "text", Modality.VISION: "face", Modality.AUDIO: "voice"}
"""The Recommendation's words for the three."""
OWN = "own-"
"""Before the names of vocabularies of the checkpoint's own."""
NO_TOKEN = re.compile(r"[^\w.:-]")
SCALES = {"valence": (-1.0, 1.0), "arousal": (-1.0, 1.0), "sentiment": (-3.0, 3.0)}


def write(session: Session, file: IO[bytes]) -> None:
    timeline = Timeline.read(session)
    scales = SCALES | {
        name: head.range
        for name, head in timeline.heads.items()
        if isinstance(head, ExtraNumber) and name not in SCALES  # valence and arousal are then what was measured
    }
    classes = {name: [*head.probabilities] for name, head in timeline.heads.items() if isinstance(head, ExtraClasses)}
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
            for name, (low, high) in scales.items()
        ),
        " </vocabulary>",
        *(line for name, ours in classes.items() for line in _vocabulary(name, ours)),
    ]
    file.writelines(line.encode() + b"\n" for line in lines)
    for i in range(len(timeline)):
        if not math.isnan(timeline.emotions[i, 0]):
            file.write(_emotion(timeline, i, scales).encode())
            file.writelines(_classes(timeline, i, name, ours).encode() for name, ours in classes.items())
    file.write(b"</emotionml>\n")


def _told(session: Session) -> str:
    return f"stream {session.stream}, model {session.metadata['model']} ({session.metadata['checkpoint']})"


def _vocabulary(name: str, classes: Sequence[str]) -> list[str]:
    items = (f"  <item name={quoteattr(one)}/>" for one in map(_token, classes))
    return [f' <vocabulary type="category" id="{OWN}{name}">', *items, " </vocabulary>"]


def _token(name: str) -> str:
    """A name as the Recommendation has them: without spaces."""
    return NO_TOKEN.sub("_", name)


def _classes(timeline: Timeline, i: int, head: str, classes: Sequence[str]) -> str:
    """What a head of classes of the checkpoint's own said; empty where it said nothing."""
    said = [timeline.extra[f"{head}_{name}"][i] for name in classes]
    if any(math.isnan(share) for share in said):
        return ""
    categories = "".join(
        f'<category name="{_token(name)}" confidence="{_unit(share):.4f}"/>'
        for name, share in zip(classes, said, strict=True)
    )
    return f' <emotion category-set="#{OWN}{head}" {_when(timeline, i)}>{categories}</emotion>\n'


def _emotion(timeline: Timeline, i: int, scales: Mapping[str, tuple[float, float]]) -> str:
    through = " ".join(name for m, name in EXPRESSED_THROUGH.items() if timeline.present[m][i])
    categories = "".join(
        f'<category name="{name}" confidence="{_unit(p):.4f}"/>'
        for name, p in zip(EMOTIONS, timeline.emotions[i], strict=True)
    )
    numbers = dict(zip(SCALES, (*timeline.affect[i], timeline.sentiment[i, 0]), strict=True)) | {
        name: timeline.extra[name][i] for name in scales if name not in SCALES
    }
    dimensions = "".join(
        f'<dimension name="{name}" value="{_unit((numbers[name] - low) / (high - low)):.4f}"/>'
        for name, (low, high) in scales.items()
        if not math.isnan(numbers[name])
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
