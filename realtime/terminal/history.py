"""Last minute of a stream: the emotions that were on top, as a line of blocks."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import Final

from rich.text import Text

from realtime.messages.estimate import Estimate

SPAN_S: Final = 60.0
HELD_S: Final = 2.0
"""Longest time between two estimates that is no gap."""
SHORTEST: Final = 3
"""Letters of an emotion that tell which it is."""
BLOCKS: Final = "▁▂▃▄▅▆▇█"
COLOURS: Final = {
    "neutral": "grey70",
    "happy": "yellow",
    "sad": "dodger_blue1",
    "angry": "red",
    "fear": "medium_purple",
    "disgust": "green",
    "surprise": "dark_orange",
}


class History:
    """Top emotion of each estimate of the last minute, and its probability."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str | None, float]] = deque()

    def add(self, e: Estimate) -> None:
        if self._seen and e.t < self._seen[-1][0]:
            self._seen.clear()  # another run, or another stream
        self._seen.append((e.t, e.top, e.emotions[e.top] if e.emotions and e.top else 0.0))
        while self._seen[0][0] <= e.t - SPAN_S:
            self._seen.popleft()

    def columns(self, width: int) -> list[tuple[str | None, float]]:
        """Return the newest top and probability of each of `width` parts of the minute; None where there was none."""
        columns: list[tuple[str | None, float]] = [(None, 0.0)] * width
        if self._seen:
            begun_s, before = self._seen[-1][0] - SPAN_S, -1
            for t, top, probability in self._seen:
                column = min(width - 1, int((t - begun_s) / SPAN_S * width))
                # A column may be shorter than a hop.
                held = column - before if (column - before) * SPAN_S / width <= HELD_S else 1
                columns[column - held + 1 : column + 1] = [(top, probability)] * held
                before = column
        return columns

    def drawn(self, width: int, height: int) -> Text:
        """Return `height` lines of blocks, as high as the emotion on top is likely, above a line that names them."""
        columns = self.columns(width)
        steps = [0 if top is None else max(1, round(p * height * len(BLOCKS))) for top, p in columns]
        lines = []
        for row in reversed(range(height)):
            line = Text()
            for (top, _), step in zip(columns, steps, strict=True):
                part = min(len(BLOCKS), step - row * len(BLOCKS))
                line.append(BLOCKS[part - 1] if part > 0 else " ", style=COLOURS[top] if top else "")
            lines.append(line)
        names = Text()
        for top, alike in groupby(top for top, _ in columns):
            room = len(list(alike))
            name = top[: room - 1] if top and room > SHORTEST else ""
            names.append(f"{name:{room}}", style=COLOURS[top] if top else "")
        return Text("\n").join([*lines, names])
