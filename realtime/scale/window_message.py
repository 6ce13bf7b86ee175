"""A window on its way from an edge to a server: what is new since the message before, or all of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from google.protobuf.message import DecodeError

from dhmd import protobuf
from dhmd.contract import ENGLISH, FeatureSpec, Language, Rows, Word
from dhmd.features.landmarks import MOST_PEOPLE
from dhmd.modality import Modality
from dhmd.untrusted import read_json
from realtime.messages.commands import LONGEST_SMOOTHING_S
from realtime.messages.estimate import Dropped, Silence
from realtime.perception.attention import WHOLE, Attention
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness

LARGEST: Final = 512 * 1024
"""Bytes of a message: a full window takes a tenth of it, one of sixteen people most of it."""
MOST_ROWS: Final = 512
MOST_WORDS: Final = 256
LONGEST_WORD: Final = 256
AHEAD_S: Final = 10.0
"""Seconds that rows and words may lie ahead: what lies further behind the end of its window was never captured."""
LATEST_UNIX: Final = 1e11
CODE: Final = re.compile(r"[a-z]{2,3}")
"""A language."""

APPENDED: Final = (Modality.VISION, Modality.AUDIO)
"""Modalities whose new rows travel; those of the words are revised, and travel anew."""

# Times in seconds are on the edge's stream clock. Fields are numbered in the order they stand: new ones go to the end.
_MESSAGES: Final = {
    # (len(times_s), width) half precision, little-endian, row by row.
    "Rows": {"times_s": "repeated double", "width": "uint32", "values": "bytes"},
    "Word": {
        "text": "string",
        "start_s": "double",
        "end_s": "double",
        "probability": "float",
        "language": "string",
        "overlapped": "bool",
    },
    # All words of the window and the rows of their tokens; missing where they are those of the message before.
    "Words": {"words": "repeated Word", "rows": "Rows"},
    # previous: seq of the message to whose window this one adds; missing in a full window, which names its features.
    "Window": {
        "session": "string",
        "seq": "uint64",
        "previous": "uint64",
        "features": "string",
        "epoch_unix": "double",
        "end_s": "double",
        "sent_s": "double",
        "transit_s": "double",
        "timed": "bool",
        "vision": "Rows",
        "audio": "Rows",
        "words": "Words",
        "faces": "uint32",
        "dropped_video": "uint64",
        "dropped_audio": "uint64",
        # How far perception had come, see Attention. as_of_s: of text, vision and audio; NaN where it kept up.
        "as_of_s": "repeated double",
        "late": "repeated string",
        # How still the stream's answer is kept, see Steadiness.
        "smoothing_s": "double",
        "margin": "double",
        "far": "bool",
        "unread": "bool",
        # See Language.
        "language": "string",
        "language_probability": "float",
        # Of everybody in view, where several are followed.
        "people": "repeated Person",
        "covered": "bool",
    },
    # What the window of one person gained since the message before, or all of it. words: as of the window.
    # anew: the rows of the voice take the place of all before. silent: why there is no voice, see the estimate.
    "Person": {
        "person": "uint32",
        "vision": "Rows",
        "audio": "Rows",
        "anew": "bool",
        "words": "Words",
        "far": "bool",
        "silent": "string",
        "covered": "bool",
    },
}
_CLASSES: Final = protobuf.message_classes("dhmd/window.proto", "dhmd.window", _MESSAGES)
SCHEMA: Final = protobuf.source("dhmd.window", _MESSAGES)
"""The messages in the language of .proto files, for other programs."""


class WindowInvalid(ValueError):
    """A message that no edge sends. Says in a few words why."""


@dataclass(frozen=True, slots=True)
class PersonPart:
    """What a message holds of one person's window, as a WindowMessage does of the stream's.

    anew: rows[AUDIO] take the place of all that came before: who spoke is often known only later.
    """

    person: int
    rows: Mapping[Modality, Rows]
    words: tuple[Word, ...] | None
    anew: bool = False
    far: bool = False
    silent: Silence | None = None
    covered: bool = False


@dataclass(frozen=True, slots=True)
class WindowMessage:
    """Times on the edge's stream clock, whose zero is `epoch_unix`.

    incarnation: names one life of an edge's stream. seq: counts its messages. previous: the message that this one adds
    to; None for a full window. features: what an edge makes, as a full window tells it.
    sent_s: when it was sent. transit_s: half of the quickest of the last round trips, the server's time left out.
    timed: whether the clock is the machine's, so that latencies mean something.
    words: all of the window, None where they are those of the message before; rows[TEXT] are theirs.
    people: everybody in view, where several are followed.
    """

    incarnation: str
    seq: int
    previous: int | None
    features: Mapping[Modality, FeatureSpec] | None
    epoch_unix: float
    end_s: float
    sent_s: float
    transit_s: float
    timed: bool
    rows: Mapping[Modality, Rows]
    words: tuple[Word, ...] | None
    faces: int
    dropped: Dropped
    attention: Attention = WHOLE
    steadiness: Steadiness = BY_DEFAULT
    people: tuple[PersonPart, ...] = ()

    def encode(self) -> bytes:
        message = _CLASSES["Window"](
            session=self.incarnation,
            seq=self.seq,
            previous=self.previous,
            epoch_unix=self.epoch_unix,
            end_s=self.end_s,
            sent_s=self.sent_s,
            transit_s=self.transit_s,
            timed=self.timed,
            faces=self.faces,
            dropped_video=self.dropped.video,
            dropped_audio=self.dropped.audio,
            late=sorted(self.attention.late),
            smoothing_s=self.steadiness.smoothing_s,
            margin=self.steadiness.margin,
            far=self.attention.far,
            unread=self.attention.unread,
            covered=self.attention.covered or None,
        )
        if (language := self.attention.language) is not None:
            message.language, message.language_probability = language.code, language.probability
        if self.attention.as_of_s:
            message.as_of_s.extend(self.attention.as_of_s.get(m, math.nan) for m in Modality)
        if self.features is not None:
            message.features = json.dumps([spec.to_dict() for spec in self.features.values()])
        _write_window(self.rows, self.words, message)
        for one in self.people:
            part = message.people.add(
                person=one.person, anew=one.anew, far=one.far, silent=one.silent, covered=one.covered or None
            )
            _write_window(one.rows, one.words, part)
        payload: bytes = message.SerializeToString()
        return payload

    @classmethod
    def decode(cls, payload: bytes) -> WindowMessage:
        """Raises WindowInvalid."""
        if len(payload) > LARGEST:
            raise WindowInvalid(f"larger than {LARGEST // 1024} kB")
        try:
            message = _CLASSES["Window"].FromString(payload)
        except DecodeError:
            raise WindowInvalid("not a window message") from None
        try:
            protobuf.check(message)
        except ValueError:
            raise WindowInvalid("text that is no UTF-8") from None
        return _checked(message)


def _write_window(rows: Mapping[Modality, Rows], words: Sequence[Word] | None, part: Any) -> None:
    for modality in APPENDED:
        _write(rows.get(modality), getattr(part, modality.value))
    if words is not None:
        part.words.SetInParent()
        _write(rows.get(Modality.TEXT), part.words.rows)
        for word in words:
            part.words.words.add(
                text=word.text,
                start_s=word.start_s,
                end_s=word.end_s,
                probability=word.probability,
                language=word.language,
                overlapped=word.overlapped or None,
            )


def _write(rows: Rows | None, part: Any) -> None:
    if rows is not None and len(rows):
        part.times_s.extend(rows.times_s.tolist())
        part.width = rows.values.shape[1]
        part.values = rows.values.astype("<f2").tobytes()


def _checked(message: Any) -> WindowMessage:
    if not 1 <= len(message.session) <= 64:
        raise WindowInvalid("no session")
    end_s = message.end_s
    if (
        not (abs(end_s) < LATEST_UNIX and 0 <= message.epoch_unix < LATEST_UNIX and math.isfinite(message.sent_s))
        or not 0 <= message.transit_s < math.inf
    ):
        raise WindowInvalid("times that no clock shows")
    rows, words = _window(message, end_s)
    return WindowMessage(
        incarnation=message.session,
        seq=message.seq,
        previous=message.previous if message.HasField("previous") else None,
        features=_features(message.features) if message.HasField("features") else None,
        epoch_unix=message.epoch_unix,
        end_s=end_s,
        sent_s=message.sent_s,
        transit_s=message.transit_s,
        timed=message.timed,
        rows=rows,
        words=words,
        faces=message.faces,
        dropped=Dropped(video=message.dropped_video, audio=message.dropped_audio),
        attention=_attention(message),
        steadiness=_steadiness(message),
        people=_people(message.people, end_s),
    )


def _window(part: Any, end_s: float) -> tuple[dict[Modality, Rows], tuple[Word, ...] | None]:
    rows = {m: _rows(getattr(part, m.value), end_s) for m in APPENDED if part.HasField(m.value)}
    if not part.HasField("words"):
        return rows, None
    if part.words.HasField("rows"):
        rows[Modality.TEXT] = _rows(part.words.rows, end_s)
    return rows, _words(part.words.words, end_s)


def _people(parts: Any, end_s: float) -> tuple[PersonPart, ...]:
    numbers = {part.person for part in parts}
    if len(parts) > MOST_PEOPLE or len(numbers) < len(parts) or 0 in numbers:
        raise WindowInvalid(f"more than {MOST_PEOPLE} people, or one without a number of their own")
    if not {part.silent for part in parts if part.HasField("silent")} <= {*get_args(Silence)}:
        raise WindowInvalid("people who are silent for no reason")
    return tuple(
        PersonPart(
            part.person,
            *_window(part, end_s),
            part.anew,
            part.far,
            part.silent if part.HasField("silent") else None,
            part.covered,
        )
        for part in parts
    )


def _attention(message: Any) -> Attention:
    if len(message.as_of_s) not in {0, len(Modality)} or not {*message.late} <= {*Modality}:
        raise WindowInvalid("an attention to other modalities")
    as_of_s = dict(zip(Modality, message.as_of_s, strict=False))
    as_of_s = {m: s for m, s in as_of_s.items() if not math.isnan(s)}
    language = None
    if message.HasField("language"):
        if not CODE.fullmatch(message.language) or not 0 <= message.language_probability <= 1:
            raise WindowInvalid("a language that none speaks")
        language = Language(message.language, message.language_probability)
    return Attention(
        as_of_s, frozenset(map(Modality, message.late)), message.far, message.unread, language, message.covered
    )


def _steadiness(message: Any) -> Steadiness:
    if not (0 <= message.smoothing_s <= LONGEST_SMOOTHING_S and 0 <= message.margin <= 1):
        raise WindowInvalid("a steadiness that none can have")
    return Steadiness(message.smoothing_s, message.margin)


def _features(text: str) -> Mapping[Modality, FeatureSpec]:
    try:
        specs = [FeatureSpec.from_dict(spec) for spec in read_json(text)]
    except (TypeError, ValueError, KeyError):
        raise WindowInvalid("features that cannot be read") from None
    return {spec.modality: spec for spec in specs}


def _rows(part: Any, end_s: float) -> Rows:
    times_s = np.array(part.times_s, np.float64)
    if len(times_s) > MOST_ROWS:
        raise WindowInvalid(f"more than {MOST_ROWS} rows")
    if not 0 < part.width <= LARGEST or len(part.values) != 2 * len(times_s) * part.width:
        raise WindowInvalid("rows of another size than stated")
    if not np.all(times_s <= end_s + AHEAD_S):
        raise WindowInvalid("rows from the future")
    values = np.frombuffer(part.values, "<f2").astype(np.float32)
    return Rows(times_s, values.reshape(len(times_s), part.width))


def _words(words: Any, end_s: float) -> tuple[Word, ...]:
    if len(words) > MOST_WORDS or any(len(word.text) > LONGEST_WORD for word in words):
        raise WindowInvalid(f"more than {MOST_WORDS} words, or one of more than {LONGEST_WORD} letters")
    read = tuple(
        Word(
            word.text,
            word.start_s,
            word.end_s,
            word.probability,
            word.language or ENGLISH,
            overlapped=word.overlapped,
        )
        for word in words
    )
    if not all(CODE.fullmatch(word.language) for word in read):
        raise WindowInvalid("words of no language")
    if not all(math.isfinite(word.start_s) and word.end_s <= end_s + AHEAD_S for word in read):
        raise WindowInvalid("words that no clock times")
    return read
