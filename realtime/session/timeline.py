"""Session as arrays over time, from which all exported formats are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import Word
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.session import Session, SessionInvalid, schema
from dhmd.session.reader import Mark, mark_of, words_of
from realtime.messages.estimate import Extra, own_numbers
from realtime.session.messages import extra_of, top_of
from realtime.workers import WorkerState, WorkerStatus

Floats = NDArray[np.float64]


def people_in(session: Session) -> list[int]:
    """Return the numbers of the people who were followed; none where one person was read."""
    return sorted({record.message.person for record in session.records([schema.PERSON_ESTIMATE])})


@dataclass(frozen=True, slots=True)
class Lost:
    """Messages of a topic that were not recorded, up to `t_s` of the recording."""

    t_s: float
    topic: str
    count: int


@dataclass(frozen=True)
class Timeline:
    """Arrays of N estimates, oldest first, in seconds of the recording. NaN stands for what is missing.

    t_s, start_s: (N,) end and start of the window. seq, faces, dropped_video, dropped_audio: (N,).
    emotions: (N, 7) probabilities in the order of EMOTIONS. sentiment: (N, 3) value, low and high in [-3, 3].
    affect: (N, 2) valence and arousal in [-1, 1]. homo, hetero: (N, 6) weights in the order of EDGES.
    present, late, age_s, weight, influence, alone: (N,) of each modality, as in the published estimate; alone: its own
    sentiment. alone_emotions: (N, 7) of each modality.
    latency_ms, inference_ms: (N,), all NaN where time was the file's own.
    top: the emotion that was published on top; None where nothing was perceived.
    statuses: (seconds, status) of each change of a worker.
    words: those that were still being said when the recording began, or later.
    extra: (N,) numbers that heads of the checkpoint's own said, by HEAD, and probabilities of classes, by HEAD_CLASS.
    heads: the last that each of them said, which has its classes, or its range and unit.
    dropped_video, dropped_audio: of a recording that began in the middle of a run, those since its first estimate.
    """

    session: Session
    seq: NDArray[np.int64]
    t_s: Floats
    start_s: Floats
    emotions: Floats
    sentiment: Floats
    affect: Floats
    present: Mapping[Modality, NDArray[np.bool_]]
    age_s: Mapping[Modality, Floats]
    weight: Mapping[Modality, Floats]
    alone: Mapping[Modality, Floats]
    late: Mapping[Modality, NDArray[np.bool_]]
    influence: Mapping[Modality, Floats]
    alone_emotions: Mapping[Modality, Floats]
    homo: Floats
    hetero: Floats
    faces: NDArray[np.int64]
    top: Sequence[str | None]
    transcript: Sequence[str]
    latency_ms: Floats
    inference_ms: Floats
    dropped_video: NDArray[np.int64]
    dropped_audio: NDArray[np.int64]
    words: Sequence[Word]
    marks: Sequence[Mark]
    statuses: Sequence[tuple[float, WorkerStatus]]
    lost: Sequence[Lost]
    extra: Mapping[str, Floats]
    heads: Mapping[str, Extra]

    def __len__(self) -> int:
        return len(self.t_s)

    @classmethod
    def read(cls, session: Session, person: int | None = None) -> Self:
        """Read a session. Raises SessionInvalid, also for one without a single estimate.

        person: read the estimates of one of several people in place of the stream's own.
        """
        estimates: list[dict[str, Any]] = []
        words: list[Word] = []
        marks: list[Mark] = []
        statuses: list[tuple[float, WorkerStatus]] = []
        lost: list[Lost] = []
        start_s = session.start_s
        estimate = schema.ESTIMATE if person is None else schema.PERSON_ESTIMATE
        topics = (estimate, schema.WORDS, schema.MARK, schema.STATUS, schema.LOST)
        for record in session.records(topics):
            message = record.message
            match record.topic:
                case schema.ESTIMATE | schema.PERSON_ESTIMATE:
                    if person is None or message.person == person:
                        estimates.append(_numbers(message, session))
                case schema.WORDS:
                    words += _since(start_s, words_of(message.final))
                case schema.MARK:
                    marks.append(mark_of(message, session))
                case schema.STATUS:
                    statuses.append((max(0.0, record.captured_s - start_s), status_of(message, session)))
                case schema.LOST:
                    lost.append(Lost(record.arrived_s - start_s, message.topic, message.count))
        if not estimates:
            raise SessionInvalid(f"{session.path}: holds no estimate; nothing was estimated before the recording ended")
        extra, heads = _own([one.pop("extra") for one in estimates])
        columns = {name: [one[name] for one in estimates] for name in estimates[0]}
        numbers = {name: np.array(values) for name, values in columns.items() if name not in {"top", "transcript"}}
        states = numbers.pop("states")
        age_s = {m: numbers["t_s"] - states[:, i, 1] for i, m in enumerate(Modality)}
        _count_from(numbers, start_s)
        return cls(
            session=session,
            **numbers,
            top=columns["top"],
            transcript=columns["transcript"],
            present={m: states[:, i, 0] > 0 for i, m in enumerate(Modality)},
            age_s=age_s,
            weight={m: states[:, i, 2] for i, m in enumerate(Modality)},
            alone={m: states[:, i, 3] for i, m in enumerate(Modality)},
            late={m: states[:, i, 4] > 0 for i, m in enumerate(Modality)},
            influence={m: states[:, i, 5] for i, m in enumerate(Modality)},
            alone_emotions={m: states[:, i, 6:] for i, m in enumerate(Modality)},
            words=words,
            marks=marks,
            statuses=statuses,
            lost=lost,
            extra=extra,
            heads=heads,
        )

    @property
    def length_s(self) -> float:
        """Time from the start of the recording to the last thing in it."""
        ends = [float(self.t_s[-1]), *(w.end_s for w in self.words), *(m.end_s for m in self.marks)]
        return max(ends, default=0.0)

    @property
    def workers(self) -> dict[str, list[tuple[float, WorkerStatus]]]:
        """Changes of each worker, in the order in which the workers began."""
        changes: dict[str, list[tuple[float, WorkerStatus]]] = {}
        for t_s, status in self.statuses:
            changes.setdefault(status.worker, []).append((t_s, status))
        return changes

    @property
    def rate_hz(self) -> float:
        """Estimates a second, from the first to the last."""
        return (len(self) - 1) / span_s if (span_s := float(self.t_s[-1] - self.t_s[0])) > 0 else 0.0

    @property
    def missed_ticks(self) -> int:
        """Number of hops that should have an estimate and have none."""
        hops = np.round(np.diff(self.t_s) / self.session.hop_s)
        return int(np.maximum(hops - 1, 0).sum())

    def mean(self, chosen: NDArray[np.bool_]) -> tuple[str, float] | None:
        """Return the likeliest emotion and the mean sentiment of some estimates; None where nothing was estimated.

        chosen: (N,).
        """
        told = chosen & ~np.isnan(self.emotions[:, 0])
        if not told.any():
            return None
        top = EMOTIONS[int(self.emotions[told].mean(axis=0).argmax())]
        return top, float(self.sentiment[told, 0].mean())


def _numbers(message: Any, session: Session) -> dict[str, Any]:
    """Return the columns of an Estimate message. Raises SessionInvalid.

    states: (3, 13) present, newest_s, weight, sentiment, late, influence, and the emotions alone.
    """
    nan = float("nan")
    told = message.HasField("emotions")
    homo, hetero = (
        [getattr(graph, f"{edge.source}_to_{edge.target}") if told else nan for edge in EDGES]
        for graph in (message.homo, message.hetero)
    )
    one = message.sentiment
    states = []
    for m in Modality:
        state = getattr(message.modalities, m.value)
        newest_s = state.newest_s if state.HasField("newest_s") else nan
        alone = state.sentiment if state.HasField("sentiment") else nan
        influence = state.influence if state.HasField("influence") else nan
        weight = state.weight if state.present else nan
        own = state.emotions if state.HasField("emotions") else None
        emotions = [nan if own is None else getattr(own, name) for name in EMOTIONS]
        states.append([float(state.present), newest_s, weight, alone, float(state.late), influence, *emotions])
    return {
        "seq": message.seq,
        "t_s": message.end_s,
        "start_s": message.start_s,
        "emotions": [getattr(message.emotions, name) if told else nan for name in EMOTIONS],
        "sentiment": [one.value, one.low, one.high] if told else [nan] * 3,
        "affect": [message.valence, message.arousal] if told else [nan] * 2,
        "states": states,
        "homo": homo,
        "hetero": hetero,
        "faces": message.faces,
        "top": top_of(message, session),
        "transcript": message.transcript,
        "latency_ms": message.capture_to_estimate_ms if message.HasField("capture_to_estimate_ms") else nan,
        "inference_ms": message.inference_ms if message.HasField("inference_ms") else nan,
        "dropped_video": message.dropped_video,
        "dropped_audio": message.dropped_audio,
        "extra": _extra(message, session),
    }


def _extra(message: Any, session: Session) -> dict[str, Extra]:
    try:
        return extra_of(message)
    except ValueError:
        raise SessionInvalid(
            f"{session.path}: damaged, estimate {message.seq} holds heads that none can have"
        ) from None


def _own(said: Sequence[Mapping[str, Extra]]) -> tuple[dict[str, Floats], dict[str, Extra]]:
    """What heads of the checkpoint's own said in each estimate, as columns, and the last that each said."""
    columns: dict[str, Floats] = {}
    heads: dict[str, Extra] = {}
    for i, extra in enumerate(said):
        heads.update(extra)
        for name, value in own_numbers(extra).items():
            columns.setdefault(name, np.full(len(said), np.nan))[i] = value
    return columns, heads


def _since(start_s: float, words: Sequence[Word]) -> Sequence[Word]:
    """Return words in seconds of a recording that began at `start_s` of a run, without earlier ones."""
    if not start_s:
        return words
    return [
        replace(word, start_s=max(word.start_s - start_s, 0.0), end_s=word.end_s - start_s)
        for word in words
        if word.end_s > start_s
    ]


def _count_from(numbers: dict[str, Any], start_s: float) -> None:
    """Shift the columns of a recording that began at `start_s` of a run to its own seconds and counts."""
    if start_s:
        for name in ("t_s", "start_s"):
            numbers[name] = numbers[name] - start_s
        for name in ("dropped_video", "dropped_audio"):
            numbers[name] = numbers[name] - numbers[name][0]


def status_of(message: Any, session: Session) -> WorkerStatus:
    """Return the status that a Status message holds. Raises SessionInvalid."""
    try:
        state = WorkerState(message.state)
    except ValueError:
        raise SessionInvalid(f"{session.path}: damaged, a worker's state reads {message.state!r}") from None
    retry_in_s = message.retry_in_s if message.HasField("retry_in_s") else None
    return WorkerStatus(message.worker, state, message.reason, retry_in_s, message.restarts)
