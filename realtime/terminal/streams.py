"""View of several streams in the terminal: a row each; a plain line a second each where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from dhmd.labels import CHANNELS
from realtime.messages.estimate import Estimate
from realtime.pipeline.outputs import Emitted
from realtime.terminal.history import COLOURS
from realtime.terminal.view import (
    LINE_EVERY_S,
    REDRAW_S,
    Dashboard,
    DashboardSink,
    nothing_perceived,
    sentiment_colour,
)
from realtime.workers import WorkerStatus


class StreamsView:
    """Draws all streams of a program; `row` gives the sink of one."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._rows = {name: StreamRow(name, self) for name in names}
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn_s = 0.0

    def row(self, name: str) -> StreamRow:
        return self._rows[name]

    def changed(self, row: StreamRow) -> None:
        """Draw, if it is time to."""
        now_s = time.monotonic()
        if self._live is None:
            if row.estimate is not None and now_s - row.told_s >= LINE_EVERY_S:
                row.told_s = now_s
                line = f"{row.name}  {row.dashboard.line(row.estimate)}"
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif now_s - self._drawn_s >= REDRAW_S:
            self._drawn_s = now_s
            self._live.update(self.drawn(), refresh=True)

    def drawn(self) -> Table:
        """Return what is drawn."""
        columns = (Column(name, no_wrap=True) for name in ("stream", "shows", "sentiment", "from", "rate"))
        last = Column("words or trouble", no_wrap=True, overflow="ellipsis", ratio=1)
        table = Table(*columns, last, box=None, header_style="grey50", expand=True)
        for row in self._rows.values():
            table.add_row(*row.cells())
        table.caption, table.caption_justify = "Ctrl-C stops", "left"
        return table

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()


class StreamRow(DashboardSink):
    """A sink that keeps what is newest of one stream."""

    def __init__(self, name: str, view: StreamsView) -> None:
        super().__init__(Dashboard(name, ""))
        self.name = name
        self.estimate: Estimate | None = None
        self.told_s = 0.0
        self._view = view

    def on_estimate(self, emission: Emitted) -> None:
        self.estimate = emission.estimate
        self.dashboard.arrived(emission.estimate)
        self._view.changed(self)

    def on_worker(self, status: WorkerStatus) -> None:
        super().on_worker(status)
        self._view.changed(self)

    def cells(self) -> list[Text]:
        """Return a row of the table."""
        e, name = self.estimate, Text(self.name, "bold")
        trouble = self.dashboard.trouble()
        if e is None:
            return [name, Text("-", "grey50"), Text(), Text(), Text(), *(trouble[:1] or [Text()])]
        rate = Text(f"{self.dashboard.rate_hz:.1f}/s", "grey50")
        last = trouble[0] if trouble else Text(e.transcript, "italic")
        if e.top is None or e.emotions is None or e.sentiment is None:
            return [name, Text(nothing_perceived(e), "grey50"), Text(), Text(), rate, last]
        channels = ", ".join(channel for m, channel in CHANNELS.items() if getattr(e.modalities, m).present)
        value = e.sentiment.value
        return [
            name,
            Text(f"{e.top} {e.emotions[e.top]:.0%}", f"bold {COLOURS[e.top]}"),
            Text(f"{value:+.2f}", sentiment_colour(value)),
            Text(channels, "grey70"),
            rate,
            last,
        ]
