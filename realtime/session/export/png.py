"""The report as one picture."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.session import Session
from realtime.languages import t
from realtime.session.export import look
from realtime.session.export.look import Drawn
from realtime.session.sentences import Sentence, printable, sentences
from realtime.session.timeline import Floats, Timeline
from realtime.workers import WorkerState, WorkerStatus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

WIDTH_IN, DPI = 14.0, 100
LEFT, RIGHT = 0.185, 0.978
"""Of the plots, as fractions of the width; names stand to the left."""
TOP_IN, BOTTOM_IN, GAP_IN = 1.42, 0.25, 0.2
COLOURS = 256
INK, SOFT, RULE, SHEET, THERE = "#201f1d", "#76726b", "#e6e2dc", "#ffffff", "#dfe5ec"
FONTS: Final = ("DejaVu Sans",)
"""It comes with Matplotlib, so that the picture is the same everywhere."""
CHARACTER_IN = 0.078
LINE_IN = 0.165


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot and its name. draw: given its axes, whose x axis is set already."""

    name: str
    note: str
    height_in: float
    draw: Callable[[Axes], None]


def write(session: Session, file: IO[bytes]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from PIL import Image

    timeline = Timeline.read(session)
    picture = _Picture(timeline)
    panels = picture.panels()
    height_in = TOP_IN + BOTTOM_IN + sum(panel.height_in + GAP_IN for panel in panels)
    style: Any = {"font.family": FONTS, "font.size": 9.5, "text.color": INK, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, facecolor=SHEET)
        _head(figure, timeline, height_in)
        y_in = height_in - TOP_IN
        for number, panel in enumerate(panels):
            y_in -= panel.height_in
            axes = figure.add_axes((LEFT, y_in / height_in, RIGHT - LEFT, panel.height_in / height_in))
            _bare(axes, picture.drawn.length_s)
            panel.draw(axes)
            top = (y_in + panel.height_in) / height_in
            figure.text(0.022, top, t(panel.name), va="top", fontsize=10, fontweight="bold")
            figure.text(0.022, top - 0.2 / height_in, t(panel.note), va="top", fontsize=8, color=SOFT, linespacing=1.35)
            if number:
                y = (y_in + panel.height_in + GAP_IN / 2) / height_in
                figure.add_artist(Line2D([0.022, RIGHT], [y, y], color=RULE, linewidth=0.8))
            y_in -= GAP_IN
        times_s, fine = look.ticks(picture.drawn.length_s), picture.drawn.length_s <= 4.5
        axes.set_xticks(times_s, [look.clock(t_s, fine=fine) for t_s in times_s])
        drawn = io.BytesIO()
        with warnings.catch_warnings():
            # Words may be in scripts that the font does not have.
            warnings.filterwarnings("ignore", "Glyph .* missing")
            figure.savefig(drawn, format="png")
    # A third of the size, and the eye does not see it.
    small = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE, kmeans=3)
    small.save(file, format="png", optimize=True)


class _Picture:
    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.drawn = Drawn.of(timeline)
        self.said = sentences(timeline)

    def panels(self) -> list[Panel]:
        drawn, timeline = self.drawn, self.timeline
        graphs = (
            Panel("Shared space", "homogeneous graph:\nwho teaches whom", 0.84, self._graph(drawn.homo)),
            Panel("Own spaces", "heterogeneous graph:\nwho teaches whom", 0.84, self._graph(drawn.hetero)),
        )
        panels = [
            Panel("Emotions", "probabilities", 1.9, self._emotions),
            Panel("Sentiment", "with its 80 % interval", 1.15, self._sentiment),
            Panel("Affect", "", 0.95, self._affect),
            Panel("Channels", "perceived (pale), and\ntheir influence (filled)", 0.84, self._channels),
            *(graphs if sum(bool(present.any()) for present in timeline.present.values()) > 1 else ()),
        ]
        if timeline.words:
            rows = self._rows(self.said)
            most = max((len(lines) for _, lines in rows), default=0)
            height_in = max(0.42, 0.24 + most * LINE_IN)
            panels.insert(
                2,
                Panel(
                    "Words",
                    "tinted by what\nthey alone say",
                    height_in,
                    lambda axes: self._words(axes, rows, height_in),
                ),
            )
        if timeline.marks:
            panels.append(Panel("Marks", "labels given live", 0.36, self._marks))
        if drawn.dropped.any() or not np.isnan(drawn.latency_ms).all():
            panels.append(Panel("Quality", "latency; red: dropped", 0.62, self._quality))
        if troubled := self._troubled():
            panels.append(
                Panel("Workers", "that failed or began\nagain (red)", 0.3 + 0.15 * len(troubled), self._workers)
            )
        return panels

    def _troubled(self) -> dict[str, list[tuple[float, WorkerStatus]]]:
        """Changes of the workers of which one was for the worse."""
        trouble = {WorkerState.RESTARTING, WorkerState.FAILED}
        workers = self.timeline.workers
        return {name: all_ for name, all_ in workers.items() if any(status.state in trouble for _, status in all_)}

    def _workers(self, axes: Axes) -> None:
        troubled = self._troubled()
        for i, changes in enumerate(troubled.values()):
            ends = [t_s for t_s, _ in changes[1:]] + [self.drawn.length_s]
            for (t_s, status), end_s in zip(changes, ends, strict=True):
                if status.state in look.STATE_COLOURS:
                    colour = look.STATE_COLOURS[status.state]
                    bar = (t_s, max(end_s - t_s, self.drawn.length_s / 1000))
                    axes.broken_barh([bar], (len(troubled) - i - 0.75, 0.5), facecolor=colour, alpha=0.6)
        _names(axes, [printable(t(name)) for name in troubled])

    def _emotions(self, axes: Axes) -> None:
        drawn = self.drawn
        tops = np.cumsum(drawn.emotions, axis=1)
        shares = look.shares(self.timeline)
        for i, name in enumerate(EMOTIONS):
            low = tops[:, i - 1] if i else np.zeros(len(tops))
            self._fill(axes, low, tops[:, i], look.COLOURS[name])
            _key(axes, 1 - (0.48 + i * 0.185) / 1.9, look.COLOURS[name], f"{t(name)} {look.percent(shares[name])}")
        _scale(axes, {0: "0", 0.5: "½", 1: "1"})

    def _sentiment(self, axes: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        value, low, high = self.drawn.sentiment.T
        axes.axhline(0, color=SOFT, linewidth=0.8, alpha=0.5, linestyle=(0, (3, 4)))
        shades = LinearSegmentedColormap.from_list("scale", [look.NEGATIVE, look.PLAIN, look.POSITIVE])
        shown = axes.imshow(
            np.linspace(0, 1, 64)[:, None],
            cmap=shades,
            extent=(0, self.drawn.length_s, -3, 3),
            origin="lower",
            aspect="auto",
            alpha=0.3,
        )
        if (band := self._outline(low, high)) is None:
            shown.remove()
        else:
            shown.set_clip_path(band, axes.transData)
        axes.plot(*self._line(value), color=INK, linewidth=1.2, solid_joinstyle="round")
        _scale(axes, {-3: f"{look.MINUS}3", 0: "0", 3: "+3"})

    def _affect(self, axes: Axes) -> None:
        axes.axhline(0, color=SOFT, linewidth=0.8, alpha=0.5, linestyle=(0, (3, 4)))
        for i, (name, colour) in enumerate((("valence", look.VALENCE), ("arousal", look.AROUSAL))):
            axes.plot(*self._line(self.drawn.affect[:, i]), color=colour, linewidth=1.4, zorder=3 - i)
            _key(axes, 0.7 - i * 0.195, colour, t(name))
        _scale(axes, {-1: f"{look.MINUS}1", 0: "0", 1: "+1"})

    def _rows(self, said: Sequence[Sentence]) -> list[tuple[float, list[str]]]:
        """Return where each sentence begins, and its lines; nothing where there is no room for all."""
        inches = WIDTH_IN * (RIGHT - LEFT) / self.drawn.length_s
        starts = [sentence.start_s for sentence in said] + [self.drawn.length_s]
        rows = []
        for sentence, next_s in zip(said, starts[1:], strict=True):
            columns = int(((next_s - sentence.start_s) * inches - 0.08) / CHARACTER_IN)
            lines = textwrap.wrap(sentence.text, columns) if columns >= 8 else [""] * 9
            if len(lines) > 5:
                return []
            rows.append((sentence.start_s, lines))
        return rows

    def _words(self, axes: Axes, rows: Sequence[tuple[float, list[str]]], height_in: float) -> None:
        from matplotlib.colors import to_rgba

        timeline, least_s = self.timeline, self.drawn.length_s / 1000
        alone = {word: sentence.alone for sentence in self.said for word in sentence.words}
        axes.broken_barh(
            [(word.start_s, max(word.end_s - word.start_s, least_s)) for word in timeline.words],
            (1 - 0.18 / height_in, 0.18 / height_in),
            facecolors=[to_rgba(*look.tint(alone.get(word))) for word in timeline.words],
            edgecolor=SHEET,
            linewidth=0.6 if rows else 0.0,
        )
        for start_s, lines in rows:
            axes.text(start_s, 1 - 0.25 / height_in, "\n".join(lines), va="top", fontsize=9, linespacing=1.3)

    def _channels(self, axes: Axes) -> None:
        drawn = self.drawn
        for i, m in enumerate(CHANNELS):
            floor = len(CHANNELS) - 1 - i
            there = np.where(drawn.present[m] > 0.5, 1.0, np.nan)
            self._fill(axes, floor + 0.06 + 0 * there, floor + 0.94 * there, THERE)
            self._fill(
                axes, floor + 0.06 + 0 * there, floor + 0.06 + 0.88 * drawn.influence[m], look.GRAPH, opacity=0.85
            )
        _names(axes, [t(name) for name in CHANNELS.values()])

    def _graph(self, edges: Floats) -> Callable[[Axes], None]:
        from matplotlib.colors import LinearSegmentedColormap

        def draw(axes: Axes) -> None:
            drawn = self.drawn
            count = edges.shape[1]
            shades = LinearSegmentedColormap.from_list("weight", [SHEET, look.GRAPH])
            # Columns where nothing was estimated stay empty.
            for i in range(count):
                bars = [(t, u - t) for t, u in zip(drawn.t_s, drawn.until_s, strict=True)]
                colours = shades(np.sqrt(np.nan_to_num(edges[:, i]).clip(0, 1)))
                axes.broken_barh(bars, (count - 1 - i + 0.07, 0.86), facecolors=colours, linewidth=0)
            _names(axes, look.edge_names())

        return draw

    def _quality(self, axes: Axes) -> None:
        latency, dropped = self.drawn.latency_ms, self.drawn.dropped
        most = 1.0
        if np.any(~np.isnan(latency)):
            most = 50 * float(np.ceil(np.nanmax(latency) / 50))
            axes.plot(*self._line(latency), color=look.GRAPH, linewidth=1.2)
            _scale(axes, {0: "0", most: f"{most:.0f} ms"})
        else:
            axes.text(
                0.0, 0.5, t("Time is the file's own, so there is no latency."), fontsize=8, color=SOFT, va="center"
            )
        lost = dropped > 0
        heights = 0.05 * most + 0.4 * most * dropped[lost] / max(1.0, dropped.max())
        axes.vlines(self.drawn.t_s[lost], 0, heights, color=look.NEGATIVE, linewidth=0.9, alpha=0.8)
        axes.set_ylim(0, most)

    def _marks(self, axes: Axes) -> None:
        for mark in self.timeline.marks:
            colour = look.COLOURS.get(mark.emotion or "", look.PLAIN)
            width_s = max(mark.end_s - mark.start_s, self.drawn.length_s / 500)
            axes.broken_barh([(mark.start_s, width_s)], (0.55, 0.45), facecolor=colour, alpha=0.75)
            text = textwrap.shorten(printable(mark.text), 40)
            axes.text(mark.start_s, 0.42, text, va="top", fontsize=8, color=SOFT, clip_on=True)

    def _fill(self, axes: Axes, low: Floats, high: Floats, colour: str, opacity: float = 1.0) -> None:
        from matplotlib.patches import PathPatch

        if (outline := self._outline(low, high)) is not None:
            axes.add_patch(PathPatch(outline, facecolor=colour, alpha=opacity, linewidth=0))

    def _outline(self, low: Floats, high: Floats) -> Path | None:
        """Return the outline of the area between two curves, broken at gaps; None where there is nothing."""
        from matplotlib.path import Path

        drawn = self.drawn
        outlines = []
        for part in drawn.stretches(low + high):
            t_s = np.append(drawn.t_s[part], drawn.until_s[part.stop - 1])
            over, under = (np.append(values[part], values[part.stop - 1]) for values in (high, low))
            points = np.concatenate([np.stack([t_s, over], 1), np.stack([t_s, under], 1)[::-1]])
            outlines.append(Path(points))
        return Path.make_compound_path(*outlines) if outlines else None

    def _line(self, values: Floats) -> tuple[Floats, Floats]:
        """Return a line with a hole at each gap."""
        t_s, y = [], []
        for part in self.drawn.stretches(values):
            t_s += [*self.drawn.t_s[part], np.nan]
            y += [*values[part], np.nan]
        return np.array(t_s), np.array(y)


def _head(figure: Figure, timeline: Timeline, height_in: float) -> None:
    figure.text(0.022, 1 - 0.2 / height_in, t("session").upper(), fontsize=8, color=SOFT, va="top")
    stream = textwrap.shorten(printable(timeline.session.stream), 64)
    figure.text(0.0215, 1 - 0.36 / height_in, stream, fontsize=20, fontweight="bold", va="top")
    figure.text(0.978, 1 - 0.43 / height_in, look.verdict(timeline), fontsize=10.5, color=SOFT, va="top", ha="right")
    facts = look.facts(timeline)
    wide_in = [0.077 * max(len(name), len(value)) for name, value in facts.items()]
    gap_in = min(0.4, ((RIGHT - 0.022) * WIDTH_IN - sum(wide_in)) / max(1, len(facts) - 1))
    x = 0.022
    for (name, value), width_in in zip(facts.items(), wide_in, strict=True):
        figure.text(x, 1 - 0.82 / height_in, name, fontsize=8, color=SOFT, va="top")
        figure.text(x, 1 - 0.98 / height_in, textwrap.shorten(printable(value), 48), fontsize=9.5, va="top")
        x += (gap_in + width_in) / WIDTH_IN


def _bare(axes: Axes, length_s: float) -> None:
    """Leave nothing but the axis of time, as thin lines."""
    axes.set_xlim(0, length_s)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_xticks(look.ticks(length_s), [])
    axes.grid(axis="x", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, labelcolor=SOFT)
    axes.spines[:].set_visible(False)


def _scale(axes: Axes, labels: dict[float, str]) -> None:
    axes.set_yticks(list(labels), list(labels.values()))
    axes.set_ylim(min(labels), max(labels))


def _names(axes: Axes, names: Sequence[str]) -> None:
    """Name strips of height 1, from the top down."""
    axes.set_ylim(0, len(names))
    axes.set_yticks([len(names) - 0.5 - i for i in range(len(names))], names)


def _key(axes: Axes, y: float, colour: str, text: str) -> None:
    """A line of a legend, to the left of the plot."""
    x = (0.0255 - LEFT) / (RIGHT - LEFT)
    axes.plot(x, y, "s", color=colour, markersize=5.5, transform=axes.transAxes, clip_on=False)
    axes.text(x + 0.01, y, text, transform=axes.transAxes, fontsize=8, color=SOFT, va="center_baseline")
