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
from realtime.messages.estimate import Estimate, ModelName
from realtime.messages.topics import Topic
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.recognition.attribution import Attribution, parts_of
from realtime.recognition.build import build_estimate
from realtime.recognition.engine import Engine, Inference
from realtime.recognition.steadied import Steadied
from realtime.scale import topics
from realtime.scale.window_message import APPENDED, WindowInvalid, WindowMessage

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


@dataclass(slots=True)
class ServedStream:
    """One stream's window, how still its answer is kept, and what its modalities have to do with it."""

    incarnation: str
    seq: int
    window: SlidingWindow
    steadied: Steadied
    attribution: Attribution = field(default_factory=Attribution)
    words: tuple[Word, ...] = ()
    heard_s: float = 0.0
    continued: bool = False
    """Whether it went on after it was opened: anybody can open streams without end."""


@dataclass(frozen=True, slots=True)
class WaitingWindow:
    """A window that waits. arrived_s: monotonic."""

    stream: str
    state: ServedStream
    message: WindowMessage
    words: tuple[Word, ...]
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
            self.counts["overtaken"] += self._opening.pop(name, None) is not None
        else:
            self._new.setdefault(name)
        lane = self._continuing if state.continued else self._opening
        self.counts["overtaken"] += name in lane
        # Its rows stand in the window now, and need not be held twice.
        lane[name] = WaitingWindow(
            name, state, replace(message, rows={}, words=None, features=None), state.words, now_s
        )
        self.counts["windows"] += 1
        return None

    def take(self, most: int) -> list[WaitingWindow]:
        """Take those that wait longest; some places are for streams that are new."""
        kept = min(len(self._opening), max(1, most // FOR_OPENINGS))
        batch = self._pop(self._continuing, most - kept)
        return batch + self._pop(self._opening, most - len(batch))

    def _pop(self, lane: OrderedDict[str, WaitingWindow], most: int) -> list[WaitingWindow]:
        popped: list[WaitingWindow] = []
        while lane and len(popped) < most:
            _, window = lane.popitem(last=False)
            if time.monotonic() - window.arrived_s > LATE_S:
                self.counts["late"] += 1
            else:
                popped.append(window)
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
        # Windows go to the engine's device together; until then they stay here.
        return ServedStream(
            message.incarnation,
            message.seq,
            SlidingWindow(self._features, torch.device("cpu")),
            before.steadied if before is not None else Steadied(message.steadiness),
            before.attribution if before is not None else Attribution(),
            continued=before is not None and before.continued,
        )

    def _enter(self, state: ServedStream, message: WindowMessage) -> None:
        """Raises ValueError; the next message is then asked for all of the window."""
        seq, state.seq = message.seq, -1
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
        self._measurable: OrderedDict[str, Measurable] = OrderedDict()
        """Newest windows by stream, those whose turn is next first."""
        self._model = ModelName(name=checkpoint.name, checkpoint=checkpoint.digest)

    def warm_up(self, features: Mapping[Modality, FeatureSpec]) -> None:
        """Do once what is slow the first time."""
        window = SlidingWindow(features, torch.device("cpu"))
        spec = features[Modality.VISION]
        window.append(Modality.VISION, Rows(np.zeros(1), np.zeros((1, spec.width), np.float32)))
        self._engine.infer_many([window.cut(0.0)] * 2)

    def answer(self, requests: Sequence[WaitingWindow]) -> list[Estimate]:
        """Estimate the windows of all in one pass of the engine."""
        cuts = [request.state.window.cut(request.message.end_s, request.message.attention) for request in requests]
        inferences = self._engine.infer_many(cuts)
        answers = []
        for request, cut, inference in zip(requests, cuts, inferences, strict=True):
            message, attribution = request.message, request.state.attribution
            if (inference := attribution.known(cut, inference)) and len(cut.present) > 1:
                self._measurable[request.stream] = Measurable(attribution, cut, inference, len(parts_of(cut.present)))
            shown, top = request.state.steadied.of(inference, cut.end_s)
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
                transcript=_transcript(request.words, cut),
                capture_to_estimate_ms=latency_ms,
                timed=message.timed,
                dropped=message.dropped,
                model=self._model,
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
            stream, one = self._measurable.popitem(last=False)
            asked.append((one, one.attribution.next_part(one.cut.present)))
            if one.left > 1:
                self._measurable[stream] = one._replace(left=one.left - 1)
        found = self._engine.infer_many([replace(one.cut, present=part) for one, part in asked])
        for (one, part), inference in zip(asked, found, strict=True):
            if inference is not None:
                one.attribution.learn(one.cut.present, one.inference, part, inference)
        return bool(self._measurable)


def _transcript(words: tuple[Word, ...], cut: WindowCut) -> str:
    return " ".join(word.text for word in words if word.end_s > cut.start_s and word.start_s < cut.end_s)
