"""A session in numbers: means with intervals, time of each emotion, episodes, events, and how much was perceived."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Self

import numpy as np

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.modality import Modality
from realtime.messages.estimate import Estimate, Modalities, ModalityEstimate
from realtime.messages.stream import EmotionChanged
from realtime.recognition.events import Events
from realtime.session.timeline import Floats, Timeline

BLOCK_S: Final = 5.0
"""Length of a window: estimates that are closer share what they are made of."""
FEWEST_BLOCKS: Final = 6
DRAWS: Final = 1000
EPISODE_S: Final = 1.0
"""Time for which an emotion has to stay on top to be an episode, as for the event that tells of it."""
SAYS: Final = {
    "face_appeared": "a face appears",
    "face_left": "the face leaves",
    "speech_began": "speech begins",
    "speech_ended": "speech ends",
}


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over the estimates of a session, with its 95 % interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch for which one emotion stayed on top, in seconds of the recording.

    probability: its mean. channel: the one with the largest mean influence, None where none was measured.
    """

    emotion: str
    start_s: float
    end_s: float
    probability: float
    sentiment: float
    channel: str | None

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Channel:
    """What a channel had to do with a session; shares are of all estimates, NaN where nothing is known.

    influence: its mean, over the estimates with two channels or more. says: the emotion that it named most often alone,
    and in which share of what it said.
    """

    name: str
    present: float
    late: float
    influence: float
    says: tuple[str, float] | None


@dataclass(frozen=True)
class Summary:
    """One session. estimated: share of its time for which there is an answer. on_top: share of that for which each
    emotion was named; probability: its mean. scales: sentiment, valence and arousal.
    """

    timeline: Timeline
    estimated: float
    on_top: Mapping[str, Mean]
    probability: Mapping[str, Mean]
    scales: Mapping[str, Mean]
    channels: Sequence[Channel]
    episodes: Sequence[Episode]
    events: Sequence[tuple[float, str]]
    """(seconds of the recording, what happened) of faces and speech."""

    @classmethod
    def of(cls, timeline: Timeline) -> Self:
        top = np.array([name or "" for name in timeline.top])
        named = (top[:, None] == np.array(EMOTIONS)[None, :]).astype(np.float64)
        values = np.concatenate([named, timeline.emotions, timeline.sentiment[:, :1], timeline.affect], axis=1)
        known = ~np.isnan(timeline.emotions[:, 0])
        means = _means(values[known], max(1, round(BLOCK_S / timeline.session.hop_s)))
        names = (*EMOTIONS, *EMOTIONS, "sentiment", "valence", "arousal")
        pairs = list(zip(names, means, strict=True))
        return cls(
            timeline,
            estimated=float(known.mean()),
            on_top=dict(pairs[: len(EMOTIONS)]),
            probability=dict(pairs[len(EMOTIONS) : 2 * len(EMOTIONS)]),
            scales=dict(pairs[2 * len(EMOTIONS) :]),
            channels=[_channel(timeline, m) for m in CHANNELS],
            episodes=_episodes(timeline),
            events=_events(timeline),
        )

    @property
    def heard_of(self) -> Sequence[Channel]:
        """The channels that were ever perceived."""
        return [channel for channel in self.channels if channel.present > 0]


def _means(values: Floats, block: int) -> list[Mean]:
    """Return the mean of each column of (N, K), with the interval of the circular block bootstrap (Politis and Romano
    1992) for blocks of `block` rows: neighbours are alike, so they are drawn together.
    """
    count = len(values)
    if not count:
        return [Mean(math.nan)] * values.shape[1]
    means = values.mean(axis=0)
    if count < FEWEST_BLOCKS * block:
        return [Mean(float(mean)) for mean in means]
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values, values[: block - 1]]), axis=0)
    blocks = (sums[block:] - sums[:-block]) / block
    drawn = np.random.default_rng(0).integers(len(blocks), size=(DRAWS, math.ceil(count / block)))
    again = np.stack([blocks[some].mean(axis=0) for some in drawn])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    return [Mean(*map(float, one)) for one in zip(means, low, high, strict=True)]


def _channel(timeline: Timeline, m: Modality) -> Channel:
    several = np.sum([timeline.present[other] for other in Modality], axis=0) > 1
    influence = timeline.influence[m][several & ~np.isnan(timeline.influence[m])]
    said = timeline.alone_emotions[m]
    named = said[~np.isnan(said[:, 0])].argmax(axis=1)
    counts = np.bincount(named, minlength=len(EMOTIONS))
    return Channel(
        CHANNELS[m],
        present=float(timeline.present[m].mean()),
        late=float(timeline.late[m].mean()),
        influence=float(influence.mean()) if len(influence) else math.nan,
        says=(EMOTIONS[int(counts.argmax())], float(counts.max() / len(named))) if len(named) else None,
    )


def stretches(timeline: Timeline) -> Iterator[tuple[str, list[int], float, float]]:
    """Yield each emotion that was on top without interruption: its estimates, and their begin and end in seconds."""
    hop_s = timeline.session.hop_s
    part = np.cumsum(np.diff(timeline.t_s, prepend=timeline.t_s[0]) > BLOCK_S)
    for (top, _), group in groupby(range(len(timeline)), key=lambda i: (timeline.top[i], part[i])):
        if top is not None:
            some = list(group)
            yield top, some, max(0.0, float(timeline.t_s[some[0]]) - hop_s), float(timeline.t_s[some[-1]])


def _episodes(timeline: Timeline) -> list[Episode]:
    found = []
    for top, some, start_s, end_s in stretches(timeline):
        if end_s - start_s < EPISODE_S - timeline.session.hop_s / 2:
            continue
        influence = {
            CHANNELS[m]: float(np.nanmean(values))
            for m in CHANNELS
            if not np.isnan(values := timeline.influence[m][some]).all()
        }
        found.append(
            Episode(
                top,
                start_s,
                end_s,
                float(timeline.emotions[some, EMOTIONS.index(top)].mean()),
                float(timeline.sentiment[some, 0].mean()),
                max(influence, key=lambda name: influence[name]) if influence else None,
            )
        )
    return found


def _events(timeline: Timeline) -> list[tuple[float, str]]:
    """What was published of faces and speech; the episodes tell of emotions."""
    events = Events()
    return sorted(
        (max(0.0, event.t), SAYS[event.event])
        for i in range(len(timeline))
        for event in events.take(_moment(timeline, i))
        if not isinstance(event, EmotionChanged)
    )


def _moment(timeline: Timeline, i: int) -> Estimate:
    """Return as much of an estimate as events follow from."""
    parts: dict[str, Any] = {}
    for m in Modality:
        age_s = float(timeline.age_s[m][i])
        part: dict[str, Any] = {
            "present": bool(timeline.present[m][i]),
            "late": bool(timeline.late[m][i]),
            "age_s": None if math.isnan(age_s) else age_s,
        }
        parts[m.value] = ModalityEstimate.model_construct(**part)
    told: dict[str, Any] = {
        "t": float(timeline.t_s[i]),
        "top": timeline.top[i],
        "emotions": None,
        "faces": int(timeline.faces[i]),
        "modalities": Modalities.model_construct(**parts),
    }
    return Estimate.model_construct(**told)
