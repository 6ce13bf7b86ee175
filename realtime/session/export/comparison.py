"""Several sessions side by side: a row of numbers each, as a page whose rows show how each went, and as a table."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.session import Session
from realtime.languages import t
from realtime.session.export.look import COLOURS, DASH, length, percent, signed, started
from realtime.session.export.markup import document, escape, table
from realtime.session.export.tables import interval, method_of_intervals, not_felt, swatch
from realtime.session.summary import Mean, Summary, stretches
from realtime.session.timeline import Timeline

WIDTH = 1000.0
MEANS = (*(f"{name}_time" for name in EMOTIONS), *EMOTIONS, "sentiment", "valence", "arousal")
"""Each with its `_low` and `_high`."""
COLUMNS = (
    *("file", "session", "error", "participant", "notes", "started", "seconds", "estimates", "missed", "answered"),
    *(f"{channel}_{what}" for channel in CHANNELS.values() for what in ("present", "late", "influence")),
    *(f"{name}{end}" for name in MEANS for end in ("", "_low", "_high")),
    *("top", "episodes", "words"),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the sessions compared. file: what it was made of, or itself. summary: None where there is none, for the
    reason in `error`.
    """

    file: Path
    session: Path
    summary: Summary | None = None
    error: str = ""

    @classmethod
    def of(cls, session: Path, file: Path | None = None) -> Compared:
        """Read a session. Raises SessionInvalid."""
        return cls(file or session, session, Summary.of(Timeline.read(Session.open(session))))

    @property
    def top(self) -> str:
        """The emotion that was named for longest; empty where nobody was seen or heard."""
        if self.summary is None or not self.summary.estimated:
            return ""
        on_top = self.summary.on_top
        return max(on_top, key=lambda name: on_top[name].value)


def write_csv(compared: Sequence[Compared]) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, COLUMNS)
    rows.writeheader()
    rows.writerows(_numbers(one) for one in compared)
    return text.getvalue().encode()


def _numbers(one: Compared) -> Mapping[str, object]:
    """Return the columns that are known; the rest stays empty."""
    if one.summary is None:
        return {"file": one.file, "error": one.error}
    summary, timeline = one.summary, one.summary.timeline
    settings = timeline.session.settings
    means = dict(
        zip(MEANS, (*summary.on_top.values(), *summary.probability.values(), *summary.scales.values()), strict=True)
    )
    return {
        "file": one.file,
        "session": one.session,
        "participant": settings.get("participant") or "",
        "notes": settings.get("notes") or "",
        "started": started(timeline),
        "seconds": round(timeline.length_s, 2),
        "estimates": len(timeline),
        "missed": timeline.missed_ticks,
        "answered": _cell(summary.estimated),
        **{
            f"{c.name}_{what}": _cell(value)
            for c in summary.channels
            for what, value in (("present", c.present), ("late", c.late), ("influence", c.influence))
        },
        **{
            f"{name}{end}": _cell(value)
            for name, mean in means.items()
            for end, value in (("", mean.value), ("_low", mean.low), ("_high", mean.high))
        },
        "top": one.top,
        "episodes": len(summary.episodes),
        "words": len(timeline.words),
    }


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def page(compared: Sequence[Compared], out: Path) -> str:
    """Return the page, to be written at `out`; a session leads to the report beside it, if there is one."""
    whole = [one for one in compared if one.summary is not None]
    rows = [_row(one, out) for one in whole]
    head = ("session", "how it went", "length", "answered", "mostly", "sentiment", "valence", "arousal", "episodes")
    failed = "".join(f"<li>{escape(str(one.file))}: {escape(one.error)}</li>" for one in compared if one.error)
    shares = [
        [
            swatch(name),
            *(_both(one.summary.on_top[name]) if one.summary and one.summary.estimated else DASH for one in whole),
        ]
        for name in EMOTIONS
    ]
    channels = [
        [
            t(name),
            *(
                f"{percent(channel.present)}, {t('influence {share}', share=percent(channel.influence))}"
                for one in whole
                if one.summary
                for channel in one.summary.channels
                if channel.name == name
            ),
        ]
        for name in CHANNELS.values()
    ]
    names = [escape(one.session.stem) for one in whole]
    without = f'<section class="figures"><h2>{t("Without a session")}</h2><ul>{failed}</ul></section>' if failed else ""
    body = f"""<header class="top"><p class="eyebrow">{t("comparison")}</p>
<h1>{t("{count} sessions", count=len(compared))}</h1></header>
<section class="figures">{table([t(name) for name in head], rows)}</section>
{without}
<section class="figures"><h2>{t("Time of each emotion")}</h2>
<p>{t("Share of the time with an answer for which it was named, with its 95 % interval")}</p>
{table(("", *names), shares)}</section>
<section class="figures"><h2>{t("Channels")}</h2>
<p>{t("Share of the time for which each was perceived, and how far it moved the answer")}</p>
{table(("", *names), channels)}
</section>
<section class="method"><h2>{t("Method")}</h2><p>{method_of_intervals()}
{t("Two sessions whose intervals are apart differ by more than that; it says nothing of other people.")}
{not_felt()}</p>
</section>
"""
    return document(t("Sessions"), body)


def _row(one: Compared, out: Path) -> list[str]:
    report = one.session.with_suffix(".html")
    name = escape(one.session.stem)
    if report.is_file():
        name = f'<a href="{escape(quote(os.path.relpath(report, out.parent)))}">{name}</a>'
    if one.summary is None or not one.summary.estimated:
        return [name, t("nobody was seen or heard"), *[DASH] * 7]
    summary, timeline = one.summary, one.summary.timeline
    if participant := timeline.session.settings.get("participant"):
        name = f"{name}<br/>{escape(str(participant))}"
    return [
        name,
        _strip(timeline),
        length(timeline.length_s),
        percent(summary.estimated),
        f"{swatch(one.top)} {percent(summary.on_top[one.top].value)}",
        *(f"{signed(mean.value, 2)}<br/>{interval(mean, signed)}" for mean in summary.scales.values()),
        str(len(summary.episodes)),
    ]


def _both(mean: Mean) -> str:
    return percent(mean.value) if math.isnan(mean.low) else f"{percent(mean.value)} ({interval(mean, percent)})"


def _strip(timeline: Timeline) -> str:
    """Return the emotions on top over the session, as one line of colours."""
    bars, told = [], []
    for top, _, start_s, end_s in stretches(timeline):
        x, until = (t_s / timeline.length_s * WIDTH for t_s in (start_s, end_s))
        bars.append(
            f'<rect x="{x:.1f}" width="{until - x:.1f}" y="0" height="20" fill="{COLOURS[top]}">'
            f"<title>{t(top)}</title></rect>"
        )
        told.append(t(top))
    return (
        f'<svg role="img" aria-label="{", ".join(told)}" viewBox="0 0 {WIDTH:g} 20" preserveAspectRatio="none" '
        f'style="width:18rem;height:20px">{"".join(bars)}</svg>'
    )
