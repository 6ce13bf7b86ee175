"""The one place where what a pipeline makes becomes messages: estimates, words, statuses, events, metrics, values."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from dhmd.contract import Word
from dhmd.labels import CHANNELS
from realtime.clock import StreamClock
from realtime.memory import resident_mb
from realtime.messages.estimate import Dropped, Estimate, ExtraNumber
from realtime.messages.stream import (
    Compact,
    Latencies,
    Metrics,
    People,
    Percentiles,
    Person,
    SpokenWord,
    Transcript,
)
from realtime.messages.topics import (
    COMPACT,
    EMOTION,
    EVENT,
    METRICS,
    NO_VALUE,
    PEOPLE,
    PERSON,
    SPOKEN,
    STATE,
    TRANSCRIPT,
)
from realtime.mqtt.publisher import Publisher
from realtime.percentiles import percentiles
from realtime.recognition.events import Events, PeopleEvents
from realtime.workers import WorkerStatus

if TYPE_CHECKING:
    # Who takes a stream in loads nothing of what makes one.
    from realtime.perception.people import PeopleInView
    from realtime.perception.transcript import TranscriptUpdate
    from realtime.pipeline.outputs import Emitted
    from realtime.pipeline.pipeline import Statistics

STATE_EVERY_S: Final = 1.0
"""The flat values follow the estimates no faster than this: they are for displays and rules, not for curves."""
LATENCIES_KEPT: Final = 4096
BOXES_EVERY_S: Final = 1.0
"""Faces that only move are told no faster than this."""
MOVED: Final = 0.1
"""Of its side, by which a face has to have moved to be told."""


class PublisherSink:
    """Takes what one stream makes, as a sink of its pipeline and an observer of its perception.

    Lives in the event loop in which it is made; `on_words` may be called in any thread. state: the flat values too.
    published_elsewhere: somebody else publishes the estimates; what follows from them is published here.
    """

    def __init__(
        self,
        publisher: Publisher,
        clock: StreamClock,
        statistics: Statistics,
        *,
        state: bool = False,
        published_elsewhere: bool = False,
    ) -> None:
        self._publisher = publisher
        self._published_elsewhere = published_elsewhere
        self._clock = clock
        self._statistics = statistics
        self._state = _State(publisher) if state else None
        self._events = Events()
        self._people: People | None = None
        self._people_events = PeopleEvents()
        self._loop = asyncio.get_running_loop()
        self._dropped = Dropped(video=0, audio=0)
        self._estimated_ms, self._published_ms, self._inference_ms = (
            deque[float](maxlen=LATENCIES_KEPT) for _ in range(3)
        )
        self._reported_s, self._reported = time.monotonic(), statistics.estimates

    def on_estimate(self, emission: Emitted) -> None:
        estimate, publisher, newest_s = emission.estimate, self._publisher, emission.newest_s

        def published() -> None:
            if newest_s is not None:
                latency_ms = (self._clock.now() - newest_s) * 1000
                self._statistics.capture_to_published_ms.append(latency_ms)
                self._published_ms.append(latency_ms)

        self._follow(estimate)
        if publisher.connected:
            if not self._published_elsewhere:
                publisher.publish(EMOTION, emission.payload, published if emission.timed else None)
            publisher.publish(COMPACT, Compact.of(estimate).model_dump_json().encode())
        elif not self._published_elsewhere:
            publisher.undelivered += 1

    def on_person(self, emission: Emitted) -> None:
        if self._publisher.connected and not self._published_elsewhere:
            self._publisher.publish(PERSON, emission.payload, id=str(emission.estimate.person))

    def on_people(self, view: PeopleInView) -> None:
        """Publish who is in view and who speaks, if that has changed."""
        people, before = people_of(view, self._clock.unix), self._people
        if before is not None and not _differ(before, people):
            return
        self._people = people
        if self._state is not None:
            self._state.keep("people", str(len(people.people)))
            self._state.keep("speaker", people.speech)
        self._publisher.keep(PEOPLE, people.model_dump_json().encode())
        for event in self._people_events.take(people):
            self._publisher.publish(EVENT, event.model_dump_json().encode())

    def _follow(self, estimate: Estimate) -> None:
        self._dropped = estimate.dropped
        latency = estimate.latency_ms
        if latency.capture_to_estimate is not None:
            self._estimated_ms.append(latency.capture_to_estimate)
        if latency.inference is not None:
            self._inference_ms.append(latency.inference)
        # What has happened is followed while the broker is away, too.
        for event in self._events.take(estimate):
            self._publisher.publish(EVENT, event.model_dump_json().encode())
        if self._state is not None:
            self._state.show(estimate, self._events)

    def on_words(self, update: TranscriptUpdate, _: int) -> None:
        """Publish words, from any thread: the loop takes them in the order in which they come."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish_words, update)

    def on_frame(self, *_: object) -> None:
        """Pictures are not published; nor are sound and rows."""

    on_sound = on_face = on_rows = on_frame

    def on_worker(self, status: WorkerStatus) -> None:
        self._publisher.publish_worker(status)

    async def settled(self) -> None:
        """Return once everything handed over is on the wire, or the broker is away."""
        await self._publisher.settled()

    def report(self) -> None:
        """Publish the metrics of the time since the last report."""
        now_s, made = time.monotonic(), self._statistics.estimates
        period_s = max(now_s - self._reported_s, 1e-3)
        metrics = Metrics(
            t=round(self._clock.unix(self._clock.now()), 3),
            period_s=round(period_s, 3),
            rate_hz=round((made - self._reported) / period_s, 2),
            estimates=made,
            missed_ticks=self._statistics.missed_ticks,
            latency_ms=Latencies(
                capture_to_estimate=_latency(self._estimated_ms),
                capture_to_published=_latency(self._published_ms),
                inference=_latency(self._inference_ms),
            ),
            dropped=self._dropped,
            undelivered=self._publisher.undelivered,
            memory_mb=resident_mb(),
        )
        self._reported_s, self._reported = now_s, made
        for latencies in (self._estimated_ms, self._published_ms, self._inference_ms):
            latencies.clear()
        self._publisher.publish(METRICS, metrics.model_dump_json().encode())

    def _publish_words(self, update: TranscriptUpdate) -> None:
        transcript = transcript_of(update, self._clock.unix)
        self._publisher.publish(TRANSCRIPT, transcript.model_dump_json().encode())
        if self._state is not None and transcript.final:
            self._publisher.publish(SPOKEN, transcript.final.encode())


class _State:
    """The flat values of a stream, each retained under a topic of its own."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._shown_s = -STATE_EVERY_S
        self._known: set[str] = set()

    def keep(self, value: str, text: str) -> None:
        self._publisher.keep(STATE, text.encode(), value=value)

    def show(self, estimate: Estimate, events: Events) -> None:
        """Follow the estimate, once a second; face and speech follow at once."""
        self.keep("face", "ON" if events.face else "OFF")
        self.keep("speech", "ON" if events.speech else "OFF")
        if time.monotonic() - self._shown_s < STATE_EVERY_S:
            return
        self._shown_s = time.monotonic()
        emotions, top = estimate.emotions or {}, estimate.top
        self.keep("emotion", top or NO_VALUE)
        self.keep("probability", _number(emotions[top] if top else None))
        self.keep("sentiment", _number(estimate.sentiment.value if estimate.sentiment else None))
        self.keep("valence", _number(estimate.valence))
        self.keep("arousal", _number(estimate.arousal))
        for name, one in estimate.extra.items():
            self.keep(f"extra_{name}", _number(one.value) if isinstance(one, ExtraNumber) else one.top)
        self._known |= estimate.extra.keys()
        for name in self._known - estimate.extra.keys():
            self.keep(f"extra_{name}", NO_VALUE)
        for modality, channel in CHANNELS.items():
            self.keep(f"influence_{channel}", _number(getattr(estimate.modalities, modality).influence))


def transcript_of(update: TranscriptUpdate, unix: Callable[[float], float]) -> Transcript:
    """Return the words of an update as they are published. unix: turns stream time into unix seconds."""

    def told(words: Sequence[Word], *, final: bool) -> list[SpokenWord]:
        return [
            SpokenWord(
                text=word.text,
                start=round(unix(word.start_s), 3),
                end=round(unix(word.end_s), 3),
                final=final,
                person=word.person,
                overlapped=word.overlapped or None,
            )
            for word in words
        ]

    return Transcript(
        final=" ".join(word.text for word in update.final),
        partial=" ".join(word.text for word in update.partial),
        words=(*told(update.final, final=True), *told(update.partial, final=False)),
        skipped_s=round(update.skipped_s, 2),
    )


def people_of(view: PeopleInView, unix: Callable[[float], float]) -> People:
    """Return who is in view as it is published. unix: turns stream time into unix seconds."""
    return People(
        t=round(unix(view.at_s), 3),
        people=tuple(
            Person(
                person=one.person,
                since=round(unix(one.since_s), 3),
                box=(round(one.box[0], 4), round(one.box[1], 4), round(one.box[2], 4), round(one.box[3], 4)),
            )
            for one in view.people
        ),
        speech=view.speech,
        speaker=view.speaker,
        since=None if view.turn is None else round(unix(view.turn.start_s), 3),
    )


def _differ(before: People, now: People) -> bool:
    """Whether what is told of people has changed: who is there and who speaks at once, where they are in a while."""
    was, there = ({one.person: one.box for one in people.people} for people in (before, now))
    if was.keys() != there.keys() or (before.speech, before.speaker) != (now.speech, now.speaker):
        return True
    if now.since is not None and before.since is not None and now.since > before.since + BOXES_EVERY_S:
        return True
    return now.t - before.t >= BOXES_EVERY_S and any(
        abs(here[side] - was[person][side]) > MOVED * (here[2 + side % 2] - here[side % 2])
        for person, here in there.items()
        for side in range(4)
    )


def _latency(values_ms: Sequence[float]) -> Percentiles | None:
    measured = percentiles(values_ms)
    return None if measured is None else Percentiles(**{name: round(ms, 2) for name, ms in measured._asdict().items()})


def _number(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.2f}"
