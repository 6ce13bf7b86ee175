"""Plots of a report: SVG stretched to the width there is, their labels text of the page, right on a phone, too."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.modality import Modality
from realtime.languages import t
from realtime.session.export import look
from realtime.session.export.look import Drawn
from realtime.session.export.markup import escape
from realtime.session.sentences import Sentence
from realtime.session.timeline import Floats, Timeline

WIDTH = 1000.0
"""Of all plots, in their own units."""
PLOT_PX = 860
"""About what that is on a wide screen."""
CHARACTER_PX, LINE_PX = 6.3, 16


class Plots:
    """Draws the panels; all have the same axis of time."""

    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.x = drawn.t_s / drawn.length_s * WIDTH
        self.until = drawn.until_s / drawn.length_s * WIDTH

    def at(self, t_s: float) -> float:
        return min(1.0, max(0.0, t_s / self.drawn.length_s)) * WIDTH

    def emotions(self, timeline: Timeline) -> str:
        height = 170.0
        shares = look.shares(timeline)
        legend = "".join(
            f'<li><i style="background:{look.COLOURS[name]}"></i>{t(name)} <b>{look.percent(shares[name])}</b></li>'
            for name in EMOTIONS
        )
        what = f"{t('Probabilities of seven emotions over time.')} {look.verdict(timeline)}"
        svg = self._svg(height, self._stacked(height), what)
        return _panel(
            t("Emotions"), t("probabilities"), svg, {"1": 0, "½": 50, "0": 100}, f'<ul class="key">{legend}</ul>'
        )

    def people(self, people: Mapping[int, Timeline], overlaps: Sequence[tuple[float, float]]) -> str:
        """Return a lane a person: the emotions, and below them when they spoke. overlaps: when several did, seconds."""
        height, spoke = 40.0, 5.0
        rows = []
        for person, timeline in people.items():
            own = Plots(replace(Drawn.of(timeline), length_s=self.drawn.length_s))
            bars = own._bars(own.drawn.present[Modality.AUDIO] > 0.5, spoke, 2 * height + spoke)
            several = np.zeros(len(own.drawn.t_s), np.bool_)
            for start_s, end_s in overlaps:
                several |= (own.drawn.t_s >= start_s) & (own.drawn.t_s <= end_s)
            at_once = own._bars(several, spoke, 2 * height + spoke)
            body = (
                f'{own._stacked(height)}<path class="there" d="{bars}"/>'
                f'<path class="several" d="{at_once}"><title>{t("several speak at once")}</title></path>'
            )
            name = t("Person {number}", number=person)
            told = f"{name}: {look.verdict(timeline)}"
            rows.append((name, self._svg(height + spoke + 2, body, told)))
        return (
            _rows(t("People"), t("emotions of each; the bar below: they speak; in outline: several at once"), rows)
            if rows
            else ""
        )

    def _stacked(self, height: float) -> str:
        """The probabilities of the emotions, one above the other."""
        tops = np.cumsum(self.drawn.emotions, axis=1)
        areas = []
        for i, name in enumerate(EMOTIONS):
            low = tops[:, i - 1] if i else np.where(np.isnan(tops[:, 0]), np.nan, 0.0)
            path = self._areas(low, tops[:, i], 0, 1, height)
            areas.append(f'<path d="{path}" fill="{look.COLOURS[name]}"><title>{t(name)}</title></path>')
        return "".join(areas)

    def sentiment(self) -> str:
        height = 120.0
        value, low, high = self.drawn.sentiment.T
        gradient = (
            f'<linearGradient id="scale" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="0" y2="{height:g}">'
            f'<stop offset="0" stop-color="{look.POSITIVE}"/><stop offset=".5" stop-color="{look.PLAIN}"/>'
            f'<stop offset="1" stop-color="{look.NEGATIVE}"/></linearGradient>'
        )
        body = (
            f"<defs>{gradient}</defs>"
            f'<path d="{self._areas(low, high, -3, 3, height)}" fill="url(#scale)" opacity=".28"/>'
            f"{_level(height / 2)}"
            f'<path class="line ink" d="{self._lines(value, -3, 3, height)}"/>'
        )
        told = t("Sentiment between -3 and 3 with its interval, {range}.", range=_range(value))
        return _panel(
            t("Sentiment"),
            t("with its 80 % interval"),
            self._svg(height, body, told),
            {"+3": 0, "0": 50, f"{look.MINUS}3": 100},
        )

    def affect(self) -> str:
        height = 100.0
        valence, arousal = self.drawn.affect.T
        body = _level(height / 2) + "".join(
            f'<path class="line" d="{self._lines(values, -1, 1, height)}" stroke="{colour}"/>'
            for values, colour in ((arousal, look.AROUSAL), (valence, look.VALENCE))
        )
        key = "".join(
            f'<span><i style="background:{colour}"></i>{t(name)}</span>'
            for name, colour in (("valence", look.VALENCE), ("arousal", look.AROUSAL))
        )
        told = t(
            "Valence, {valence}, and arousal, {arousal}, between -1 and 1.",
            valence=_range(valence),
            arousal=_range(arousal),
        )
        svg = self._svg(height, body, told)
        return _panel(
            t("Affect"), f'<span class="key">{key}</span>', svg, {"+1": 0, "0": 50, f"{look.MINUS}1": 100}, raw=True
        )

    def words(self, timeline: Timeline, said: Sequence[Sentence]) -> str:
        if not timeline.words:
            return ""
        height = 18.0
        bars, alone = [], {word: sentence.alone for sentence in said for word in sentence.words}
        for word in timeline.words:
            sentiment = alone.get(word)
            colour, opacity = look.tint(sentiment)
            x, width = self.at(word.start_s), self.at(word.end_s) - self.at(word.start_s)
            told = f"{word.text}, {look.clock(word.start_s)}"
            if sentiment is not None:
                told += f", {t('sentiment')} {look.signed(sentiment)}"
            if word.overlapped:
                told += f", {t('several speak at once')}"
            bars.append(
                f'<rect x="{x:.1f}" width="{max(0.8, width - 0.6):.1f}" y="2" height="{height - 4:g}" '
                f'fill="{colour}" fill-opacity="{opacity:.2f}"><title>{escape(told)}</title></rect>'
            )
        told = t("{count} words, tinted by what the words alone say.", count=len(timeline.words))
        svg = self._svg(height, "".join(bars), told)
        return _panel(t("Words"), t("tinted by what they alone say"), svg + self._spoken(said), {})

    def _spoken(self, said: Sequence[Sentence]) -> str:
        """Return the sentences under the axis, each where it begins, if there is room for them."""
        starts = [sentence.start_s for sentence in said] + [self.drawn.length_s]
        most, cells = 1, []
        for sentence, next_s in zip(said, starts[1:], strict=True):
            share = (self.at(next_s) - self.at(sentence.start_s)) / WIDTH
            columns = int((share * PLOT_PX - 6) / CHARACTER_PX)
            if columns < 8:
                return ""
            most = max(most, len(textwrap.wrap(sentence.text, columns)))
            left = self.at(sentence.start_s) / WIDTH
            cells.append(f'<span style="left:{left:.2%};width:{share:.2%}">{escape(sentence.text)}</span>')
        if most > 5:
            return ""
        return f'<div class="spoken" aria-hidden="true" style="height:{most * LINE_PX + 4}px">{"".join(cells)}</div>'

    def channels(self) -> str:
        height = 26.0
        rows = []
        for m, name in CHANNELS.items():
            there = self._bars(self.drawn.present[m] > 0.5, height - 2, height)
            influence = self.drawn.influence[m]
            area = self._areas(np.zeros_like(influence), influence, -0.08, 1.08, height)
            body = f'<path class="there" d="{there}"/><path d="{area}" fill="{look.GRAPH}" fill-opacity=".85"/>'
            seen = float(np.mean(self.drawn.present[m]))
            known = influence[~np.isnan(influence)]
            told = t("{channel} perceived in {share} of the time", channel=t(name), share=look.percent(seen))
            if len(known):
                told += f", {t('mean influence {share}', share=look.percent(float(known.mean())))}"
            rows.append((t(name), self._svg(height, body, told)))
        return _rows(t("Channels"), t("perceived (pale), and how far each moves the answer (filled, 0 to 1)"), rows)

    def graph(self, title: str, note: str, edges: Floats) -> str:
        height = 12.0
        rows = []
        for name, weights in zip(look.edge_names(), edges.T, strict=True):
            told = f"{name}, {t('none')}"
            if np.any(~np.isnan(weights)):
                told = f"{name}, {t('mean weight {weight}', weight=f'{np.nanmean(weights):.2f}')}"
            rows.append((name, self._svg(height, self._heat(weights, height), told)))
        return _rows(t(title), t(note), rows)

    def marks(self, timeline: Timeline) -> str:
        if not timeline.marks:
            return ""
        height = 18.0
        bars, labels = [], []
        for mark in timeline.marks:
            x, width = self.at(mark.start_s), self.at(mark.end_s) - self.at(mark.start_s)
            colour = look.COLOURS.get(mark.emotion or "", look.PLAIN)
            bars.append(
                f'<rect x="{x:.1f}" width="{max(1.5, width):.1f}" y="1" height="{height - 2:g}" fill="{colour}" '
                f'fill-opacity=".7"><title>{escape(mark.text)}</title></rect>'
            )
            labels.append(f'<span style="left:{x / WIDTH:.2%}">{escape(mark.text)}</span>')
        told = t("Marks: ") + "; ".join(f"{mark.text} {look.clock(mark.start_s)}" for mark in timeline.marks)
        svg = self._svg(height, "".join(bars), told)
        return _panel(
            t("Marks"),
            t("labels given live"),
            f'{svg}<div class="marked" aria-hidden="true">{"".join(labels)}</div>',
            {},
        )

    def quality(self) -> str:
        height = 64.0
        latency, dropped = self.drawn.latency_ms, self.drawn.dropped
        if np.isnan(latency).all() and not dropped.any():
            return ""
        body, scale, told = "", {}, t("Time is the file's own, so there is no latency.")
        if np.any(~np.isnan(latency)):
            most = 50 * math.ceil(np.nanmax(latency) / 50)
            body = f'<path class="line" d="{self._lines(latency, 0, most, height)}" stroke="{look.GRAPH}"/>'
            scale, told = (
                {f"{most} ms": 0, "0": 100},
                t("Latency from capture to estimate, {range} milliseconds.", range=_range(latency)),
            )
        lost = dropped / max(1.0, dropped.max())
        ticks = "".join(
            f"M{x:.1f} {height:g}v{-share * 0.45 * height - 2:.1f}"
            for x, share in zip(self.x, lost, strict=True)
            if share > 0
        )
        body += f'<path class="lost" d="{ticks}" stroke="{look.NEGATIVE}"/>'
        told += " " + t("{count} frames and blocks of sound dropped.", count=int(dropped.sum()))
        return _panel(t("Quality"), t("latency; red: dropped"), self._svg(height, body, told), scale)

    def workers(self, timeline: Timeline) -> str:
        rows = []
        for name, changes in timeline.workers.items():
            ends = [t_s for t_s, _ in changes[1:]] + [self.drawn.length_s]
            bars = "".join(
                f'<rect x="{self.at(t_s):.1f}" width="{max(1.2, self.at(end_s) - self.at(t_s)):.1f}" y="3" height="6" '
                f'fill="{look.STATE_COLOURS[status.state]}" fill-opacity=".6">'
                f"<title>{escape(f'{t(status.state)} {status.reason}')}</title></rect>"
                for (t_s, status), end_s in zip(changes, ends, strict=True)
                if status.state in look.STATE_COLOURS
            )
            told = f"{name}: " + ", ".join(f"{t(status.state)} {look.clock(t_s)}" for t_s, status in changes)
            rows.append((t(name), self._svg(12, bars, told)))
        return _rows(t("Workers"), t("running; red: restarting"), rows) if rows else ""

    def _svg(self, height: float, body: str, told: str) -> str:
        grid = "".join(f"M{self.at(t_s):.1f} 0V{height:g}" for t_s in look.ticks(self.drawn.length_s)[1:])
        return (
            f'<svg role="img" aria-label="{escape(told)}" viewBox="0 0 {WIDTH:g} {height:g}" '
            f'preserveAspectRatio="none" style="height:{height:g}px"><path class="grid" d="{grid}"/>{body}</svg>'
        )

    def _lines(self, values: Floats, low: float, high: float, height: float) -> str:
        y = (high - values) / (high - low) * height
        return "".join("M" + self._points(part, y) for part in self.drawn.stretches(values))

    def _areas(self, under: Floats, over: Floats, low: float, high: float, height: float) -> str:
        """Return the area between two curves, each stretch up to where its last point ends."""
        paths = []
        for part in self.drawn.stretches(over):
            last = part.stop - 1
            y0, y1 = ((high - values) / (high - low) * height for values in (under, over))
            back = slice(last, part.start - 1 if part.start else None, -1)
            end = self.until[last]
            paths.append(
                f"M{self._points(part, y1)} {end:.1f},{y1[last]:.1f} {end:.1f},{y0[last]:.1f} {self._points(back, y0)}Z"
            )
        return "".join(paths)

    def _points(self, part: slice, y: Floats) -> str:
        return " ".join(f"{x:.1f},{v:.1f}" for x, v in zip(self.x[part], y[part], strict=True))

    def _bars(self, there: np.ndarray[tuple[int], np.dtype[np.bool_]], height: float, total: float) -> str:
        """One bar for each stretch where something is."""
        top = (total - height) / 2
        ends = (
            (self.x[part.start], self.until[part.stop - 1])
            for part in self.drawn.stretches(np.where(there, 1.0, np.nan))
        )
        return "".join(f"M{x0:.1f} {top:g}H{x1:.1f}V{total - top:g}H{x0:.1f}Z" for x0, x1 in ends)

    def _heat(self, weights: Floats, height: float) -> str:
        """Return bars, of fuller colour for stronger weights; neighbours of one shade are one bar."""
        shades = np.where(np.isnan(weights), 0.0, np.round(np.sqrt(np.clip(weights, 0, 1)) * 16))
        bars = []
        apart = (np.diff(shades) != 0) | (self.x[1:] > self.until[:-1] + 0.01)
        for part in np.split(np.arange(len(shades)), np.flatnonzero(apart) + 1):
            x, shade = self.x[part[0]], shades[part[0]]
            if shade > 0:
                bars.append(
                    f'<rect x="{x:.1f}" width="{self.until[part[-1]] - x + 0.1:.1f}" y="1" height="{height - 2:g}" '
                    f'fill-opacity="{shade / 16:.2f}"/>'
                )
        return f'<g fill="{look.GRAPH}">{"".join(bars)}</g>'


def _panel(title: str, note: str, plot: str, scale: dict[str, int], below: str = "", *, raw: bool = False) -> str:
    """Return a plot beside its name. scale: label -> its place from the top, in per cent."""
    labels = "".join(f'<span style="top:{place}%">{label}</span>' for label, place in scale.items())
    note = note if raw else escape(note)
    return (
        f'<section class="panel"><div class="name"><h2>{title}</h2><p>{note}</p></div>'
        f'<div class="scale" aria-hidden="true">{labels}</div><div class="plot">{plot}</div>{below}</section>\n'
    )


def _rows(title: str, note: str, rows: Iterable[tuple[str, str]]) -> str:
    """A panel of strips: the name of each, and its drawing."""
    strips = "".join(
        f'<div class="strip"><span aria-hidden="true">{escape(name)}</span><div class="plot">{svg}</div></div>'
        for name, svg in rows
    )
    return (
        f'<section class="panel"><div class="name"><h2>{title}</h2><p>{escape(note)}</p></div>'
        f'<div class="strips">{strips}</div></section>\n'
    )


def _level(y: float) -> str:
    return f'<path class="level" d="M0 {y:g}H{WIDTH:g}"/>'


def _range(values: Floats) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return t("never estimated")
    return t("from {least} to {most}", least=f"{known.min():.1f}", most=f"{known.max():.1f}")
