"""Schema of a session file: its topics and their messages, Protocol Buffers that Foxglove and rerun draw as they are.

Every file carries these descriptions itself; VERSION changes when a reader of today would misread a file of tomorrow.
Times in seconds are on the session clock, float64, so that windows cut at replay fall where they fell live. A message's
log time in the file is its arrival, its publish time the capture of what it tells of, both in unix nanoseconds.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

from dhmd import protobuf
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality

VERSION: Final = 1
METADATA: Final = "dhmd.session"
"""Name of the MCAP metadata record that stands first in a file."""

CHECKSUM: Final = "checksum"
"""Its item that guards the others: MCAP has checksums of chunks, none of metadata."""


def checksum(head: Mapping[str, str]) -> str:
    """The checksum of a session's metadata."""
    items = sorted((name, value) for name, value in head.items() if name != CHECKSUM)
    return f"{zlib.crc32(json.dumps(items).encode()):08x}"


# Fields are numbered in the order they stand here: new ones go to the end.
_MESSAGES: Final[Mapping[str, Mapping[str, str]]] = {
    # Rows of one modality as they entered the window: (len(times_s), width) half precision, little-endian, row by row.
    # revision: counts what entered the window, all modalities together.
    # person, replaces: of the window of one person; then rows may replace all that were there of their modality.
    "Features": {
        "timestamp": "Timestamp",
        "revision": "uint64",
        "times_s": "repeated double",
        "width": "uint32",
        "values": "bytes",
        "person": "uint32",
        "replaces": "bool",
    },
    # person: who said it, where several are followed and it was known. overlapped: others spoke at once.
    "Word": {
        "text": "string",
        "start_s": "double",
        "end_s": "double",
        "probability": "float",
        "language": "string",
        "person": "uint32",
        "overlapped": "bool",
    },
    # What one recognition changed: words that are final now, and all that are not yet. Text features follow from them.
    # Of one person: all words that stand in the window, as `final`.
    "Words": {
        "timestamp": "Timestamp",
        "revision": "uint64",
        "final": "repeated Word",
        "partial": "repeated Word",
        "skipped_s": "double",
        "person": "uint32",
    },
    "Sighting": {"person": "uint32", "box": "repeated float"},
    # One picture. box: x0, y0, x1, y1 of the subject as fractions of the picture; empty without one. people: where
    # several are followed, those that are in sight.
    "Face": {
        "timestamp": "Timestamp",
        "captured_s": "double",
        "faces": "uint32",
        "box": "repeated float",
        "people": "repeated Sighting",
    },
    "Turn": {"start_s": "double", "end_s": "double", "person": "uint32", "overlapped": "bool"},
    # Who spoke in the last seconds, as it was known by then. A turn without a person is of nobody in view.
    "Turns": {"timestamp": "Timestamp", "turns": "repeated Turn"},
    "Sentiment": {"value": "float", "low": "float", "high": "float"},
    "Emotions": dict.fromkeys(EMOTIONS, "float"),
    # as_of_s, late: how far perception had come, missing where it had come as far as the window. far: the face that is
    # seen is too far away. covered: its mouth is. unread: of the speech that is heard nothing is read. See Attention.
    "ModalityState": {
        "present": "bool",
        "newest_s": "double",
        "weight": "float",
        "sentiment": "float",
        "as_of_s": "double",
        "late": "bool",
        "emotions": "Emotions",
        "influence": "float",
        "far": "bool",
        "unread": "bool",
        "covered": "bool",
    },
    "Modalities": dict.fromkeys((m.value for m in Modality), "ModalityState"),
    "Edges": {f"{edge.source}_to_{edge.target}": "float" for edge in EDGES},
    # A window and what the model made of it. revision: of the newest thing that had entered the window.
    # sentiment, emotions, homo and hetero are missing where nothing was perceived. extra: JSON of what the heads of the
    # checkpoint's own said, as it was published. person, silent: of one person, why they have no voice.
    "Estimate": {
        "timestamp": "Timestamp",
        "seq": "uint64",
        "revision": "uint64",
        "start_s": "double",
        "end_s": "double",
        "top": "string",
        "sentiment": "Sentiment",
        "emotions": "Emotions",
        "valence": "float",
        "arousal": "float",
        "modalities": "Modalities",
        "homo": "Edges",
        "hetero": "Edges",
        "faces": "uint32",
        "transcript": "string",
        "capture_to_estimate_ms": "float",
        "inference_ms": "float",
        "dropped_video": "uint64",
        "dropped_audio": "uint64",
        "extra": "string",
        "language": "string",
        "language_probability": "float",
        "person": "uint32",
        "silent": "string",
        # Some of the words were said while several spoke at once.
        "overlapped": "bool",
    },
    "Status": {
        "timestamp": "Timestamp",
        "worker": "string",
        "state": "string",
        "reason": "string",
        "retry_in_s": "double",
        "restarts": "uint32",
    },
    # A label given live to a stretch of the session; what is missing was not said.
    "Mark": {
        "timestamp": "Timestamp",
        "start_s": "double",
        "end_s": "double",
        "emotion": "string",
        "sentiment": "float",
    },
    # Messages of a topic that found the recorder's queue full since the last such message.
    "Lost": {"timestamp": "Timestamp", "topic": "string", "count": "uint64"},
}

_CLASSES: Final = protobuf.message_classes("dhmd/session.proto", "dhmd.session", _MESSAGES)

Features: Final = _CLASSES["Features"]
Words: Final = _CLASSES["Words"]
Face: Final = _CLASSES["Face"]
Estimate: Final = _CLASSES["Estimate"]
Status: Final = _CLASSES["Status"]
Mark: Final = _CLASSES["Mark"]
Lost: Final = _CLASSES["Lost"]
Turn: Final = _CLASSES["Turn"]
Turns: Final = _CLASSES["Turns"]
Sighting: Final = _CLASSES["Sighting"]

FEATURES: Final[Mapping[Modality, str]] = {Modality.VISION: "/features/vision", Modality.AUDIO: "/features/audio"}
"""Topic of each modality's rows. Those of the words are made again from WORDS: each revision of a sentence changes all
its rows, a hundred times what the words themselves take."""
WORDS: Final = "/words"
FACE: Final = "/face"
LANDMARKS: Final = "/landmarks"
ESTIMATE: Final = "/estimate"
STATUS: Final = "/status"
MARK: Final = "/mark"
LOST: Final = "/lost"
PERSON_FEATURES: Final[Mapping[Modality, str]] = {m: f"/person{topic}" for m, topic in FEATURES.items()}
"""What entered the windows of people, where several are followed; theirs are the voice and the words they spoke."""
PERSON_WORDS: Final = "/person/words"
PERSON_ESTIMATE: Final = "/person/estimate"
TURNS: Final = "/turns"
VIDEO: Final = "/video"
SOUND: Final = "/sound"


def message_classes() -> Mapping[str, Any]:
    """Topic -> class of its messages. The last three are Foxglove's."""
    from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
    from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
    from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio

    return {
        **dict.fromkeys((*FEATURES.values(), *PERSON_FEATURES.values()), Features),
        **dict.fromkeys((WORDS, PERSON_WORDS), Words),
        FACE: Face,
        **dict.fromkeys((ESTIMATE, PERSON_ESTIMATE), Estimate),
        TURNS: Turns,
        STATUS: Status,
        MARK: Mark,
        LOST: Lost,
        LANDMARKS: PointCloud,
        VIDEO: CompressedVideo,
        SOUND: RawAudio,
    }
