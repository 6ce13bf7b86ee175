"""Edges without cameras: windows of a recorded session, published as many streams from one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from dhmd.contract import Rows, Word
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from dhmd.session import Session, schema
from dhmd.session.reader import rows_of, words_of
from realtime.messages.estimate import Dropped
from realtime.mqtt.broker import BrokerAddress
from realtime.perception.transcript import TranscriptUpdate
from realtime.perception.words import SpokenWords
from realtime.scale.edge_link import EdgeLink, linked
from realtime.scale.edge_stream import DueWindow, EdgeStream
from realtime.scale.window_log import WindowLog

NONE_DROPPED: Final = Dropped(video=0, audio=0)


@dataclass(slots=True)
class RecordedStep:
    """Rows that entered the window before one of its estimates. end_s: of that window."""

    end_s: float
    faces: int
    rows: list[tuple[Modality, Rows]] = field(default_factory=list)
    words: list[TranscriptUpdate] = field(default_factory=list)
    text: Rows | None = None
    """Of the words, where they have changed."""

    def enter(self, log: WindowLog, later_s: float) -> None:
        for modality, rows in self.rows:
            log.on_rows(modality, Rows(rows.times_s + later_s, rows.values))
        for update in self.words:
            final, partial = _later(update.final, later_s), _later(update.partial, later_s)
            log.on_words(TranscriptUpdate(final, partial, 0.0))


def _later(words: tuple[Word, ...], by_s: float) -> tuple[Word, ...]:
    return tuple(Word(word.text, word.start_s + by_s, word.end_s + by_s, word.probability) for word in words)


@dataclass(frozen=True, slots=True)
class RecordedSteps:
    """A session, step by step."""

    session: Session
    steps: Sequence[RecordedStep]

    @classmethod
    def read(cls, path: Path, text: TextExtractor) -> Self:
        """Read a session. text: encodes the words again. Raises SessionInvalid."""
        session = Session.open(path)
        spoken = SpokenWords()
        modality = {topic: m for m, topic in schema.FEATURES.items()}
        records = list(session.records({*modality, schema.WORDS, schema.ESTIMATE}))
        entering = [record for record in records if record.topic != schema.ESTIMATE]
        entering.sort(key=lambda record: record.message.revision)
        steps = []
        for estimate in (record.message for record in records if record.topic == schema.ESTIMATE):
            step = RecordedStep(estimate.end_s, estimate.faces)
            while entering and entering[0].message.revision <= estimate.revision:
                record = entering.pop(0)
                message = record.message
                if record.topic == schema.WORDS:
                    update = TranscriptUpdate(words_of(message.final), words_of(message.partial), 0.0)
                    step.words.append(update)
                    if words := spoken.update(update.final, update.partial, text.spec.window_s):
                        step.text = text.extract(words)
                else:
                    step.rows.append((modality[record.topic], rows_of(message)))
            steps.append(step)
        return cls(session, steps)


class SimulatedEdge:
    """One stream that plays a recording again and again, from its step number `first` on, a step a hop."""

    def __init__(self, name: str, recording: RecordedSteps, first: int = 0) -> None:
        self._recording = recording
        self._next = first % len(recording.steps)
        self._later_s = 0.0
        self._end_s = recording.steps[self._next].end_s - recording.session.hop_s
        self._ended_at_s = time.monotonic()
        self._text = Rows.empty(recording.session.features[Modality.TEXT].width)
        log = WindowLog(recording.session.features, lambda: self._text)
        self.stream = EdgeStream(name, log, time.time() - self._end_s, self._now)

    def hop(self) -> DueWindow:
        """Take the next step as perceived."""
        if self._next == len(self._recording.steps):
            self._next = 0
            self._later_s = self._end_s
        step = self._recording.steps[self._next]
        if step.text is not None:
            self._text = Rows(step.text.times_s + self._later_s, step.text.values)
        step.enter(self.stream.log, self._later_s)
        self._next += 1
        self._end_s, self._ended_at_s = step.end_s + self._later_s, time.monotonic()
        return DueWindow(self._end_s, step.faces, NONE_DROPPED)

    def _now(self) -> float:
        return self._end_s + time.monotonic() - self._ended_at_s


async def simulate(
    broker: BrokerAddress,
    edges: Sequence[SimulatedEdge],
    hop_s: float,
    stop: asyncio.Event,
    on_estimate: Callable[[str, bytes], None] = lambda *_: None,
) -> EdgeLink:
    """Publish a window of each edge every hop, evenly over it, until `stop` is set."""
    link = EdgeLink(broker, [edge.stream for edge in edges], on_estimate)
    loop = asyncio.get_running_loop()
    async with linked(link):
        await link.ready.wait()
        due_s, number = loop.time(), 0
        while not stop.is_set():
            edge = edges[number % len(edges)]
            link.offer(edge.stream.stream, edge.hop())
            number += 1
            due_s += hop_s / len(edges)
            if (left_s := due_s - loop.time()) > 0:
                await asyncio.sleep(left_s)
            elif number % len(edges) == 0:
                await asyncio.sleep(0)
    return link
