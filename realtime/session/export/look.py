"""Parts that the report page and its picture share: colours, and the timeline as it is drawn."""

from __future__ import annotations

import math
from calendar import month_name
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.modality import EDGES, Modality
from realtime.languages import t
from realtime.percentiles import percentiles
from realtime.session.timeline import Floats, Timeline
from realtime.workers import WorkerState

COLOURS = {
    "neutral": "#62666b",
    "happy": "#e6c200",
    "sad": "#3aa0f5",
    "angry": "#a3331c",
    "fear": "#8c45a8",
    "disgust": "#53a88b",
    "surprise": "#cb6d38",
}
"""Those of the page, which people with deuteranopia or protanopia tell apart, too."""
POSITIVE, NEGATIVE, PLAIN = "#2a9d8f", "#d1495b", "#9a968f"
VALENCE, AROUSAL, GRAPH = "#2a9d8f", "#c98a1b", "#54779f"
STATE_COLOURS = {
    WorkerState.STARTING: PLAIN,
    WorkerState.RUNNING: GRAPH,
    WorkerState.BEHIND: AROUSAL,
    WorkerState.LATE: AROUSAL,
    WorkerState.RESTARTING: NEGATIVE,
    WorkerState.FAILED: NEGATIVE,
}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
MONTHS = tuple(month_name)[1:]
MOST = 800
"""Points that a plot shows; more are averaged."""


def edge_names() -> list[str]:
    """Return who teaches whom, for each edge of a graph."""
    return [f"{t(CHANNELS[edge.source])} → {t(CHANNELS[edge.target])}" for edge in EDGES]


def tint(sentiment: float | None) -> tuple[str, float]:
    """Colour and opacity of a word spoken with that sentiment."""
    if sentiment is None or abs(sentiment) < 0.15:
        return PLAIN, 0.25
    return (POSITIVE if sentiment > 0 else NEGATIVE), min(0.9, 0.15 + abs(sentiment) / 2.6)


@dataclass(frozen=True)
class Drawn:
    """The timeline in at most MOST points. t_s: (K,); until_s: (K,) where the next begins, or a gap; arrays as in
    Timeline, averaged. dropped: (K,) frames and blocks of sound since the point before."""

    t_s: Floats
    until_s: Floats
    emotions: Floats
    sentiment: Floats
    affect: Floats
    homo: Floats
    hetero: Floats
    latency_ms: Floats
    influence: Mapping[Modality, Floats]
    present: Mapping[Modality, Floats]
    dropped: Floats
    length_s: float

    @classmethod
    def of(cls, timeline: Timeline) -> Self:
        length_s = max(timeline.length_s, timeline.session.hop_s)
        step_s = max(length_s / MOST, timeline.session.hop_s)
        if len(timeline) <= MOST:
            starts = np.arange(len(timeline))
        else:
            starts = np.flatnonzero(np.diff(np.floor(timeline.t_s / step_s), prepend=-1.0))
        groups = np.split(np.arange(len(timeline)), starts[1:])

        def mean(values: NDArray[np.float64]) -> Floats:
            """Average over what is there; NaN only where nothing is."""
            if len(groups) == len(values):
                return values
            known = ~np.isnan(values)
            sums, counts = np.add.reduceat(np.where(known, values, 0.0), starts), np.add.reduceat(known * 1.0, starts)
            return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

        t_s = timeline.t_s[starts]
        lost_s = np.diff((timeline.dropped_video + timeline.dropped_audio).astype(np.float64), prepend=0.0)
        return cls(
            t_s=t_s,
            until_s=np.minimum(np.append(t_s[1:], t_s[-1] + step_s), t_s + 3.5 * step_s).clip(max=length_s),
            emotions=mean(timeline.emotions),
            sentiment=mean(timeline.sentiment),
            affect=mean(timeline.affect),
            homo=mean(timeline.homo),
            hetero=mean(timeline.hetero),
            latency_ms=mean(timeline.latency_ms),
            influence={m: mean(timeline.influence[m]) for m in Modality},
            present={m: mean(timeline.present[m].astype(np.float64)) for m in Modality},
            dropped=np.array([lost_s[group].sum() for group in groups]),
            length_s=length_s,
        )

    def stretches(self, values: Floats) -> Iterator[slice]:
        """Points that belong together: without a gap in time, and with a value each."""
        there = np.flatnonzero(~np.isnan(values))
        apart = (np.diff(there) > 1) | (self.t_s[there[1:]] > self.until_s[there[:-1]] + 1e-6)
        for part in np.split(there, np.flatnonzero(apart) + 1):
            if len(part):
                yield slice(int(part[0]), int(part[-1]) + 1)


def ticks(length_s: float, most: int = 9) -> list[float]:
    """Return round times from 0 on."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((s for s in steps if length_s / s <= most), length_s)
    return [i * step for i in range(int(length_s / step + 1e-9) + 1)]


def clock(t_s: float, *, fine: bool = False) -> str:
    """Return a time as 0:05 or 1:02:03; with tenths where asked for."""
    t_s = round(t_s, 1) if fine else round(t_s)
    minutes, seconds = divmod(t_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{seconds:04.1f}" if fine else f"{int(seconds):02}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def length(t_s: float) -> str:
    """Return a length in words: 23.6 s, 12 min 5 s, 1 h 2 min."""
    if t_s < 60:
        return f"{t_s:.1f} s"
    minutes, seconds = divmod(round(t_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def started(timeline: Timeline) -> str:
    """Return when it began, in local time; of a file in its own time, when it was recorded is not told by that time."""
    if started_unix := timeline.session.started_unix:
        when = datetime.fromtimestamp(started_unix).astimezone()
    else:
        try:
            when = datetime.fromisoformat(timeline.session.metadata["created"]).astimezone()
        except (KeyError, ValueError):
            return t("unknown")
    offset = f"{when:%z}"
    date = t("{day} {month} {year}", day=when.day, month=t(MONTHS[when.month - 1]), year=when.year)
    return f"{date}, {when:%H:%M:%S}, UTC{offset[:3]}:{offset[3:]}"


def facts(timeline: Timeline) -> dict[str, str]:
    """Describe what was recorded, for people."""
    session = timeline.session
    video, sound = int(timeline.dropped_video[-1]), int(timeline.dropped_audio[-1])
    missed, lost = timeline.missed_ticks, sum(lost.count for lost in timeline.lost)
    measured = percentiles(timeline.latency_ms[~np.isnan(timeline.latency_ms)].tolist())
    about = {name: session.settings.get(name) for name in ("participant", "notes")}
    told = {
        **{t(name): str(value) for name, value in about.items() if value},
        t("recorded"): started(timeline),
        t("length"): length(timeline.length_s),
        t("file"): session.path.name,
        t("estimates"): t("{count}, {rate} a second", count=f"{len(timeline):,}", rate=f"{timeline.rate_hz:.1f}"),
        t("model"): f"{session.metadata['model']} {session.metadata['checkpoint']}",
        t("latency"): t("median {p50} ms, 95 % within {p95} ms", p50=f"{measured.p50:.0f}", p95=f"{measured.p95:.0f}")
        if measured
        else t("time is the file's own"),
        t("dropped"): f"{_count(video, 'frame')}, {_count(sound, 'block of sound', 'blocks of sound')}",
        t("missing"): ", ".join(_count(n, what) for n, what in ((missed, "estimate"), (lost, "message")) if n)
        or t("nothing"),
    }
    if not session.complete:
        told[t("recording")] = t("cut; this is what was written before")
    return told


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {t(one if number == 1 else many or f'{one}s')}"


def verdict(timeline: Timeline) -> str:
    """One sentence on the whole."""
    known = ~np.isnan(timeline.emotions[:, 0])
    if not known.any():
        return t("Nobody was seen or heard.")
    shares = timeline.emotions[known].mean(axis=0)
    first, second = np.argsort(shares)[::-1][:2]
    values = timeline.sentiment[known, 0]
    named = t(
        "Mostly {first} ({share}), then {second} ({other}).",
        first=t(EMOTIONS[first]),
        share=percent(shares[first]),
        second=t(EMOTIONS[second]),
        other=percent(shares[second]),
    )
    sentiment = t(
        "Sentiment {mean} on average, between {least} and {most}.",
        mean=signed(values.mean()),
        least=signed(values.min()),
        most=signed(values.max()),
    )
    return f"{named} {sentiment}"


def shares(timeline: Timeline) -> dict[str, float]:
    """Mean probability of each emotion; NaN where nobody was ever seen or heard."""
    known = ~np.isnan(timeline.emotions[:, 0])
    means = timeline.emotions[known].mean(axis=0) if known.any() else np.full(len(EMOTIONS), math.nan)
    return dict(zip(EMOTIONS, means.tolist(), strict=True))


def percent(share: float) -> str:
    return DASH if math.isnan(share) else f"{100 * share:.0f} %"


def signed(value: float, digits: int = 1) -> str:
    """Return a number with a sign that is as wide as the plus; zero has none."""
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text[1:] if not text.strip(f"+{MINUS}0.") else text
