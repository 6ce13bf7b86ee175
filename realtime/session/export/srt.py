"""Subtitles (SubRip): what was said, when, and what was seen in it."""

from __future__ import annotations

import textwrap
from typing import IO

from dhmd.session import Session
from realtime.errors import DHMDLiveError
from realtime.session.sentences import Sentence, sentences
from realtime.session.timeline import Timeline

LINE = 42
"""Characters that are read at a glance."""
LINES = 2
ANGLES = str.maketrans(
    "<>", "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
)
SHORTEST_S = 1.0
"""A subtitle stays at least this long, if the next one lets it."""


class NoWords(DHMDLiveError):
    """Raised when there is nothing to write as subtitles."""


def write(session: Session, file: IO[bytes]) -> None:
    said = sentences(Timeline.read(session), fits=lambda text: len(_lines(text)) <= LINES)
    if not said:
        raise NoWords(f"{session.path}: no word was heard, so there are no subtitles; --to html shows what there is")
    # Revised words may overlap a little; subtitles may not.
    start_s = [0.0]
    for sentence in said:
        start_s.append(max(start_s[-1] + 0.001, sentence.start_s))
    for number, sentence in enumerate(said, start=1):
        latest_s = start_s[number + 1] if number < len(said) else float("inf")
        end_s = min(latest_s, max(sentence.end_s, start_s[number] + SHORTEST_S))
        cue = f"{number}\n{_time(start_s[number])} --> {_time(end_s)}\n{_text(sentence)}\n\n"
        file.write(cue.encode())


def _text(sentence: Sentence) -> str:
    lines = _lines(sentence.text)
    if sentence.top is not None and sentence.sentiment is not None:
        lines.append(f"[{sentence.top} {round(sentence.sentiment, 1) + 0.0:+.1f}]")
    return "\n".join(lines)


def _lines(text: str) -> list[str]:
    # Players read < as the beginning of a tag, and the arrow as that of a time.
    return textwrap.wrap(text.translate(ANGLES), LINE)


def _time(t_s: float) -> str:
    ms = round(t_s * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"
