"""Session files as they are found: whole, cut anywhere, damaged anywhere, of another kind, of a newer program."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import zstandard
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from mcap.opcode import Opcode
from mcap.records import Message
from mcap.writer import CompressionType, Writer
from mcap_protobuf.schema import register_schema

from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from dhmd.session import Session, SessionInvalid, SessionMessage, schema
from dhmd.session.reader import LARGEST_RECORD, MAGIC, landmarks_of, rows_of, whole_records

EPOCH_UNIX = 1_700_000_000.25
HEAD = {
    "version": "1",
    "created": "2024-01-01T00:00:00+00:00",
    "epoch_unix": repr(EPOCH_UNIX),
    "stream": "hall",
    "hop_s": "0.1",
    "timed": "true",
    "model": "base",
    "checkpoint": "0123456789ab",
    "features": json.dumps([FeatureSpec(m, "test", "1", 2, 5.0, 10, 2.0, 0.5).to_dict() for m in Modality]),
    "settings": "{}",
}


@dataclass(frozen=True)
class Built:
    """A session file's bytes, and where each of its records ends."""

    data: bytes
    ends: list[int]


def features(number: int) -> Any:
    values = np.array([[number, -number]], "<f2").tobytes()
    return schema.Features(revision=number, times_s=[number / 10], width=2, values=values)


def estimate(number: int) -> Any:
    return schema.Estimate(seq=number, revision=number, start_s=number / 10 - 2, end_s=number / 10, transcript="hello")


def build(head: dict[str, str] = HEAD, chunks: int = 4, each: int = 3, name: str = schema.METADATA) -> Built:
    """Rows and estimates in turn, `each` of both in a chunk."""
    file = io.BytesIO()
    writer = Writer(file, chunk_size=2**40, compression=CompressionType.ZSTD)
    writer.start(profile="", library="test")
    writer.add_metadata(name, head)
    ends = [file.tell()]
    of = {kind: register_schema(writer, kind) for kind in (schema.Features, schema.Estimate)}
    vision, estimates = schema.FEATURES[Modality.VISION], schema.ESTIMATE
    rows = writer.register_channel(vision, "protobuf", of[schema.Features])
    told = writer.register_channel(estimates, "protobuf", of[schema.Estimate])
    number = 0
    for _ in range(chunks):
        for _ in range(each):
            number += 1
            at = round((EPOCH_UNIX + number / 10) * 1e9)
            writer.add_message(rows, at, features(number).SerializeToString(), at - 50_000_000)
            writer.add_message(told, at, estimate(number).SerializeToString(), at)
        writer._Writer__finalize_chunk()  # type: ignore[attr-defined]
        ends.append(file.tell())
    writer.finish()  # type: ignore[no-untyped-call]
    return Built(file.getvalue(), ends)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[bytes], Path]:
    """kept(data): a file of it."""

    def keep(data: bytes) -> Path:
        path = tmp_path / "session.mcap"
        path.write_bytes(data)
        return path

    return keep


def told(records: list[SessionMessage]) -> list[bytes]:
    return [record.topic.encode() + record.message.SerializeToString() for record in records]


def test_records_come_in_their_order_with_their_times(kept: Callable[[bytes], Path]) -> None:
    session = Session.open(kept(build().data))
    assert session.complete
    assert (session.stream, session.hop_s, session.timed, session.epoch_unix) == ("hall", 0.1, True, EPOCH_UNIX)
    assert session.features[Modality.VISION].width == 2
    records = list(session.records())
    assert [record.topic for record in records] == [schema.FEATURES[Modality.VISION], schema.ESTIMATE] * 12
    assert [record.arrived_s for record in records[::2]] == pytest.approx([n / 10 for n in range(1, 13)], abs=1e-6)
    assert [record.captured_s for record in records[::2]] == pytest.approx(
        [n / 10 - 0.05 for n in range(1, 13)], abs=1e-6
    )
    assert rows_of(records[4].message).values.tolist() == [[3.0, -3.0]]
    assert [record.message.seq for record in session.records({schema.ESTIMATE})] == list(range(1, 13))


def test_cut_at_any_byte_a_file_gives_what_is_whole_of_it(kept: Callable[[bytes], Path]) -> None:
    built = build(chunks=3, each=1)
    path = kept(built.data)
    everything = told(list(Session.open(path).records()))
    for length in reversed(range(len(built.data))):
        os.truncate(path, length)
        if length < built.ends[0]:
            with pytest.raises(SessionInvalid, match=f"^{re.escape(str(path))}: [^\n]+$"):
                Session.open(path)
            continue
        session = Session.open(path)
        assert not session.complete
        chunks = sum(end <= length for end in built.ends[1:])
        found = told(list(session.records()))
        # Beside the chunk there is its index, which may be cut.
        assert found in (everything[: 2 * chunks], everything[: 2 * (chunks + 1)])


def test_damaged_anywhere_a_file_gives_a_prefix_or_a_line(kept: Callable[[bytes], Path]) -> None:
    built = build()
    everything = told(list(Session.open(kept(built.data)).records()))
    chance = random.Random(11)
    lines: list[str] = []
    for _ in range(400):
        data = bytearray(built.data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(data))
            data[place] = chance.choice((data[place] ^ (1 << chance.randrange(8)), 0, 255, chance.randrange(256)))
        try:
            session = Session.open(kept(bytes(data)))
            found = told(list(session.records()))
            json.dumps([session.stream, session.hop_s, session.timed, session.epoch_unix, len(session.features)])
        except SessionInvalid as error:
            lines.append(str(error))
        else:
            assert found == everything[: len(found)]
    assert len(lines) > 20
    assert not any("\n" in line for line in lines)


def a_record(opcode: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BQ", opcode, len(content) if length is None else length) + content


def a_chunk(data: bytes, size: int, length: int | None = None) -> bytes:
    """data: compressed. size: as told. length: of the data, as told."""
    head = struct.pack("<QQQI", 0, 0, size, 0) + struct.pack("<I", 4) + b"zstd"
    return a_record(Opcode.CHUNK, head + struct.pack("<Q", len(data) if length is None else length) + data)


GIB = 2**30
MESSAGES = zstandard.compress(bytes(1000))
# The same with its size, of eight bytes, at the frame's beginning.
BLOATED = MESSAGES[:4] + b"\xe0" + struct.pack("<Q", 3 * GIB) + MESSAGES[7:]
UNTOLD = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(a_record(Opcode.CHUNK, b"x", 2**63), id="record"),
        pytest.param(a_record(Opcode.CHUNK, b"x", LARGEST_RECORD - 1), id="record within the limit"),
        pytest.param(a_chunk(MESSAGES, 1000, 2**62), id="data of a chunk"),
        pytest.param(a_chunk(BLOATED, 1000), id="size in the compressed data"),
        pytest.param(a_chunk(UNTOLD, 2**62), id="size of a chunk"),
        pytest.param(a_chunk(zstandard.compress(bytes(LARGEST_RECORD + 1)), 1000), id="a bomb"),
        pytest.param(a_record(Opcode.SCHEMA, struct.pack("<HI", 1, 2**32 - 1) + b"name"), id="string"),
        pytest.param(a_record(Opcode.METADATA, struct.pack("<I", 2**31) + b"name"), id="name"),
    ],
)
def test_lengths_that_lie_take_no_memory(kept: Callable[[bytes], Path], end: bytes) -> None:
    built = build()
    path = kept(built.data[: built.ends[2]] + end)
    session = Session.open(path)
    tracemalloc.start()
    try:
        assert len(list(session.records())) == 12
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_file_unpacks_to_no_more_than_so_many_times_its_size(kept: Callable[[bytes], Path]) -> None:
    built = build()
    many = a_chunk(zstandard.compress(a_record(200, bytes(32 * 2**20))), 32 * 2**20 + 9) * 40
    path = kept(built.data[: built.ends[1]] + many + built.data[built.ends[1] :])
    with path.open("rb") as file:
        assert len([record for record in whole_records(file) if isinstance(record, Message)]) == 6


def test_another_packing_is_refused_with_its_name(kept: Callable[[bytes], Path]) -> None:
    head = struct.pack("<QQQI", 0, 0, 100, 0) + struct.pack("<I", 3) + b"lz4"
    bomb = lz4.frame.compress(a_record(200, bytes(2**26)))
    built = build()
    path = kept(built.data[: built.ends[1]] + a_record(Opcode.CHUNK, head + struct.pack("<Q", len(bomb)) + bomb))
    with pytest.raises(SessionInvalid, match=f"^{re.escape(str(path))}: packed with lz4, and only zstd is read; "):
        list(Session.open(path).records())


def test_a_flip_in_the_description_is_noticed(kept: Callable[[bytes], Path]) -> None:
    """A name that is flipped leaves the item out."""
    built = build({**HEAD, schema.CHECKSUM: schema.checksum(HEAD)})
    before, begin = Session.open(kept(built.data)).metadata, built.data.index(b"dhmd.session")
    for place in range(begin, built.ends[0]):
        data = bytearray(built.data)
        data[place] ^= 1 << place % 7
        with suppress(SessionInvalid):
            found = Session.open(kept(bytes(data))).metadata
            assert {**found, schema.CHECKSUM: ""}.items() >= {**before, schema.CHECKSUM: ""}.items()


def test_a_large_chunk_is_read(kept: Callable[[bytes], Path]) -> None:
    """The limit is far above what is recorded."""
    built = build()
    data = zstandard.compress(a_record(200, bytes(32 * 2**20)))
    path = kept(built.data[: built.ends[1]] + a_chunk(data, 32 * 2**20 + 9))
    with path.open("rb") as file:
        assert sum(1 for _ in whole_records(file)) > 0
    assert len(list(Session.open(path).records())) == 6


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "not an MCAP file; sessions are recorded with --record"),
        (b"These are notes, not a session.\n", "not an MCAP file; sessions are recorded with --record"),
        (MAGIC, "cut before anything was recorded; there is nothing in it"),
        (build(name="other").data, "an MCAP file, but no session of dhmd-live; sessions are recorded with --record"),
        (build({**HEAD, "version": "2"}).data, "written by a newer program (session version 2, this one reads 1); "),
        (build({**HEAD, "version": "1.x"}).data, "damaged, its version reads '1.x'"),
        (build({**HEAD, "epoch_unix": "nan"}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "version": "9" * 5000}).data, "damaged, its version reads '9999"),
        (build({**HEAD, "epoch_unix": "1e308"}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "start_s": "-1e12"}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "hop_s": "1e-300"}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "settings": "[" * 200_000}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "features": "[" * 200_000}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "features": "[{}]"}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "settings": "[]"}).data, "damaged, the description of the session cannot be read"),
        (build({**HEAD, "settings": "{"}).data, "damaged, the description of the session cannot be read"),
        (build({"version": "1"}).data, "damaged, the description of the session cannot be read"),
    ],
)
def test_what_is_no_session_is_named_in_one_line(kept: Callable[[bytes], Path], data: bytes, line: str) -> None:
    path = kept(data)
    with pytest.raises(SessionInvalid) as caught:
        Session.open(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SessionInvalid, match=r"cannot be read \(Is a directory\)"):
        Session.open(tmp_path)
    with pytest.raises(SessionInvalid, match=r"cannot be read \(No such file or directory\)"):
        Session.open(tmp_path / "none.mcap")


def test_a_message_that_is_none_is_named(kept: Callable[[bytes], Path]) -> None:
    """Right by its checksum, and yet no message."""
    file = io.BytesIO()
    writer = Writer(file)
    writer.start()
    writer.add_metadata(schema.METADATA, HEAD)
    writer.add_message(writer.register_channel(schema.WORDS, "protobuf", 0), 0, b"\xff\xff\xff", 0)
    writer.finish()  # type: ignore[no-untyped-call]
    with pytest.raises(SessionInvalid, match="damaged, a message of /words cannot be read"):
        list(Session.open(kept(file.getvalue())).records())


@pytest.mark.parametrize(
    "message",
    [
        schema.Words(skipped_s=math.inf),
        schema.Estimate(end_s=1e300),
        schema.Estimate(end_s=math.nan),
        schema.Words.FromString(b"\x1a\x04\x0a\x02\xff\xfe"),
    ],
)
def test_times_and_words_that_are_none_are_named(kept: Callable[[bytes], Path], message: Any) -> None:
    file = io.BytesIO()
    writer = Writer(file)
    writer.start()
    writer.add_metadata(schema.METADATA, HEAD)
    topic = schema.WORDS if isinstance(message, schema.Words) else schema.ESTIMATE
    channel = writer.register_channel(topic, "protobuf", 0)
    at = round(EPOCH_UNIX * 1e9)
    writer.add_message(channel, at, schema.Words().SerializeToString(), at)
    writer.add_message(channel, at, message.SerializeToString(), at)
    writer.finish()  # type: ignore[no-untyped-call]
    records = Session.open(kept(file.getvalue())).records()
    next(records)
    with pytest.raises(SessionInvalid, match=f"damaged, a message of {topic} cannot be read"):
        next(records)


@pytest.mark.parametrize("size", [0, 3, 4, 12])
def test_rows_of_another_size_than_told_are_refused(size: int) -> None:
    with pytest.raises(SessionInvalid, match=f"damaged: {size} bytes for 2 rows of 2"):
        rows_of(schema.Features(times_s=[1.0, 2.0], width=2, values=bytes(size)))


def test_landmarks_of_half_a_point_are_refused() -> None:
    with pytest.raises(SessionInvalid, match="damaged: 6 bytes of landmarks"):
        landmarks_of(PointCloud(data=b"\0" * 6))


def test_a_checksum_guards_every_chunk(kept: Callable[[bytes], Path]) -> None:
    built = build()
    with kept(built.data).open("rb") as file:
        from mcap.records import Chunk
        from mcap.stream_reader import StreamReader

        chunks = [r for r in StreamReader(file, emit_chunks=True).records if isinstance(r, Chunk)]
    assert len(chunks) == 4
    for chunk in chunks:
        assert chunk.uncompressed_crc == zlib.crc32(zstandard.decompress(chunk.data, chunk.uncompressed_size))


def test_a_chunk_that_became_something_else_ends_what_is_read(kept: Callable[[bytes], Path]) -> None:
    """Its kind stands in one byte without a checksum."""
    built = build()
    everything = told(list(Session.open(kept(built.data)).records()))
    for number, begins in enumerate(built.ends[1:-1], start=1):
        data = bytearray(built.data)
        data[begins] = 0xFF
        assert told(list(Session.open(kept(bytes(data))).records())) == everything[: 6 * number]
