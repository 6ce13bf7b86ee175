"""A report as one page that needs nothing but itself: no script, no network, dark or light as its reader likes.

Plots are SVG stretched to the width there is, their labels text of the page, so that both are right on a phone. All
that comes from the file is untrusted and escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import IO, Final

import numpy as np

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.modality import Modality
from dhmd.session import Session
from realtime.languages import t
from realtime.messages.estimate import ExtraNumber
from realtime.session.export import look, tables
from realtime.session.export.look import Drawn
from realtime.session.export.markup import document, escape, folded
from realtime.session.export.plots import Plots
from realtime.session.people import overlaps_in
from realtime.session.sentences import Sentence, join, sentences
from realtime.session.summary import Summary
from realtime.session.timeline import Lost, Timeline, people_in

NOBODY: Final[Mapping[int, Timeline]] = {}
ROWS = 60
"""Of the table of numbers, at most."""


def write(session: Session, file: IO[bytes]) -> None:
    people = {person: Timeline.read(session, person) for person in people_in(session)}
    file.write(page(Timeline.read(session), people).encode())


def page(timeline: Timeline, people: Mapping[int, Timeline] = NOBODY) -> str:
    """Return the report. people: the estimates of each, where several were followed."""
    drawn = Drawn.of(timeline)
    said = sentences(timeline)
    plots = Plots(drawn)
    title = escape(timeline.session.stream)
    summary = Summary.of(timeline)
    graphs = (
        (
            plots.graph("Shared space", "homogeneous graph: who teaches whom in what all three share", drawn.homo),
            plots.graph("Own spaces", "heterogeneous graph: the same in what each has alone", drawn.hetero),
        )
        if len(summary.heard_of) > 1
        else ()
    )
    panels = [
        plots.emotions(timeline),
        plots.people(people, overlaps_in(timeline.session)),
        plots.sentiment(),
        plots.words(timeline, said),
        plots.affect(),
        plots.channels(),
        *graphs,
        plots.marks(timeline),
        plots.quality(),
        plots.workers(timeline),
    ]
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in look.facts(timeline).items()
    )
    body = f"""<header class="top">
<p class="eyebrow">{t("session")}</p>
<h1>{title}</h1>
<p class="lead">{escape(look.verdict(timeline))}{escape(tables.read_from(summary))}</p>
<dl>{facts}</dl>
</header>
<div class="sheet">
{_axis(drawn.length_s)}
{"".join(panel for panel in panels if panel)}
{_axis(drawn.length_s)}
</div>
{tables.in_numbers(summary)}
{_transcript(said)}
{tables.happenings(summary, said)}
{_extra(timeline)}
{_numbers(timeline)}
{_statuses(timeline)}
{tables.method(timeline)}
"""
    return document(f"{title} · {t('dhmd session')}", body)


def _axis(length_s: float) -> str:
    labels = "".join(
        f'<span style="left:{t_s / length_s:.2%}">{look.clock(t_s, fine=length_s <= 4.5)}</span>'
        for t_s in look.ticks(length_s)
        if t_s / length_s < 0.985
    )
    return f'<div class="axis" aria-hidden="true"><div>{labels}</div></div>\n'


def _tinted(sentence: Sentence) -> str:
    """Return a sentence on the colour of what its words alone say; underlined where several spoke at once."""
    colour, opacity = look.tint(sentence.alone)
    parts = []
    for overlapped, words in groupby(sentence.words, key=lambda word: word.overlapped):
        text = escape(join(tuple(words)))
        parts.append(f'<u title="{t("several speak at once")}">{text}</u>' if overlapped else text)
    return f'<span style="background:{colour}{round(opacity * 115):02x}">{" ".join(parts)}</span>'


def _transcript(said: Sequence[Sentence]) -> str:
    if not said:
        return ""
    lines = []
    for sentence in said:
        tag = ""
        if sentence.top is not None and sentence.sentiment is not None:
            colour = look.COLOURS[sentence.top]
            tag = f'<i style="background:{colour}"></i>{t(sentence.top)} {look.signed(sentence.sentiment)}'
        lines.append(f"<li><time>{look.clock(sentence.start_s)}</time><p>{_tinted(sentence)}</p><em>{tag}</em></li>")
    return f'<section class="words"><h2>{t("What was said")}</h2><ol>{"".join(lines)}</ol></section>'


def _numbers(timeline: Timeline) -> str:
    """Return the means of equal stretches, for those who read rather than look."""
    step_s = next((s for s in (1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600) if timeline.length_s / s <= ROWS), 86400)
    rows = []
    for i in range(math.ceil(timeline.length_s / step_s)):
        inside = (timeline.t_s >= i * step_s) & (timeline.t_s < (i + 1) * step_s)
        known = inside & ~np.isnan(timeline.emotions[:, 0])
        perceived = ", ".join(
            t(CHANNELS[m])
            for m in (Modality.VISION, Modality.AUDIO, Modality.TEXT)
            if inside.any() and timeline.present[m][inside].mean() > 0.5
        )
        cells = [look.DASH] * 5
        if known.any():
            emotions = timeline.emotions[known].mean(axis=0)
            value, low, high = timeline.sentiment[known].mean(axis=0)
            valence, arousal = timeline.affect[known].mean(axis=0)
            best = int(emotions.argmax())
            cells = [
                f"{t(EMOTIONS[best])} {look.percent(emotions[best])}",
                look.signed(value),
                t("{low} to {high}", low=look.signed(low), high=look.signed(high)),
                look.signed(valence, 2),
                look.signed(arousal, 2),
            ]
        rows.append([look.clock(i * step_s), *cells, perceived or t("nothing")])
    head = ("from", "most likely", "sentiment", "80 % interval", "valence", "arousal", "perceived")
    title = t("Numbers, every {length}", length=look.length(step_s).replace(".0", ""))
    return folded(title, [t(name) for name in head], rows)


def _extra(timeline: Timeline) -> str:
    """Return what heads of the checkpoint's own said: means and ranges over the estimates that have it."""
    rows = []
    for name, values in timeline.extra.items():
        known, head = values[~np.isnan(values)], timeline.heads.get(name)
        shown = [f"{value:.2f}" for value in (known.mean(), known.min(), known.max())]
        unit = escape(head.unit) if isinstance(head, ExtraNumber) else t("probability")
        rows.append([escape(name.replace("_", " ")), *shown, unit])
    columns = (t("what"), t("mean"), t("least"), t("most"), t("unit"))
    return folded(t("Also, by this checkpoint"), columns, rows) if rows else ""


def _statuses(timeline: Timeline) -> str:
    if not timeline.statuses:
        return ""
    rows = [
        [look.clock(t_s, fine=True), escape(t(one.worker)), t(one.state), escape(one.reason), str(one.restarts)]
        for t_s, one in timeline.statuses
    ]
    rows += [
        [
            look.clock(lost.t_s, fine=True),
            t("recording"),
            t("lost"),
            _lost(lost),
            "",
        ]
        for lost in timeline.lost
    ]
    head = (t("at"), t("worker"), t("state"), t("reason"), t("restarts"))
    return folded(t("Changes of the workers"), head, rows)


def _lost(lost: Lost) -> str:
    return t("{count} messages of {topic}", count=lost.count, topic=escape(lost.topic))
