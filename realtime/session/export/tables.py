"""Tables of a report: means with their intervals, channels, episodes and events; and how all of it was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version

from dhmd.labels import CHANNELS, EMOTIONS
from realtime.languages import t
from realtime.session.export.look import COLOURS, DASH, MINUS, clock, length, percent, signed
from realtime.session.export.markup import escape, folded, table
from realtime.session.sentences import Sentence
from realtime.session.summary import BLOCK_S, DRAWS, Channel, Mean, Summary
from realtime.session.timeline import Timeline

METHOD = "Decoupled Hierarchical Multimodal Distillation (DHMD), IEEE Transactions on Pattern Analysis and Machine \
Intelligence, 2026"


def read_from(summary: Summary) -> str:
    """Return a sentence on the channels, where not all of them were perceived."""
    names, missing = ([c.name for c in summary.channels if bool(c.present) is there] for there in (True, False))
    if not names or not missing:
        return ""
    return " " + t(
        "Read from the {channels} alone: no {missing} in this session.",
        channels=t(" and the ").join(t(name) for name in names),
        missing=t(" and no ").join(t(name) for name in missing),
    )


def in_numbers(summary: Summary) -> str:
    if not summary.estimated:
        return ""
    episodes = {name: [e.length_s for e in summary.episodes if e.emotion == name] for name in EMOTIONS}
    emotions = [
        [
            swatch(name),
            percent(summary.on_top[name].value),
            interval(summary.on_top[name], percent),
            percent(summary.probability[name].value),
            interval(summary.probability[name], percent),
            str(len(episodes[name])) if episodes[name] else DASH,
            length(max(episodes[name])) if episodes[name] else DASH,
        ]
        for name in EMOTIONS
    ]
    scales = [
        [
            t(name),
            signed(mean.value, 2),
            interval(mean, lambda x: signed(x, 2)),
            t("{low} to {high}", low=f"{MINUS}{most}", high=most),
        ]
        for (name, mean), most in zip(summary.scales.items(), (3, 1, 1), strict=True)
    ]
    head = ("emotion", "time", "95 % interval", "mean probability", "95 % interval", "episodes", "longest")
    told = t(
        "There is an answer for {share} of the time. Time: the share of it for which the emotion was named.",
        share=percent(summary.estimated),
    )
    return (
        f'<section class="figures"><h2>{t("In numbers")}</h2><p>{told}</p>{table([t(name) for name in head], emotions)}'
        f"{table((t('scale'), t('mean'), t('95 % interval'), t('lies in')), scales)}{_channels(summary)}</section>"
    )


def _channels(summary: Summary) -> str:
    head = ("channel", "perceived", "late", "mean influence", "says alone, most often")
    return table([t(name) for name in head], [_channel(channel) for channel in summary.channels])


def _channel(channel: Channel) -> list[str]:
    says = DASH
    if channel.says is not None:
        emotion, share = channel.says
        says = t("{emotion} in {share}", emotion=swatch(emotion), share=percent(share))
    return [t(channel.name), percent(channel.present), percent(channel.late), percent(channel.influence), says]


def happenings(summary: Summary, said: Sequence[Sentence]) -> str:
    """Return the table of episodes and events, in their order."""
    rows = []
    for episode in summary.episodes:
        words = " ".join(s.text for s in said if episode.start_s <= s.start_s < episode.end_s)
        row = [
            clock(episode.start_s, fine=True),
            swatch(episode.emotion),
            length(episode.length_s),
            percent(episode.probability),
            signed(episode.sentiment),
            t(episode.channel) if episode.channel else DASH,
            f"<q>{escape(words)}</q>" if words else "",
        ]
        rows.append((episode.start_s, row))
    rows += [(t_s, [clock(t_s, fine=True), t(what), "", "", "", "", ""]) for t_s, what in summary.events]
    if not rows:
        return ""
    head = ("at", "what", "for", "probability", "sentiment", "most by", "what was said")
    return folded(
        t("Episodes and events"), [t(name) for name in head], [row for _, row in sorted(rows, key=lambda row: row[0])]
    )


def method(timeline: Timeline) -> str:
    """Return how it was made, in sentences that a paper can take, and how to cite it."""
    session = timeline.session
    model = f"{escape(session.metadata['model'])} ({escape(session.metadata['checkpoint'])})"
    told = [
        t(
            "Every {hop} s the checkpoint {model} read what was perceived of {channels} in the last five seconds, and "
            "gave probabilities of seven emotions, and a sentiment in [-3, 3] whose band holds 80 % of the true values "
            "on validation data.",
            hop=f"{session.hop_s:g}",
            model=model,
            channels=", ".join(t(name) for name in CHANNELS.values()),
        )
    ]
    if isinstance(margin := session.settings.get("margin"), int | float) and margin:
        told.append(
            t(
                "The emotion named is replaced once another has led it by a probability of {margin} for a second.",
                margin=f"{margin:g}",
            )
        )
    if smoothing := session.settings.get("smoothing_s"):
        told.append(t("What is said is averaged over {seconds} s.", seconds=f"{smoothing:g}"))
    derived = [t(name).capitalize() for name in ("valence", "arousal") if name not in timeline.heads]
    told += [t("{scale} is the emotions' mean place on the circumplex, not measured.", scale=name) for name in derived]
    told.append(
        t(
            "The influence of a channel is half of the lead that the likeliest emotion loses over the next when it is "
            "left out; the graphs are the model's own view of which channel teaches which. A channel is late where the "
            "machine had not come to look."
        )
    )
    made = f"dhmd-live {version('dhmd')}, {t('checkpoint')} {model}"
    return f"""<section class="method"><h2>{t("Method")}</h2>
<p>{" ".join(told)}</p>
<p>{method_of_intervals()}</p>
<p>{not_felt()}</p>
<h2>{t("Cite")}</h2>
<p>{made}. {t("Method")}: {METHOD}.</p></section>
"""


def method_of_intervals() -> str:
    return t(
        "Intervals are 95 %, by a circular block bootstrap ({draws} draws, blocks of {seconds} s): how far a mean "
        "would move in more of the same session, not in other sessions or people. Under half a minute there is none, "
        "under five minutes they are rough.",
        draws=DRAWS,
        seconds=f"{BLOCK_S:g}",
    )


def not_felt() -> str:
    return t("What a face, a voice or a sentence shows is not what a person feels.")


def swatch(name: str) -> str:
    return f'<i style="background:{COLOURS[name]}"></i>{t(name)}'


def interval(mean: Mean, told: Callable[[float], str]) -> str:
    return DASH if math.isnan(mean.low) else t("{low} to {high}", low=told(mean.low), high=told(mean.high))
