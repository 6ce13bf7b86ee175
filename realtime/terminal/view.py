"""View in the terminal: bars, words, rates and ages; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from dhmd.labels import CHANNELS
from realtime.messages.estimate import Estimate, ModalityEstimate
from realtime.pipeline.outputs import Emitted
from realtime.workers import WorkerState, WorkerStatus

COLOURS = {
    "neutral": "grey70",
    "happy": "yellow",
    "sad": "dodger_blue1",
    "angry": "red",
    "fear": "medium_purple",
    "disgust": "green",
    "surprise": "dark_orange",
}
TROUBLE = {
    WorkerState.BEHIND: "yellow",
    WorkerState.LATE: "yellow",
    WorkerState.RESTARTING: "red",
    WorkerState.FAILED: "red",
}
SURE = 0.6
"""Probability from which on an emotion is said to be what a modality shows."""
REDRAW_S = 0.125
LINE_EVERY_S = 1.0
BAR_WIDTH = 64
PANEL_WIDTH = 92


def sentiment_colour(value: float) -> str:
    return "green" if value > 0.5 else "red" if value < -0.5 else "grey70"


def sentiment_bar(value: float, low: float, high: float, width: int = BAR_WIDTH + 1) -> Text:
    """Return a bar, -3 on the left, +3 on the right; the interval is a thin line, the value a block."""

    def column(x: float) -> int:
        return round((x + 3) / 6 * (width - 1))

    cells = ["·"] * width
    for i in range(column(low), column(high) + 1):
        cells[i] = "─"
    cells[width // 2] = "┼" if cells[width // 2] == "─" else "│"
    bar = Text("".join(cells), style="grey50")
    bar.plain = bar.plain[: column(value)] + "█" + bar.plain[column(value) + 1 :]
    bar.stylize(sentiment_colour(value), column(value), column(value) + 1)
    return bar


def nothing_perceived(e: Estimate) -> str:
    """Say why there is no emotion: there is nobody, or the machine has not come to look."""
    late = [name for m, name in CHANNELS.items() if getattr(e.modalities, m).late]
    if late:
        return f"this machine is behind: {' and '.join(late)} too late"
    return "somebody is seen, too far away to be read" if e.modalities.vision.far else "nobody seen or heard"


def describe_line(e: Estimate) -> str:
    """Describe one estimate in one plain line."""
    present = " ".join(f"{CHANNELS[m]}{'+' if getattr(e.modalities, m).present else '-'}" for m in CHANNELS)
    if e.emotions is None or e.sentiment is None or e.top is None:
        what = nothing_perceived(e)
    else:
        what = f"{e.top} {e.emotions[e.top]:.2f}  sentiment {e.sentiment.value:+.2f}"
    words = f'  "{e.transcript}"' if e.transcript else ""
    return f"{present}  {what}{words}"


def alone(part: ModalityEstimate) -> str:
    """Describe what a modality says by itself."""
    if part.emotions is None:
        return "-"
    top = max(part.emotions, key=lambda name: part.emotions[name])  # type: ignore[index]
    return f"{top} {part.emotions[top]:.0%}"


def disagreement(e: Estimate) -> str:
    """Say who is sure of what, where modalities that are sure of themselves differ; else nothing."""
    parts = [(name, getattr(e.modalities, m).emotions) for m, name in CHANNELS.items()]
    sure = [
        (max(emotions, key=lambda one: emotions[one]), name)
        for name, emotions in parts
        if emotions and max(emotions.values()) >= SURE
    ]
    return ", ".join(f"{top} {name}" for top, name in sure) if len({top for top, _ in sure}) > 1 else ""


def _moment(t: float) -> str:
    """The time of day; of a file at --pace max, whose time starts at 0, its seconds."""
    return time.strftime("%H:%M:%S", time.localtime(t)) if t > 1e9 else f"{t:7.1f}s"


class Dashboard:
    """Draws one estimate and the health of the run."""

    def __init__(self, title: str, destination: str) -> None:
        self.title = title
        self._destination = self.connection = destination
        self.workers: dict[str, WorkerStatus] = {}
        self.marks = ""
        self._arrivals: deque[float] = deque(maxlen=50)

    def set_connection(self, state: str) -> None:
        self.connection = f"{self._destination} {state}"

    def set_worker(self, status: WorkerStatus) -> None:
        self.workers[status.worker] = status

    def arrived(self) -> None:
        self._arrivals.append(time.monotonic())

    @property
    def rate_hz(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(1e-6, self._arrivals[-1] - self._arrivals[0])

    def render(self, e: Estimate | None) -> RenderableType:
        if e is None:
            return Panel("waiting for the first estimate", title=self.title)
        parts = [self._emotions(e), self._sentiment(e), self._modalities(e), self._transcript(e), self._health(e)]
        body = [part for drawn in parts for part in (drawn, Text())][:-1]
        return Panel(Group(*body), title=Text(self.title, style="bold"), width=PANEL_WIDTH)

    def _emotions(self, e: Estimate) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for name, colour in COLOURS.items():
            p = e.emotions[name] if e.emotions else 0.0  # type: ignore[index]
            label = Text(f"{name:>9}", style="bold" if name == e.top else "")
            bar = ProgressBar(total=1.0, completed=p, width=BAR_WIDTH, complete_style=colour, finished_style=colour)
            table.add_row(label, bar, f"{p:5.2f}" if e.emotions else "   - ")
        return table

    def _sentiment(self, e: Estimate) -> RenderableType:
        if e.sentiment is None or e.valence is None or e.arousal is None:
            return Text(f"sentiment    -   {nothing_perceived(e)}", style="grey50")
        s = e.sentiment
        line = Text("sentiment ")
        line.append_text(sentiment_bar(s.value, s.low, s.high, BAR_WIDTH + 1))
        line.append(f" {s.value:+.2f}\n", style=sentiment_colour(s.value))
        line.append(f"{'':10}valence {e.valence:+.2f}   arousal {e.arousal:+.2f}", style="grey70")
        if differs := disagreement(e):
            line.append(f"   {differs}", style="yellow")
        return line

    def _modalities(self, e: Estimate) -> RenderableType:
        columns = (Column(name, justify="right") for name in ("age", "influence", "alone", "sentiment"))
        table = Table("", "", *columns, box=None, padding=(0, 2), header_style="grey50")
        for m, name in CHANNELS.items():
            part = getattr(e.modalities, m)
            age = "-" if part.age_s is None else f"{part.age_s:.2f} s"
            if part.present:
                table.add_row(
                    name,
                    Text("● present", "green"),
                    age,
                    "-" if part.influence is None else f"{part.influence:.0%}",
                    alone(part),
                    Text(f"{part.sentiment:+.2f}", sentiment_colour(part.sentiment)),
                )
            else:
                why = Text("◌ late", "yellow") if part.late else Text("○ too far" if part.far else "○ absent", "grey50")
                table.add_row(name, why, age, "-", "-", "-", style="grey50")
        return table

    def _transcript(self, e: Estimate) -> RenderableType:
        return Text(f"“{e.transcript}”" if e.transcript else "…", style="italic")

    def _health(self, e: Estimate) -> RenderableType:
        latency = e.latency_ms.capture_to_estimate
        delay = "-" if latency is None else f"{latency:.0f} ms"
        people = f"{e.faces} face" if e.faces == 1 else f"{e.faces} faces"
        lost = f"dropped {e.dropped.video} frames, {e.dropped.audio} blocks of sound"
        health = Text(f"{self.rate_hz:.1f}/s · latency {delay} · {people} · {lost}\n{self.connection}", style="grey50")
        for worker in self.workers.values():
            if style := TROUBLE.get(worker.state):
                health.append(f"\n{worker.worker} {worker.state}: {worker.reason}", style=style)
        if self.marks:
            health.append(f"\n{self.marks}", style="cyan")
        return health


class TerminalView:
    """A sink that draws: live in a terminal, one plain line a second elsewhere."""

    def __init__(self, console: Console, dashboard: Dashboard) -> None:
        self.console = console
        self.dashboard = dashboard
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn_s = 0.0
        self._telling: Estimate | None = None
        """The newest estimate in which something was perceived: what stays on the screen at the end."""

    def on_estimate(self, emission: Emitted) -> None:
        self.show(emission.estimate)

    def on_worker(self, status: WorkerStatus) -> None:
        self.dashboard.set_worker(status)

    def on_connection(self, state: str) -> None:
        self.dashboard.set_connection(state)

    def show(self, estimate: Estimate) -> None:
        if estimate.top is not None:
            self._telling = estimate
        self.dashboard.arrived()
        now_s = time.monotonic()
        if now_s - self._drawn_s < (REDRAW_S if self._live else LINE_EVERY_S):
            return
        self._drawn_s = now_s
        if self._live:
            self._live.update(self.dashboard.render(estimate), refresh=True)
        else:
            self.console.print(
                f"{_moment(estimate.t)}  {describe_line(estimate)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, *__: object) -> None:
        if self._live:
            self._live.stop()
            if self._telling is not None and error is None:
                self.console.print(self.dashboard.render(self._telling))
