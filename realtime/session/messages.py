"""Conversion of what a run holds in memory to the messages of a session file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import TypeAdapter, ValidationError

from dhmd.contract import Language, Rows, Word
from dhmd.features.face import FaceObservation
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.session import schema
from dhmd.session.reader import LANDMARK_UNITS, Session, SessionInvalid
from dhmd.untrusted import within
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.messages.estimate import Dropped, EmotionName, Estimate, Extra, ModelName
from realtime.perception.attention import Attention
from realtime.perception.speaking import Turn
from realtime.perception.transcript import TranscriptUpdate
from realtime.perception.window import WindowCut
from realtime.pipeline.pipeline import Emission
from realtime.recognition.build import WindowSummary, build_estimate
from realtime.recognition.engine import Inference, Sentiment, Share
from realtime.workers import WorkerStatus

_EXTRA: Final = TypeAdapter(dict[str, Extra])


def features(
    rows: Rows, revision: int, when: Timestamp, person: int | None = None, replaces: bool | None = None
) -> Any:
    """Return a Features message. rows: in half precision already, see Rows.halved."""
    return schema.Features(
        person=person,
        replaces=replaces,
        timestamp=when,
        revision=revision,
        times_s=rows.times_s.tolist(),
        width=rows.values.shape[1],
        values=rows.values.astype("<f2").tobytes(),
    )


def words(update: TranscriptUpdate, revision: int, when: Timestamp) -> Any:
    return schema.Words(
        timestamp=when,
        revision=revision,
        final=map(_word, update.final),
        partial=map(_word, update.partial),
        skipped_s=update.skipped_s,
    )


def person_words(person: int, words: Sequence[Word], revision: int, when: Timestamp) -> Any:
    """Return a Words message of all that stand in the window of one person."""
    return schema.Words(timestamp=when, revision=revision, final=map(_word, words), person=person)


def _word(word: Word) -> dict[str, Any]:
    return {name: value for name, value in asdict(word).items() if value is not None and value is not False}


def turns(of_late: Sequence[Turn], when: Timestamp) -> Any:
    return schema.Turns(
        timestamp=when,
        turns=[
            schema.Turn(start_s=one.start_s, end_s=one.end_s, person=one.person, overlapped=one.overlapped)
            for one in of_late
        ],
    )


def face(observation: FaceObservation, when: Timestamp) -> Any:
    return schema.Face(
        timestamp=when,
        captured_s=observation.captured_s,
        faces=observation.faces,
        box=_rounded(observation.box or ()),
        people=[schema.Sighting(person=one.person, box=_rounded(one.box)) for one in observation.people],
    )


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(side), 4) for side in box]


def landmarks(observation: FaceObservation, when: Timestamp) -> Any:
    """Return a flat point cloud in steps of a thousandth of the picture."""
    from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
    from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud

    if observation.landmarks is None:
        raise ValueError("no face in sight")
    points = np.clip(np.round(observation.landmarks[:, :2] * LANDMARK_UNITS), -32768, 32767).astype("<i2")
    fields = [PackedElementField(name=name, offset=2 * i, type=PackedElementField.INT16) for i, name in enumerate("xy")]
    return PointCloud(timestamp=when, frame_id="face", point_stride=4, fields=fields, data=points.tobytes())


def sound(block: AudioBlock, when: Timestamp) -> Any:
    from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio

    samples = np.clip(np.round(block.samples * 32768), -32768, 32767).astype("<i2")
    return RawAudio(
        timestamp=when, data=samples.tobytes(), format="pcm-s16", sample_rate=SAMPLE_RATE_HZ, number_of_channels=1
    )


def video(data: bytes, when: Timestamp) -> Any:
    """Return a CompressedVideo message. data: a picture in H.264, Annex B, with parameter sets if a key picture."""
    from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo

    return CompressedVideo(timestamp=when, frame_id="camera", data=data, format="h264")


def status(one: WorkerStatus, when: Timestamp) -> Any:
    return schema.Status(timestamp=when, **asdict(one))


def mark(start_s: float, end_s: float, emotion: str | None, sentiment: float | None, when: Timestamp) -> Any:
    return schema.Mark(timestamp=when, start_s=start_s, end_s=end_s, emotion=emotion, sentiment=sentiment)


def lost(topic: str, count: int, when: Timestamp) -> Any:
    return schema.Lost(timestamp=when, topic=topic, count=count)


def estimate(emission: Emission, when: Timestamp) -> Any:
    """Return an Estimate message with the numbers as the model gave them, before they are rounded for publishing."""
    cut, inference, published = emission.perceived.cut, emission.inference, emission.estimate
    message = schema.Estimate(
        timestamp=when,
        seq=published.seq,
        revision=cut.revision,
        start_s=cut.start_s,
        end_s=cut.end_s,
        faces=published.faces,
        transcript=published.transcript,
        capture_to_estimate_ms=published.latency_ms.capture_to_estimate,
        inference_ms=published.latency_ms.inference,
        dropped_video=published.dropped.video,
        dropped_audio=published.dropped.audio,
    )
    if published.overlapped:
        message.overlapped = True
    if cut.language is not None:
        message.language, message.language_probability = cut.language.code, cut.language.probability
    for m in Modality:
        _write_state(m, cut, inference, getattr(message.modalities, m.value))
    if inference is not None:
        one = inference.sentiment
        message.top, message.valence, message.arousal = published.top, published.valence, published.arousal
        message.sentiment.value, message.sentiment.low, message.sentiment.high = one.value, one.low, one.high
        for name, probability in zip(EMOTIONS, inference.emotions, strict=True):
            setattr(message.emotions, name, probability)
        for graph, edges in ((message.homo, inference.homo_edges), (message.hetero, inference.hetero_edges)):
            for edge, weight in zip(EDGES, edges, strict=True):
                setattr(graph, f"{edge.source}_to_{edge.target}", weight)
        if inference.extra:
            message.extra = _EXTRA.dump_json(dict(inference.extra)).decode()
    return message


def person_estimate(emission: Emission, when: Timestamp) -> Any:
    """Return an Estimate message of one person."""
    message = estimate(emission, when)
    message.person = emission.estimate.person
    if emission.estimate.silent is not None:
        message.silent = emission.estimate.silent
    return message


def _write_state(m: Modality, cut: WindowCut, inference: Inference | None, state: Any) -> None:
    """Fill in a ModalityState message."""
    state.present = m in cut.present
    if (newest_s := cut.newest_s[m]) is not None:
        state.newest_s = newest_s
    if (as_of_s := cut.attention.as_of_s.get(m)) is not None:
        state.as_of_s = as_of_s
    for why, modalities in (("late", cut.late), ("far", cut.far), ("covered", cut.covered), ("unread", cut.unread)):
        if m in modalities:
            setattr(state, why, True)
    if inference is not None:
        state.weight = inference.weights.get(m, 0.0)
        if m in inference.modality_sentiment:
            state.sentiment = inference.modality_sentiment[m]
        share = inference.shares.get(m)
        if share is not None and share.influence is not None:
            state.influence = share.influence
        if share is not None and share.emotions is not None:
            for name, probability in zip(EMOTIONS, share.emotions, strict=True):
                setattr(state.emotions, name, probability)


def _share_of(state: Any) -> Share:
    return Share(
        emotions=tuple(getattr(state.emotions, name) for name in EMOTIONS) if state.HasField("emotions") else None,
        influence=state.influence if state.HasField("influence") else None,
    )


def extra_of(message: Any) -> dict[str, Extra]:
    """Return what the heads of the checkpoint's own said in an Estimate message. Raises ValueError."""
    return _EXTRA.validate_json(within(message.extra)) if message.extra else {}


def inference_of(message: Any) -> Inference | None:
    """Return what the model made of an Estimate message's window; None where nothing was perceived."""
    if not message.HasField("emotions"):
        return None
    states = {m: getattr(message.modalities, m.value) for m in Modality}
    homo, hetero = (
        tuple(getattr(graph, f"{edge.source}_to_{edge.target}") for edge in EDGES)
        for graph in (message.homo, message.hetero)
    )
    return Inference(
        sentiment=Sentiment(message.sentiment.value, message.sentiment.low, message.sentiment.high),
        emotions=tuple(getattr(message.emotions, name) for name in EMOTIONS),
        modality_sentiment={m: state.sentiment for m, state in states.items() if state.HasField("sentiment")},
        homo_edges=homo,
        hetero_edges=hetero,
        weights={m: state.weight for m, state in states.items() if state.present},
        inference_ms=message.inference_ms,
        shares={m: _share_of(state) for m, state in states.items() if state.present},
        extra=extra_of(message),
    )


def top_of(message: Any, session: Session) -> EmotionName | None:
    """Return the emotion that an Estimate message was published with; None where nothing was perceived.

    Raises SessionInvalid.
    """
    if not message.HasField("emotions"):
        return None
    for name in EMOTIONS:
        if name == message.top:
            return name
    raise SessionInvalid(f"{session.path}: damaged, the emotion of estimate {message.seq} reads {message.top!r}")


@dataclass(frozen=True, slots=True)
class RecordedWindow:
    """Window of a recorded estimate, without its content. See WindowCut."""

    start_s: float
    end_s: float
    newest_s: Mapping[Modality, float | None]
    present: frozenset[Modality]
    late: frozenset[Modality]
    far: frozenset[Modality]
    covered: frozenset[Modality]
    unread: frozenset[Modality]
    language: Language | None


def _language_of(message: Any) -> Language | None:
    return Language(message.language, message.language_probability) if message.HasField("language") else None


def attention_of(message: Any) -> Attention:
    """Return how far perception had come when the window of an Estimate message was cut."""
    states = {m: getattr(message.modalities, m.value) for m in Modality}
    return Attention(
        as_of_s={m: state.as_of_s for m, state in states.items() if state.HasField("as_of_s")},
        late=frozenset(m for m, state in states.items() if state.late),
        far=states[Modality.VISION].far,
        covered=states[Modality.VISION].covered,
        unread=states[Modality.TEXT].unread,
        language=_language_of(message),
    )


def window_of(message: Any) -> RecordedWindow:
    """Return the window of an Estimate message."""
    states = {m: getattr(message.modalities, m.value) for m in Modality}
    return RecordedWindow(
        start_s=message.start_s,
        end_s=message.end_s,
        newest_s={m: state.newest_s if state.HasField("newest_s") else None for m, state in states.items()},
        present=frozenset(m for m, state in states.items() if state.present),
        late=attention_of(message).late,
        far=frozenset(m for m, state in states.items() if state.far),
        covered=frozenset(m for m, state in states.items() if state.covered),
        unread=frozenset(m for m, state in states.items() if state.unread),
        language=_language_of(message),
    )


def estimate_of(message: Any, session: Session) -> Estimate:
    """Return the estimate that was published, equal to the last digit but one. Raises SessionInvalid.

    message: of type Estimate.
    """
    model = ModelName(name=session.metadata["model"], checkpoint=session.metadata["checkpoint"])
    try:
        return estimate_again(
            message, window_of(message), inference_of(message), top_of(message, session), session, session.stream, model
        )
    except (ValidationError, KeyError, ValueError, OverflowError):
        raise SessionInvalid(
            f"{session.path}: damaged, estimate {message.seq} holds numbers that none can have"
        ) from None


def estimate_again(
    message: Any,
    window: WindowSummary,
    inference: Inference | None,
    top: EmotionName | None,
    session: Session,
    stream: str,
    model: ModelName,
) -> Estimate:
    """Return an estimate of a recorded moment with what a model makes of its window now. message: of type Estimate."""
    timed = message.HasField("capture_to_estimate_ms")
    return build_estimate(
        window,
        inference,
        top,
        stream=stream,
        seq=message.seq,
        epoch_unix=session.epoch_unix,
        faces=message.faces,
        transcript=message.transcript,
        overlapped=message.overlapped,
        capture_to_estimate_ms=message.capture_to_estimate_ms if timed else None,
        timed=session.timed,
        dropped=Dropped(video=message.dropped_video, audio=message.dropped_audio),
        model=model,
        person=message.person if message.HasField("person") else None,
        silent=message.silent if message.HasField("silent") else None,
    )
