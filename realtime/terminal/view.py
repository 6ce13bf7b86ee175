"""View in the terminal: what is shown, the last minute, words, rates and ages, in as many lines and columns as there
are; plain lines where there is no terminal.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from dhmd.labels import CHANNELS
from realtime.messages.estimate import Estimate, ExtraNumber, ModalityEstimate
from realtime.perception.people import PeopleInView
from realtime.pipeline.outputs import Emitted
from realtime.terminal.history import COLOURS, History
from realtime.workers import WorkerState, WorkerStatus

TROUBLE = {
    WorkerState.BEHIND: "yellow",
    WorkerState.LATE: "yellow",
    WorkerState.RESTARTING: "red",
    WorkerState.FAILED: "red",
}
REDRAW_S = 0.125
LINE_EVERY_S = 1.0
LEAST_WIDTH, MOST_WIDTH = 40, 160
MOST_HISTORY = 6
UNATTRIBUTED = {"overlap": "several speak at once", "outside": "speech from outside the picture"}
UNKNOWN_S = 1.0
"""For so long it may not be known who of several people speaks."""
LABEL, NUMBER = 10, 6
"""Columns to the left and to the right of a bar."""


def sentiment_colour(value: float) -> str:
    return "green" if value > 0.5 else "red" if value < -0.5 else "grey70"


def sentiment_bar(value: float, low: float, high: float, width: int) -> Text:
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
    own = "".join(f"  {one}" for one in own_heads(e))
    said = ", ".join(heard(e))
    words = (f'  "{e.transcript}"' if e.transcript else "") + (f"  ({said})" if said else "")
    return f"{present}  {what}{own}{words}"


def own_heads(e: Estimate) -> list[str]:
    """Describe what each head of the checkpoint's own says."""
    return [
        f"{name.replace('_', ' ')} {one.value:.2f} {one.unit}".rstrip()
        if isinstance(one, ExtraNumber)
        else f"{name.replace('_', ' ')} {one.top} {one.probabilities[one.top]:.2f}"
        for name, one in e.extra.items()
    ]


def heard(e: Estimate) -> list[str]:
    """Describe what is known of the speech: its language, whether several speak, and whether it is read."""
    known = [] if e.language is None else [e.language.code]
    known += [UNATTRIBUTED["overlap"]] if e.overlapped else []
    unread = "not read: no language that this model was tested in" if e.transcript else "speech heard, not understood"
    return [*known, unread] if e.modalities.text.unread else known


def alone(part: ModalityEstimate) -> str:
    """Describe what a modality says by itself."""
    if part.emotions is None:
        return "-"
    top = max(part.emotions, key=lambda name: part.emotions[name])  # type: ignore[index]
    return f"{top} {part.emotions[top]:.0%}"


def _moment(t: float) -> str:
    """The time of day; of a file at --pace max, whose time starts at 0, its seconds."""
    return time.strftime("%H:%M:%S", time.localtime(t)) if t > 1e9 else f"{t:7.1f}s"


class Dashboard:
    """Draws the newest estimate, the last minute, and the health of the run."""

    def __init__(self, title: str, destination: str) -> None:
        self.title = title
        self._destination = self.connection = destination
        self.workers: dict[str, WorkerStatus] = {}
        self.marks = ""
        self.over = False
        self.view: PeopleInView | None = None
        """Who is in view; None where one person is read."""
        self._persons: dict[int, Estimate] = {}
        self.history = History()
        self._arrivals: deque[float] = deque(maxlen=50)

    def set_connection(self, state: str) -> None:
        self.connection = f"{self._destination} {state}"

    def set_worker(self, status: WorkerStatus) -> None:
        self.workers[status.worker] = status

    def set_people(self, view: PeopleInView) -> None:
        self.view = view
        here = {one.person for one in view.people}
        self._persons = {person: e for person, e in self._persons.items() if person in here}

    def person_arrived(self, e: Estimate) -> None:
        if e.person is not None:
            self._persons[e.person] = e

    def people(self) -> list[Text]:
        """Return a line each of those in view, where there are several."""
        if self.view is None or len(self.view.people) < 2:
            return []
        lines = [_person(one.person, self._persons.get(one.person), self.view.speaker) for one in self.view.people]
        turn = self.view.turn
        if self.view.speech in UNATTRIBUTED and turn is not None and self.view.at_s - turn.start_s > UNKNOWN_S:
            lines.append(Text(UNATTRIBUTED[self.view.speech], "grey50"))
        return lines

    def arrived(self, e: Estimate) -> None:
        self.history.add(e)
        self._arrivals.append(time.monotonic())

    def line(self, e: Estimate) -> str:
        """Describe an estimate, and those in view where there are several, in one plain line."""
        return " | ".join([describe_line(e), *map(str, self.people())])

    def trouble(self) -> list[Text]:
        """Return a line each of the workers that do not keep up, or do not work."""
        return [
            Text(f"{worker.worker} {worker.state}: {worker.reason}", TROUBLE[worker.state])
            for worker in self.workers.values()
            if worker.state in TROUBLE
        ]

    @property
    def rate_hz(self) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(1e-6, self._arrivals[-1] - self._arrivals[0])

    def render(self, e: Estimate | None) -> RenderableType:
        """Return what is drawn; it fits the console it is drawn on."""
        return _Fitted(self, e)

    def parts(self, e: Estimate, width: int) -> list[_Part]:
        """Return what there is to draw of an estimate, in `width` columns, from the top down."""
        people = self.people()
        for line in people:
            line.truncate(width, overflow="ellipsis")
        return [
            _Part(10, 1, _headline(e, width)),
            *(_Part(9, 1, line, apart=line is people[0]) for line in people),
            _Part(8, len(COLOURS), _emotions(e, width)),
            _Part(5, 1, _sentiment(e, width)),
            *([_Part(6, 1, _own(e, width))] if e.extra else []),
            _Part(7, 1 + len(CHANNELS), _channels(e, width)),
            _Part(4, 1, _last_words(e, width)),
            _Part(3, 2, None),
            *self._health(e, width),
        ]

    def last_minute(self, width: int, height: int) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        table.add_row(Text("last min".rjust(LABEL - 1), "grey50"), self.history.drawn(width - LABEL, height))
        return table

    def _health(self, e: Estimate, width: int) -> list[_Part]:
        latency = e.latency_ms.capture_to_estimate
        delay = "-" if latency is None else f"{latency:.0f} ms"
        people = f"{e.faces} face" if e.faces == 1 else f"{e.faces} faces"
        lost = f"lost {e.dropped.video} frames, {e.dropped.audio} blocks of sound"
        lines = [Text(f"{self.rate_hz:.1f}/s · latency {delay} · {people} · {lost}", "grey50")]
        lines += self.trouble()
        lines += [Text(line, "cyan") for line in self.marks.splitlines()]
        lines.append(Text(self.connection if self.over else f"Ctrl-C stops · {self.connection}", "grey50"))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        keep = [2, *[6] * (len(lines) - 2), 9]
        return [_Part(one, 1, line, apart=line is lines[0]) for one, line in zip(keep, lines, strict=True)]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the view. keep: how much it matters, where there is no room for all. drawn: None for the last minute,
    which takes the lines that are left. apart: an empty line may stand above it.
    """

    keep: int
    lines: int
    drawn: RenderableType | None
    apart: bool = True


@dataclass(frozen=True, slots=True)
class _Fitted:
    """The view of an estimate in as many lines and columns as its console has."""

    dashboard: Dashboard
    estimate: Estimate | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(LEAST_WIDTH, min(MOST_WIDTH, options.max_width))
        title = Text(self.dashboard.title, style="bold")
        if self.estimate is None:
            yield Panel("waiting for the first estimate\nCtrl-C stops", title=title, width=width)
            return
        inside = width - 4
        # The frame takes two lines, and the line below is the cursor's.
        room = console.size.height - 3
        parts = self.dashboard.parts(self.estimate, inside)
        while sum(part.lines for part in parts) > room and len(parts) > 1:
            parts.remove(min(parts, key=lambda part: part.keep))
        spare = room - sum(part.lines for part in parts)
        gaps = sum(part.apart for part in parts[1:])
        gaps = gaps if spare >= gaps else 0
        height = 1 + min(MOST_HISTORY - 1, max(0, spare - gaps))
        body: list[RenderableType] = []
        for part in parts:
            body += [Text()] if gaps and body and part.apart else []
            body.append(part.drawn if part.drawn is not None else self.dashboard.last_minute(inside, height))
        yield Panel(Group(*body), title=title, width=width)


def _headline(e: Estimate, width: int) -> Text:
    if e.emotions is None or e.sentiment is None or e.top is None:
        return Text(nothing_perceived(e), style="bold")
    line = Text(f"{e.top} {e.emotions[e.top]:.0%}", style=f"bold {COLOURS[e.top]}")
    line.append(f"   valence {e.valence:+.2f}   arousal {e.arousal:+.2f}", style="not bold grey70")
    if differs := e.disagreement:
        line.append(f"   {differs}", style="not bold yellow")
    line.truncate(width, overflow="ellipsis")
    return line


def _person(number: int, e: Estimate | None, speaker: int | None) -> Text:
    line = Text(f"person {number}".rjust(LABEL - 1) + " ")
    if e is None or e.emotions is None or e.top is None:
        line.append("-" if e is None else nothing_perceived(e), "grey50")
    else:
        line.append(f"{e.top} {e.emotions[e.top]:.0%}".ljust(14), f"bold {COLOURS[e.top]}")
        line.append(
            "  " + ", ".join(name for m, name in CHANNELS.items() if getattr(e.modalities, m).present), "grey70"
        )
    if number == speaker:
        line.append("  speaks", "green")
    return line


def _emotions(e: Estimate, width: int) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for name, colour in COLOURS.items():
        p = e.emotions[name] if e.emotions else 0.0  # type: ignore[index]
        label = Text(name.rjust(LABEL - 1), style="bold" if name == e.top else "")
        bar = ProgressBar(
            total=1.0, completed=p, width=width - LABEL - NUMBER, complete_style=colour, finished_style=colour
        )
        table.add_row(label, bar, f"{p:5.2f}" if e.emotions else "   - ")
    return table


def _sentiment(e: Estimate, width: int) -> RenderableType:
    line = Text("sentiment ")
    if (s := e.sentiment) is None:
        return line.append("-", "grey50")
    line.append_text(sentiment_bar(s.value, s.low, s.high, width - LABEL - NUMBER))
    return line.append(f" {s.value:+.2f}", style=sentiment_colour(s.value))


def _own(e: Estimate, width: int) -> Text:
    line = Text("also".rjust(LABEL - 1) + " ").append(" · ".join(own_heads(e)), "bold")
    line.truncate(width, overflow="ellipsis")
    return line


def _channels(e: Estimate, width: int) -> RenderableType:
    columns = (Column(name, justify="right") for name in ("alone", "influence", "sentiment", "age"))
    padding = 2 if width >= 66 else 0
    table = Table("", "", *columns, box=None, padding=(0, padding), pad_edge=False, header_style="grey50")
    for m, name in CHANNELS.items():
        part = getattr(e.modalities, m)
        label = Text(name.rjust(LABEL - 1))
        if not part.present:
            absent = "○ too far" if part.far else "○ not read" if part.unread else "○ absent"
            why = Text("◌ late", "yellow") if part.late else Text(absent, "grey50")
            table.add_row(label, why, "-", "-", "-", "-", style="grey50")
            continue
        table.add_row(
            label,
            Text("◐ covered", "yellow") if part.covered else Text("● present", "green"),
            alone(part),
            "-" if part.influence is None else f"{part.influence:.0%}",
            Text(f"{part.sentiment:+.2f}", sentiment_colour(part.sentiment)),
            "-" if part.age_s is None else f"{part.age_s:.2f} s",
        )
    return table


def _last_words(e: Estimate, width: int) -> Text:
    """The newest words that fit a line, after what is known of them."""
    known = Text("".join(f"{one} · " for one in heard(e)), "grey50")
    known.truncate(width)
    room = max(1, width - len(known))
    quoted = f"“{e.transcript}”" if e.transcript else "…"
    return known.append(quoted if len(quoted) <= room else f"…{quoted[len(quoted) - room + 1 :]}", style="italic")


class DashboardSink:
    """A sink that keeps all but the estimates of a stream on a dashboard."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard

    def on_person(self, emission: Emitted) -> None:
        self.dashboard.person_arrived(emission.estimate)

    def on_people(self, view: PeopleInView) -> None:
        self.dashboard.set_people(view)

    def on_worker(self, status: WorkerStatus) -> None:
        self.dashboard.set_worker(status)

    def on_connection(self, state: str) -> None:
        self.dashboard.set_connection(state)


class TerminalView(DashboardSink):
    """A sink that draws: live in a terminal, one plain line a second elsewhere."""

    def __init__(self, console: Console, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._drawn_s = 0.0
        self._telling: Estimate | None = None
        """The newest estimate in which something was perceived: what stays on the screen at the end."""

    def on_estimate(self, emission: Emitted) -> None:
        self.show(emission.estimate)

    def show(self, estimate: Estimate) -> None:
        if estimate.top is not None:
            self._telling = estimate
        self.dashboard.arrived(estimate)
        now_s = time.monotonic()
        if now_s - self._drawn_s < (REDRAW_S if self._live else LINE_EVERY_S):
            return
        self._drawn_s = now_s
        if self._live:
            self._live.update(self.dashboard.render(estimate), refresh=True)
        else:
            line = f"{_moment(estimate.t)}  {self.dashboard.line(estimate)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, *__: object) -> None:
        if self._live:
            self._live.stop()
            self.dashboard.over = True
            if self._telling is not None and error is None:
                self.console.print(self.dashboard.render(self._telling))
