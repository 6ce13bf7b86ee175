"""Streams as a server holds them: their windows, and at most one of each that waits to be estimated."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import torch

from dhmd.checkpoint import Checkpoint
from dhmd.contract import ContractMismatch, FeatureSpec, Rows, Word
from dhmd.modality import Modality
from realtime.messages.estimate import Estimate, ModelName, Silence
from realtime.messages.topics import Topic
from realtime.perception.attention import Attention
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.recognition.attribution import Attribution, parts_of
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import Engine, Inference
from realtime.recognition.steadied import Steadied
from realtime.scale import topics
from realtime.scale.window_message import APPENDED, PersonPart, WindowInvalid, WindowMessage

MOST_STREAMS: Final = 2000
IDLE_S: Final = 90.0
"""A stream that says nothing for so long is forgotten; should it go on, it is asked for all of its window."""
RESYNC_EVERY_S: Final = 1.0
MEASURED_AT_ONCE: Final = 4
MOST_MEASURABLE: Final = 64
"""Windows that are kept for it: a server that has no time for them need not keep more."""
LATE_S: Final = 2.0
"""A window that waited longer is dropped: what it would tell is over."""
FOR_OPENINGS: Final = 4
"""One place in so many of a batch is for streams that are new, where others wait."""


@dataclass(slots=True, kw_only=True)
class ServedWindow:
    """A window, how still its answer is kept, and what its modalities have to do with it."""

    window: SlidingWindow
    steadied: Steadied
    attribution: Attribution = field(default_factory=Attribution)
    words: tuple[Word, ...] = ()


@dataclass(slots=True, kw_only=True)
class ServedStream(ServedWindow):
    """One stream's window, and where several are followed those of the people in view, by number."""

    incarnation: str
    seq: int
    people: dict[int, ServedWindow] = field(default_factory=dict)
    heard_s: float = 0.0
    continued: bool = False
    """Whether it went on after it was opened: anybody can open streams without end."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an estimate is to be made of. person: of whom, and why there is no voice of theirs; None: of the stream."""

    served: ServedWindow
    words: tuple[Word, ...]
    attention: Attention
    person: int | None = None
    silent: Silence | None = None


@dataclass(frozen=True, slots=True)
class WaitingWindow:
    """A window that waits, with those of its people. arrived_s: monotonic."""

    stream: str
    state: ServedStream
    message: WindowMessage
    asked: tuple[Asked, ...]
    """Of the stream, then of everybody in view."""
    arrived_s: float


class ServedStreams:
    """Takes messages in, hands out what is to be estimated. Lives in one thread."""

    def __init__(self, server: str, features: Mapping[Modality, FeatureSpec], most: int = MOST_STREAMS) -> None:
        self._continuing: OrderedDict[str, WaitingWindow] = OrderedDict()
        """Windows that wait, by stream, longest waiting first; a newer one takes the place of the older one."""
        self._opening: OrderedDict[str, WaitingWindow] = OrderedDict()
        """Likewise of streams that have not gone on yet."""
        self.counts: Counter[str] = Counter()
        """Numbers of messages by what befell them."""
        self._server = server
        self._features = features
        self._most = most
        self._streams: OrderedDict[str, ServedStream] = OrderedDict()
        """Streams by name, longest silent first."""
        self._new: OrderedDict[str, None] = OrderedDict()
        """Those of them that have not gone on yet."""
        self._asked_s: OrderedDict[str, float] = OrderedDict()
        """Time at which a stream was last asked for all of its window, or refused."""

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """Windows that wait."""
        return len(self._continuing) + len(self._opening)

    @property
    def waiting_since_s(self) -> float:
        """Arrival of the window that is next."""
        return next(iter((self._continuing or self._opening).values())).arrived_s

    def receive(self, topic: str, payload: bytes) -> tuple[str, bytes] | None:
        """Take in a message; topic and payload of what its edge is to be told in return, if anything."""
        now_s = time.monotonic()
        self._forget_idle(now_s)
        name = topics.stream_of(topic)
        try:
            message = WindowMessage.decode(payload)
            state = self._opened(name, message) if message.previous is None else self._streams.get(name)
            if state is None or (
                message.previous is not None
                and (state.incarnation, state.seq) != (message.incarnation, message.previous)
            ):
                self.counts["gaps"] += 1
                asked = topics.Resync(server=self._server, session=message.incarnation)
                return self._tell(topics.RESYNC, name, asked, now_s)
            self._enter(state, message)
        except ContractMismatch as error:
            self.counts["refused"] += 1
            refusal = topics.Refusal(server=self._server, session=message.incarnation, reason=str(error))
            return self._tell(topics.REFUSED, name, refusal, now_s)
        except (WindowInvalid, ValueError) as error:
            self.counts["malformed"] += 1
            self.counts[f"malformed: {error}"[:100] if isinstance(error, WindowInvalid) else "malformed: rows"] += 1
            return None
        state.heard_s = now_s
        state.continued = state.continued or message.previous is not None
        self._streams[name] = state
        self._streams.move_to_end(name)
        if state.continued:
            self._new.pop(name, None)
            self.counts["overtaken"] += _windows(self._opening.pop(name, None))
        else:
            self._new.setdefault(name)
        lane = self._continuing if state.continued else self._opening
        self.counts["overtaken"] += _windows(lane.get(name))
        # Its rows stand in the window now, and need not be held twice.
        rest = replace(message, rows={}, words=None, features=None, people=())
        lane[name] = WaitingWindow(name, state, rest, _asked(state, message), now_s)
        self.counts["windows"] += _windows(lane[name])
        return None

    def take(self, most: int) -> list[WaitingWindow]:
        """Take those that wait longest; some places are for streams that are new. A stream is taken with its people."""
        kept = min(len(self._opening), max(1, most // FOR_OPENINGS))
        batch = self._pop(self._continuing, most - kept)
        return batch + self._pop(self._opening, most - sum(map(_windows, batch)))

    def _pop(self, lane: OrderedDict[str, WaitingWindow], most: int) -> list[WaitingWindow]:
        popped: list[WaitingWindow] = []
        while lane and most > 0:
            _, window = lane.popitem(last=False)
            if time.monotonic() - window.arrived_s > LATE_S:
                self.counts["late"] += _windows(window)
            else:
                popped.append(window)
                most -= _windows(window)
        return popped

    def clear(self) -> None:
        for held in (self._continuing, self._opening, self._streams, self._new):
            held.clear()

    def _opened(self, name: str, message: WindowMessage) -> ServedStream:
        """A stream's state from a full window. Raises ContractMismatch, WindowInvalid."""
        if message.features is None:
            raise WindowInvalid("a full window that names no features")
        for modality in Modality:
            if modality not in message.features:
                raise WindowInvalid(f"a full window without the features of {modality}")
            self._features[modality].require(message.features[modality])
        if name not in self._streams and len(self._streams) >= self._most:
            if not self._new:
                raise ContractMismatch(f"it serves {self._most} streams already, as many as it takes")
            self._forget(next(iter(self._new)))
            self.counts["evicted"] += 1
        before = self._streams.get(name)
        if before is not None and before.incarnation != message.incarnation:
            before = None
        opened = ServedStream(
            incarnation=message.incarnation,
            seq=message.seq,
            window=self._window(),
            steadied=Steadied(message.steadiness),
        )
        if before is not None:
            opened.steadied, opened.attribution, opened.continued = (
                before.steadied,
                before.attribution,
                before.continued,
            )
            opened.people = {
                person: ServedWindow(window=self._window(), steadied=one.steadied, attribution=one.attribution)
                for person, one in before.people.items()
            }
        return opened

    def _window(self) -> SlidingWindow:
        """Windows go to the engine's device together; until then they stay here."""
        return SlidingWindow(self._features, torch.device("cpu"))

    def _enter(self, state: ServedStream, message: WindowMessage) -> None:
        """Raises ValueError; the next message is then asked for all of the window."""
        seq, state.seq = message.seq, -1
        people = {}
        for part in message.people:
            one = state.people.get(part.person)
            if one is None:
                one = ServedWindow(window=self._window(), steadied=Steadied(message.steadiness))
            people[part.person] = one
            _enter_person(one, part)
        state.people = people
        for modality in APPENDED:
            if modality in message.rows:
                state.window.append(modality, message.rows[modality])
        if message.words is not None:
            state.words = message.words
            # As where the words were heard: those of before stand until there are others.
            if Modality.TEXT in message.rows:
                state.window.replace(Modality.TEXT, message.rows[Modality.TEXT])
        state.seq = seq

    def _tell(self, topic: Topic, name: str, what: topics.Resync, now_s: float) -> tuple[str, bytes] | None:
        """Tell an edge, not more often than once in RESYNC_EVERY_S a stream."""
        if now_s - self._asked_s.get(name, -RESYNC_EVERY_S) < RESYNC_EVERY_S:
            return None
        self._asked_s[name] = now_s
        self._asked_s.move_to_end(name)
        while len(self._asked_s) > self._most:
            self._asked_s.popitem(last=False)
        return topic.at(stream=name), what.model_dump_json().encode()

    def _forget_idle(self, now_s: float) -> None:
        while self._streams and now_s - (oldest := next(iter(self._streams.items())))[1].heard_s > IDLE_S:
            self._forget(oldest[0])

    def _forget(self, name: str) -> None:
        del self._streams[name]
        for held in (self._new, self._opening, self._continuing):
            held.pop(name, None)


def _enter_person(one: ServedWindow, part: PersonPart) -> None:
    """Raises ValueError."""
    for modality in APPENDED:
        if modality is Modality.AUDIO and part.anew:
            one.window.replace(modality, part.rows.get(modality, Rows.empty(one.window.width(modality))))
        elif modality in part.rows:
            one.window.append(modality, part.rows[modality])
    if part.words is not None:
        one.words = part.words
        empty = Rows.empty(one.window.width(Modality.TEXT))
        one.window.replace(Modality.TEXT, part.rows.get(Modality.TEXT, empty))


def _asked(state: ServedStream, message: WindowMessage) -> tuple[Asked, ...]:
    own = Asked(state, state.words, message.attention)
    return own, *(
        Asked(one, one.words, replace(message.attention, far=part.far, covered=part.covered), part.person, part.silent)
        for part in message.people
        for one in [state.people[part.person]]
    )


def _windows(waiting: WaitingWindow | None) -> int:
    return 0 if waiting is None else len(waiting.asked)


class Measurable(NamedTuple):
    """A window whose shares can be measured. left: how many parts of it are to be inferred."""

    attribution: Attribution
    cut: WindowCut
    inference: Inference
    left: int


class Estimator:
    """Requests in, estimates out; in one thread, which may be another than that of the streams."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        self._engine = engine
        self._measurable: OrderedDict[tuple[str, int | None], Measurable] = OrderedDict()
        """Newest windows by stream and person, those whose turn is next first."""
        self._model = ModelName(name=checkpoint.name, checkpoint=checkpoint.digest)

    def warm_up(self, features: Mapping[Modality, FeatureSpec]) -> None:
        """Do once what is slow the first time."""
        window = SlidingWindow(features, torch.device("cpu"))
        spec = features[Modality.VISION]
        window.append(Modality.VISION, Rows(np.zeros(1), np.zeros((1, spec.width), np.float32)))
        self._engine.infer_many([window.cut(0.0)] * 2)

    def answer(self, requests: Sequence[WaitingWindow]) -> list[Estimate]:
        """Estimate the windows of all in one pass of the engine: of each stream, followed by those of its people."""
        asked = [(request, one) for request in requests for one in request.asked]
        cuts = [one.served.window.cut(request.message.end_s, one.attention) for request, one in asked]
        inferences = self._engine.infer_many(cuts)
        answers = []
        for (request, one), cut, inference in zip(asked, cuts, inferences, strict=True):
            message, attribution = request.message, one.served.attribution
            if (inference := attribution.known(cut, inference)) and len(cut.present) > 1:
                measurable = Measurable(attribution, cut, inference, len(parts_of(cut.present)))
                self._measurable[request.stream, one.person] = measurable
            shown, top = one.served.steadied.of(inference, cut.end_s)
            words = _within(one.words, cut)
            latency_ms = None
            if (newest_s := cut.newest_present_s) is not None:
                # On the edge's clock up to sending, on ours from arrival; the way between as the edge has measured it.
                held_s = time.monotonic() - request.arrived_s
                latency_ms = (message.sent_s - newest_s + message.transit_s + held_s) * 1000
            estimate = build_estimate(
                cut,
                shown,
                top,
                stream=request.stream,
                seq=message.seq,
                epoch_unix=message.epoch_unix,
                faces=message.faces,
                transcript=" ".join(word.text for word in words),
                overlapped=any(word.overlapped for word in words),
                capture_to_estimate_ms=latency_ms,
                timed=message.timed,
                dropped=message.dropped,
                model=self._model,
                person=one.person,
                silent=one.silent,
            )
            answers.append(estimate)
        while len(self._measurable) > MOST_MEASURABLE:
            self._measurable.popitem(last=False)
        return answers

    def measure(self) -> bool:
        """Measure a few shares of the modalities, which the next estimates of their streams tell; returns whether there
        is more to measure. It takes no longer than a batch is held open.
        """
        asked: list[tuple[Measurable, frozenset[Modality]]] = []
        while self._measurable and len(asked) < MEASURED_AT_ONCE:
            whose, one = self._measurable.popitem(last=False)
            asked.append((one, one.attribution.next_part(one.cut.present)))
            if one.left > 1:
                self._measurable[whose] = one._replace(left=one.left - 1)
        found = self._engine.infer_many([replace(one.cut, present=part) for one, part in asked])
        for (one, part), inference in zip(asked, found, strict=True):
            if inference is not None:
                one.attribution.learn(one.cut.present, one.inference, part, inference)
        return bool(self._measurable)


def _within(words: tuple[Word, ...], cut: WindowCut) -> list[Word]:
    return [word for word in words if word.end_s > cut.start_s and word.start_s < cut.end_s]
