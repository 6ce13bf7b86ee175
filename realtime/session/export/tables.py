"""Tables of a report: means with their intervals, channels, episodes and events; and how all of it was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version

from dhmd.labels import CHANNELS, EMOTIONS
from realtime.session.export.look import COLOURS, DASH, MINUS, clock, length, percent, signed
from realtime.session.export.markup import escape, folded, table
from realtime.session.sentences import Sentence
from realtime.session.summary import BLOCK_S, DRAWS, Channel, Mean, Summary
from realtime.session.timeline import Timeline

METHOD = "Decoupled Hierarchical Multimodal Distillation (DHMD), IEEE Transactions on Pattern Analysis and Machine \
Intelligence, 2026"

METHOD_OF_INTERVALS = (
    f"Intervals are 95 %, by a circular block bootstrap ({DRAWS} draws, blocks of {BLOCK_S:g} s): how far a mean would "
    "move in more of the same session, not in other sessions or people. Under half a minute there is none, under five "
    "minutes they are rough."
)


def read_from(summary: Summary) -> str:
    """Return a sentence on the channels, where not all of them were perceived."""
    names, missing = ([c.name for c in summary.channels if bool(c.present) is there] for there in (True, False))
    if not names or not missing:
        return ""
    return f" Read from the {' and the '.join(names)} alone: no {' and no '.join(missing)} in this session."


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
        [name, signed(mean.value, 2), interval(mean, lambda x: signed(x, 2)), limits]
        for (name, mean), limits in zip(
            summary.scales.items(), (f"{MINUS}3 to 3", f"{MINUS}1 to 1", f"{MINUS}1 to 1"), strict=True
        )
    ]
    head = ("emotion", "time", "95 % interval", "mean probability", "95 % interval", "episodes", "longest")
    perceived = f"There is an answer for {percent(summary.estimated)} of the time."
    return (
        f'<section class="figures"><h2>In numbers</h2><p>{perceived} Time: the share of it for which the emotion was '
        f"named.</p>{table(head, emotions)}{table(('scale', 'mean', '95 % interval', 'lies in'), scales)}"
        f"{_channels(summary)}</section>"
    )


def _channels(summary: Summary) -> str:
    head = ("channel", "perceived", "late", "mean influence", "says alone, most often")
    return table(head, [_channel(channel) for channel in summary.channels])


def _channel(channel: Channel) -> list[str]:
    says = DASH if channel.says is None else f"{swatch(channel.says[0])} in {percent(channel.says[1])}"
    return [channel.name, percent(channel.present), percent(channel.late), percent(channel.influence), says]


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
            episode.channel or DASH,
            f"<q>{escape(words)}</q>" if words else "",
        ]
        rows.append((episode.start_s, row))
    rows += [(t_s, [clock(t_s, fine=True), what, "", "", "", "", ""]) for t_s, what in summary.events]
    if not rows:
        return ""
    head = ("at", "what", "for", "probability", "sentiment", "most by", "what was said")
    return folded("Episodes and events", head, [row for _, row in sorted(rows, key=lambda row: row[0])])


def method(timeline: Timeline) -> str:
    """Return how it was made, in sentences that a paper can take, and how to cite it."""
    session = timeline.session
    model = f"{escape(session.metadata['model'])} ({escape(session.metadata['checkpoint'])})"
    margin = session.settings.get("margin")
    held = (
        ""
        if not isinstance(margin, int | float) or not margin
        else (f" The emotion named is replaced once another has led it by a probability of {margin:g} for a second.")
    )
    smoothing = session.settings.get("smoothing_s")
    averaged = f" What is said is averaged over {smoothing:g} s." if smoothing else ""
    derived = [name for name in ("valence", "arousal") if name not in timeline.heads]
    affect = (
        f" {' and '.join(derived).capitalize()} {'are' if len(derived) > 1 else 'is'} the emotions' mean place on the "
        "circumplex, not measured."
        if derived
        else ""
    )
    made = f"dhmd-live {version('dhmd')}, checkpoint {model}"
    return f"""<section class="method"><h2>Method</h2>
<p>Every {session.hop_s:g} s the checkpoint {model} read what was perceived of {", ".join(CHANNELS.values())} in the
last five seconds, and gave probabilities of seven emotions, and a sentiment in [{MINUS}3, 3] whose band holds 80 % of
the true values on validation data.{held}{averaged}{affect}
The influence of a channel is half of the lead that the likeliest emotion loses over the next when it is left out; the
graphs are the model's own view of which channel teaches which. A channel is late where the machine had not come to
look.</p>
<p>{METHOD_OF_INTERVALS}</p>
<p>What a face, a voice or a sentence shows is not what a person feels.</p>
<h2>Cite</h2>
<p>{made}. Method: {METHOD}.</p></section>
"""


def swatch(name: str) -> str:
    return f'<i style="background:{COLOURS[name]}"></i>{name}'


def interval(mean: Mean, told: Callable[[float], str]) -> str:
    return DASH if math.isnan(mean.low) else f"{told(mean.low)} to {told(mean.high)}"
