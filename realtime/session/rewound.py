"""Replay of a session from its features: what entered the window before a cut enters it again before the same cut.

The same model therefore says the same. Several threads wrote the file, so its order is only nearly that of the run:
the revisions of the window, which estimates name too, give it exactly.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dhmd.checkpoint import Checkpoint
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.features.text import TextExtractor, encoder_of
from dhmd.modality import Modality
from dhmd.session import Session, SessionInvalid, SessionMessage, schema
from dhmd.session.reader import rows_of, words_of
from realtime.perception.people import PeopleInView
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.perception.words import SpokenWords
from realtime.recognition.engine import Inference
from realtime.session.messages import attention_of, inference_of
from realtime.session.people import RecordedPeople

SETTLED_S = 2.0
"""Longest time by which a row may be written after an estimate that saw it."""

FORGOTTEN_S = 60.0
"""Time without a message of a person after which their window is let go of."""

TOLERANCE = 1e-5

AHEAD = 1024
"""Steps that are read before the first of them is taken: some 20 s, whose words are encoded together."""

_WORDS = {schema.WORDS, schema.PERSON_WORDS}
_ESTIMATES = {schema.ESTIMATE, schema.PERSON_ESTIMATE}


@dataclass(frozen=True, slots=True)
class Moment:
    """Window of the session again, with the Estimate message that was recorded of it."""

    cut: WindowCut
    recorded: Any
    view: PeopleInView | None = None
    """Of the stream's, where several people were followed."""


@dataclass(frozen=True, slots=True)
class _Said:
    """Words that stand in a window from now on."""

    window: SlidingWindow
    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class _Seen:
    """Rows that enter a window. replaces: they take the place of all others."""

    window: SlidingWindow
    modality: Modality
    rows: Rows
    replaces: bool


@dataclass(frozen=True, slots=True)
class _Due:
    """A window that is to be cut. See Moment."""

    window: SlidingWindow
    recorded: Any
    view: PeopleInView | None


_Step = _Said | _Seen | _Due


@dataclass(slots=True)
class _Owner:
    """The stream, or one person: a window, and what is to enter it. newest_s: arrival of the newest message of it."""

    window: SlidingWindow
    words: SpokenWords
    entering: list[tuple[int, int, SessionMessage]] = field(default_factory=list)
    newest_s: float = 0.0


class Rewound:
    """Windows of a session, one for each recorded estimate, as a checkpoint would have seen them: those of the stream,
    and where several people were followed, after each those of the people.

    Raises ContractMismatch unless the recorded features are those the checkpoint takes. Words are encoded again, so
    their encoder may be another.
    """

    def __init__(self, session: Session, checkpoint: Checkpoint, device: torch.device) -> None:
        require_features(session.features, checkpoint)
        self._session = session
        languages = None if session.settings.get("untested_words") is True else checkpoint.languages
        spec = checkpoint.features[Modality.TEXT]
        self._text = TextExtractor(encoder_of(spec), checkpoint.encoder(Modality.TEXT), languages)
        spec.require(self._text.spec)
        self._features, self._device = checkpoint.features, device
        self._owners: dict[int, _Owner] = {}
        """By the person's number; 0 is the stream."""
        self._modality = {
            topic: m for topics in (schema.FEATURES, schema.PERSON_FEATURES) for m, topic in topics.items()
        }
        self._people = RecordedPeople(session)
        self.lost: dict[str, int] = {}
        """Messages that the recorder had to leave out, by topic."""

    def __iter__(self) -> Iterator[Moment]:
        steps = self._steps()
        while ahead := list(itertools.islice(steps, AHEAD)):
            rows = iter(self._text.extract_many([step.words for step in ahead if isinstance(step, _Said)]))
            for step in ahead:
                match step:
                    case _Due():
                        attention = attention_of(step.recorded)
                        yield Moment(step.window.cut(step.recorded.end_s, attention), step.recorded, step.view)
                    case _Said():
                        step.window.replace(Modality.TEXT, next(rows))
                    case _Seen():
                        self._enter(step)

    def _steps(self) -> Iterator[_Step]:
        """What happens to the windows, in its order."""
        estimates: deque[SessionMessage] = deque()
        topics = {*self._modality, *_WORDS, *_ESTIMATES, *RecordedPeople.TOPICS, schema.LOST}
        for number, record in enumerate(self._session.records(topics)):
            if record.topic == schema.LOST:
                self.lost[record.message.topic] = self.lost.get(record.message.topic, 0) + record.message.count
            elif record.topic in RecordedPeople.TOPICS:
                self._people.take(record.captured_s, record.message)
            elif record.topic in _ESTIMATES:
                estimates.append(record)
            else:
                heapq.heappush(self._owner(record).entering, (record.message.revision, number, record))
            while estimates and record.arrived_s > estimates[0].arrived_s + SETTLED_S:
                yield from self._until(estimates.popleft())
        while estimates:
            yield from self._until(estimates.popleft())

    def _owner(self, record: SessionMessage) -> _Owner:
        """Whose message it is; people who are not told of any more are forgotten."""
        person = record.message.person
        if person not in self._owners:
            for gone in [p for p, o in self._owners.items() if p and o.newest_s < record.arrived_s - FORGOTTEN_S]:
                del self._owners[gone]
            self._owners[person] = _Owner(SlidingWindow(self._features, self._device), SpokenWords())
        owner = self._owners[person]
        owner.newest_s = record.arrived_s
        return owner

    def _until(self, estimate: SessionMessage) -> Iterator[_Step]:
        """What entered before an estimate, and its window."""
        message, owner = estimate.message, self._owner(estimate)
        while owner.entering and owner.entering[0][0] <= message.revision:
            yield self._entering(owner, heapq.heappop(owner.entering)[2])
        yield _Due(owner.window, message, None if message.person else self._people.at(message.end_s))

    def _entering(self, owner: _Owner, record: SessionMessage) -> _Said | _Seen:
        message = record.message
        if record.topic not in _WORDS:
            return _Seen(owner.window, self._modality[record.topic], rows_of(message), message.replaces)
        final, partial = words_of(message.final), words_of(message.partial)
        whole = record.topic == schema.PERSON_WORDS
        return _Said(owner.window, final if whole else owner.words.update(final, partial, owner.window.window_s))

    def _enter(self, seen: _Seen) -> None:
        put = seen.window.replace if seen.replaces else seen.window.append
        try:
            put(seen.modality, seen.rows)
        except ValueError as error:
            raise SessionInvalid(f"{self._session.path}: damaged, {error}") from None


def require_features(recorded: Mapping[Modality, FeatureSpec], checkpoint: Checkpoint) -> None:
    """Raise ContractMismatch unless the checkpoint takes the features that were recorded."""
    for modality in schema.FEATURES:
        checkpoint.features[modality].require(recorded[modality])


@dataclass(slots=True)
class Agreement:
    """Difference between a replay and what was recorded."""

    estimates: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    """Largest difference by name of what differs."""
    absent: int = 0
    """Number of estimates in which other modalities are present."""

    @property
    def holds(self) -> bool:
        return not self.absent and all(difference <= TOLERANCE for difference in self.largest.values())

    def add(self, recorded: Any, cut: WindowCut, replayed: Inference | None) -> None:
        """Compare one moment. recorded: an Estimate message."""
        self.estimates += 1
        before = inference_of(recorded)
        present = {m for m in Modality if getattr(recorded.modalities, m.value).present}
        if present != cut.present or (before is None) != (replayed is None):
            self.absent += 1
        elif before is not None and replayed is not None:
            for name, difference in _differences(before, replayed).items():
                # NumPy's maximum keeps NaN, which is no agreement.
                self.largest[name] = float(np.maximum(self.largest.get(name, 0.0), difference))


def _differences(one: Inference, other: Inference) -> dict[str, float]:
    def largest(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        return float(np.abs(np.subtract(a, b)).max(initial=0.0))

    alone = [m for m in Modality if m in one.modality_sentiment and m in other.modality_sentiment]
    return {
        "sentiment": abs(one.sentiment.value - other.sentiment.value),
        "emotions": largest(one.emotions, other.emotions),
        "sentiment of one modality": largest(
            tuple(one.modality_sentiment[m] for m in alone), tuple(other.modality_sentiment[m] for m in alone)
        ),
        "edges": largest((*one.homo_edges, *one.hetero_edges), (*other.homo_edges, *other.hetero_edges)),
    }
