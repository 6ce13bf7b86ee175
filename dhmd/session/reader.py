"""Read a session file, whole or cut: everything up to its last complete chunk, in the order it was written."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from dhmd import protobuf
from dhmd.contract import ENGLISH, FeatureSpec, Rows, Word
from dhmd.errors import DHMDError
from dhmd.modality import Modality
from dhmd.session import schema
from dhmd.untrusted import Untrusted, number, read_json, read_json_object, whole

MAGIC: Final = b"\x89MCAP0\r\n"
LARGEST_RECORD: Final = 64 * 2**20
"""Bytes, packed and unpacked."""
UNPACKED_AT_LEAST, UNPACKED_PER_BYTE = 64 * 2**20, 60
"""Bytes that a file may unpack to in all: so many, and so many for each of its own."""
LATEST_UNIX: Final = 1e11
LONGEST_RUN_S: Final = 1e7
"""Four months: no time in a session lies further from its zero."""


class SessionInvalid(DHMDError):
    """A file is no session, or one that cannot be read here. One line: cause and remedy."""


@dataclass(frozen=True, slots=True)
class SessionMessage:
    """One message. arrived_s, captured_s: session clock, from its log and publish time."""

    topic: str
    arrived_s: float
    captured_s: float
    message: Any


@dataclass(frozen=True, slots=True)
class Session:
    """A session file.

    complete: whether the file was closed in order, rather than cut.
    metadata: what the run was asked to do and with which model, see the recorder; read of it are:
    epoch_unix: unix seconds of the session clock's zero; 0 where time was a file's own.
    start_s: time at which the recording began, on the session clock: 0 with the run, more in the middle of one.
    timed: whether the session clock was the machine's, so that latencies mean something.
    settings: those that the run was given, without secrets.
    features: the contract of the recorded features.
    """

    path: Path
    metadata: Mapping[str, str]
    complete: bool
    stream: str
    epoch_unix: float
    start_s: float
    hop_s: float
    timed: bool
    settings: Mapping[str, Any]
    features: Mapping[Modality, FeatureSpec]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises SessionInvalid: no such file, no MCAP, no session, or of a newer version."""
        try:
            with path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise SessionInvalid(f"{path}: not an MCAP file; sessions are recorded with --record")
                file.seek(0)
                metadata = _metadata(file, path)
                complete = _ends_in_order(file)
        except OSError as error:
            raise SessionInvalid(f"{path}: cannot be read ({error.strerror})") from None
        if metadata.get(schema.CHECKSUM, expected := schema.checksum(metadata)) != expected:
            raise SessionInvalid(f"{path}: damaged, the description of the session cannot be read")
        try:
            version = whole(metadata.get("version", ""), 1, 10**6)
        except Untrusted as error:
            raise SessionInvalid(f"{path}: damaged, its version reads {error}") from None
        if version > schema.VERSION:
            raise SessionInvalid(
                f"{path}: written by a newer program (session version {version}, this one reads {schema.VERSION}); "
                "update dhmd"
            )
        try:
            specs = [FeatureSpec.from_dict(spec) for spec in read_json(metadata["features"])]
            session = cls(
                path,
                metadata,
                complete,
                stream=metadata["stream"],
                epoch_unix=number(metadata["epoch_unix"], 0.0, LATEST_UNIX),
                start_s=number(metadata.get("start_s", "0"), 0.0, LONGEST_RUN_S),
                hop_s=number(metadata["hop_s"], 1e-3, 3600.0),
                timed=metadata["timed"] == "true",
                settings=read_json_object(metadata["settings"]),
                features={spec.modality: spec for spec in specs},
            )
            sound = {"model", "checkpoint"} <= metadata.keys()
        except (KeyError, TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise SessionInvalid(f"{path}: damaged, the description of the session cannot be read")
        return session

    @property
    def started_unix(self) -> float:
        """Unix seconds of the recording's start; 0 where time was a file's own."""
        return self.epoch_unix + self.start_s if self.epoch_unix else 0.0

    def stated_end_s(self) -> float | None:
        """Arrival of the newest message by the index at the end, without reading the rest; None of a cut file."""
        with self.path.open("rb") as file:
            summary = self._summary(file)
        if summary is None or summary.statistics is None:
            return None
        return float(summary.statistics.message_end_time / 1e9 - self.epoch_unix)

    def _summary(self, file: IO[bytes]) -> Any:
        """The index at the end; None of a cut or damaged file."""
        from mcap.exceptions import McapError
        from mcap.reader import SeekingReader

        if not self.complete:
            return None
        try:
            return SeekingReader(file, record_size_limit=LARGEST_RECORD).get_summary()
        except (McapError, struct.error, ValueError):
            return None

    def records(self, topics: Collection[str] | None = None, since_s: float = -math.inf) -> Iterator[SessionMessage]:
        """Messages in the order they were written, of some topics or of all. What follows a cut is left out.

        since_s: session clock; what arrived earlier is left out, and not even read where there is an index.
        """
        from mcap.records import Channel, Message

        classes = schema.message_classes()
        epoch_ns = round(self.epoch_unix * 1e9)
        topic_of: dict[int, str] = {}
        with self.path.open("rb") as file:
            begun = False
            if since_s > -math.inf and (summary := self._summary(file)) is not None:
                later = [
                    c.chunk_start_offset
                    for c in summary.chunk_indexes
                    if c.message_end_time >= since_s * 1e9 + epoch_ns
                ]
                topic_of = {number: channel.topic for number, channel in summary.channels.items()}
                file.seek(min(later, default=0))
                begun = bool(later)
            for record in whole_records(file, begun=begun):
                if isinstance(record, Channel):
                    topic_of[record.id] = record.topic
                elif isinstance(record, Message):
                    if record.log_time - epoch_ns < since_s * 1e9:
                        continue
                    topic = topic_of.get(record.channel_id, "")
                    if topic not in classes or (topics is not None and topic not in topics):
                        continue
                    arrived_s, captured_s = ((t - epoch_ns) / 1e9 for t in (record.log_time, record.publish_time))
                    try:
                        message = classes[topic].FromString(record.data)
                        protobuf.check(message, LONGEST_RUN_S)
                        if max(abs(arrived_s), abs(captured_s)) > LONGEST_RUN_S:
                            raise ValueError("a time that is none")  # noqa: TRY301 - with the others
                    except (DecodeError, ValueError):
                        raise SessionInvalid(f"{self.path}: damaged, a message of {topic} cannot be read") from None
                    yield SessionMessage(topic, arrived_s, captured_s, message)


@dataclass(slots=True)
class TopicContents:
    """Messages of one topic: how many, their bytes before compression, and first and last arrival, in seconds of the
    recording."""

    messages: int = 0
    bytes: int = 0
    first_s: float = 0.0
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Contents:
    """Sums up what is in a session up to where it is cut or damaged. whole: whether it is neither."""

    topics: Mapping[str, TopicContents]
    whole: bool

    @classmethod
    def of(cls, session: Session) -> Self:
        """Read all of it, decoding no message."""
        from mcap.records import Channel, Footer, Message

        topics: dict[str, TopicContents] = {}
        by_channel: dict[int, TopicContents] = {}
        ended = False
        with session.path.open("rb") as file:
            for record in whole_records(file):
                if isinstance(record, Channel):
                    by_channel[record.id] = topics.setdefault(record.topic, TopicContents())
                elif isinstance(record, Message):
                    topic = by_channel.setdefault(record.channel_id, TopicContents())
                    arrived_s = record.log_time / 1e9 - session.epoch_unix - session.start_s
                    topic.first_s = topic.first_s if topic.messages else arrived_s
                    topic.last_s = arrived_s
                    topic.messages += 1
                    topic.bytes += len(record.data)
                ended = isinstance(record, Footer)
        return cls(topics, ended and session.complete)

    @property
    def messages(self) -> int:
        return sum(topic.messages for topic in self.topics.values())

    @property
    def last_s(self) -> float:
        """Arrival of the newest message, in seconds of the recording."""
        return max((topic.last_s for topic in self.topics.values()), default=0.0)


def whole_records(file: IO[bytes], *, begun: bool = False) -> Iterator[Any]:
    """Records of an MCAP stream, those inside chunks too, up to where it is cut or damaged.

    begun: whether the file stands at a chunk, and not at its beginning. Raises SessionInvalid for one that is packed
    with lz4.
    """
    from mcap.exceptions import McapError
    from mcap.records import Chunk, MessageIndex
    from mcap.stream_reader import StreamReader, breakup_chunk
    from zstandard import ZstdError, frame_content_size

    source = _Bounded(file)
    reading: Any = source
    records = StreamReader(
        reading, skip_magic=begun, emit_chunks=True, validate_crcs=True, record_size_limit=LARGEST_RECORD
    ).records
    left = UNPACKED_AT_LEAST + UNPACKED_PER_BYTE * source.left
    indexed: set[int] | None = None
    """Channels whose index has come since the newest chunk."""
    while True:
        try:
            record = next(records)
            if isinstance(record, MessageIndex):
                # One that no chunk goes before: that chunk was passed over, as something else than it is.
                if indexed is None or record.channel_id in indexed:
                    return
                indexed.add(record.channel_id)
            if not isinstance(record, Chunk):
                yield record
                continue
            indexed = set()
            if record.compression == "lz4":  # by another program, and its size cannot be told beforehand
                problem = "packed with lz4, and only zstd is read"
                raise SessionInvalid(f"{file.name}: {problem}; pack it again: mcap compress --compression zstd")
            if record.compression not in {"", "zstd"}:
                return
            # The sizes that a chunk gives are taken at their word where it is unpacked.
            packed = frame_content_size(record.data) if record.compression else 0
            left -= (size := max(record.uncompressed_size, packed))
            if size > LARGEST_RECORD or left < 0:
                return
            yield from breakup_chunk(record, validate_crc=True)
        except (StopIteration, McapError, ZstdError, struct.error, ValueError):
            return


class _Bounded:
    """A file of which nobody can ask for more than there is: lengths in a damaged one would be taken at their word."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        place = file.tell()
        self.left = file.seek(0, 2) - place
        file.seek(place)

    def read(self, length: int) -> bytes:
        if length > min(self.left, LARGEST_RECORD):
            raise ValueError("longer than the file")
        self.left -= length
        return self._file.read(length)


def rows_of(message: Any) -> Rows:
    """The rows of a Features message. Raises SessionInvalid."""
    times_s = np.array(message.times_s, np.float64)
    if len(message.values) != 2 * len(times_s) * message.width:
        raise SessionInvalid(f"damaged: {len(message.values)} bytes for {len(times_s)} rows of {message.width}")
    values = np.frombuffer(message.values, "<f2").astype(np.float32)
    return Rows(times_s, values.reshape(len(times_s), message.width))


def words_of(words: Any) -> tuple[Word, ...]:
    """The words of the `final` or `partial` of a Words message."""
    return tuple(
        Word(
            word.text,
            word.start_s,
            word.end_s,
            word.probability,
            word.language or ENGLISH,
            word.person if word.HasField("person") else None,
            word.overlapped,
        )
        for word in words
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """A label given live to a stretch of the recording, in seconds of it; None is what was not said."""

    start_s: float
    end_s: float
    emotion: str | None
    sentiment: float | None

    @property
    def text(self) -> str:
        """The label in a word or two."""
        parts = (self.emotion, None if self.sentiment is None else f"{self.sentiment:+.1f}")
        return " ".join(part for part in parts if part) or "mark"


def mark_of(message: Any, session: Session) -> Mark:
    """The mark in a Mark message. What people say of a sentiment has few digits, and single precision more."""
    emotion = message.emotion if message.HasField("emotion") else None
    sentiment = round(message.sentiment, 4) if message.HasField("sentiment") else None
    return Mark(message.start_s - session.start_s, message.end_s - session.start_s, emotion, sentiment)


def landmarks_of(message: Any) -> NDArray[np.float32]:
    """(N, 2) x and y as fractions of the picture, of a landmarks message. Raises SessionInvalid."""
    if len(message.data) % 4:
        raise SessionInvalid(f"damaged: {len(message.data)} bytes of landmarks")
    points = np.frombuffer(message.data, "<i2").reshape(-1, 2).astype(np.float32)
    return points / np.float32(LANDMARK_UNITS)


LANDMARK_UNITS: Final = 1000
"""Landmarks are kept in this many steps a side of the picture."""


def _metadata(file: IO[bytes], path: Path) -> Mapping[str, str]:
    from mcap.records import Header, Metadata

    others = 0
    for record in whole_records(file):
        if isinstance(record, Metadata) and record.name == schema.METADATA:
            return dict(record.metadata)
        others += not isinstance(record, Header)
        if others > 64:
            break
    if not others:
        raise SessionInvalid(f"{path}: cut before anything was recorded; there is nothing in it")
    raise SessionInvalid(f"{path}: an MCAP file, but no session of dhmd-live; sessions are recorded with --record")


def _ends_in_order(file: IO[bytes]) -> bool:
    file.seek(0, 2)
    if file.tell() < 2 * len(MAGIC):
        return False
    file.seek(-len(MAGIC), 2)
    return file.read() == MAGIC
