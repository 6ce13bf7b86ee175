"""Session file, written chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Self

from google.protobuf.timestamp_pb2 import Timestamp

from dhmd.session import schema

if TYPE_CHECKING:
    from mcap.data_stream import RecordBuilder
    from mcap.records import ChunkIndex

NANO = 1_000_000_000
Build = Callable[[Timestamp], Any]
"""Makes a message with the time of what it is about; None where there is nothing to write after all."""


class SessionWriter:
    """Writes messages as an MCAP file of whole chunks. Times are on the stream clock."""

    def __init__(self, file: IO[bytes], epoch_unix: float, head: Mapping[str, str]) -> None:
        from mcap.writer import CompressionType, Writer

        self._file = file
        self._epoch_unix = epoch_unix
        # Chunks end by the clock alone, in `end_chunk`.
        self._writer = Writer(file, chunk_size=2**40, compression=CompressionType.ZSTD)
        # Private to the library. Were it called otherwise one day, this would take more memory, and do the same.
        self._writer._Writer__chunk_indices = _PackedIndexes()  # type: ignore[attr-defined]  # noqa: SLF001
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._writer.start(profile="", library="dhmd")
        self._writer.add_metadata(schema.METADATA, {**head, schema.CHECKSUM: schema.checksum(head)})
        file.flush()

    def add(self, topic: str, arrived_s: float, captured_s: float, build: Build) -> None:
        arrived, captured = (max(0, round((self._epoch_unix + t) * NANO)) for t in (arrived_s, captured_s))
        seconds, nanos = divmod(captured, NANO)
        message = build(Timestamp(seconds=seconds, nanos=nanos))
        if message is None:
            return
        if topic not in self._channels:
            self._register(topic, type(message))
        self._writer.add_message(self._channels[topic], arrived, message.SerializeToString(), captured)

    def _register(self, topic: str, kind: Any) -> None:
        from mcap_protobuf.schema import register_schema

        name = kind.DESCRIPTOR.full_name
        if name not in self._schemas:
            self._schemas[name] = register_schema(self._writer, kind)
        self._channels[topic] = self._writer.register_channel(topic, "protobuf", self._schemas[name])

    def end_chunk(self) -> None:
        """Write what was added since the last chunk."""
        self._writer.flush()  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.flush()


class _PackedIndexes:
    """Index of the chunks, as it stands at the end of the file, in place of the library's list of objects, which takes
    six times as much: there is a chunk a second, for days."""

    def __init__(self) -> None:
        from mcap.data_stream import RecordBuilder

        self._records = RecordBuilder()

    def append(self, index: ChunkIndex) -> None:
        index.write(self._records)

    def __iter__(self) -> Iterator[Self]:
        yield self

    def write(self, summary: RecordBuilder) -> None:
        """Write them all, as each would write itself."""
        summary.write(self._records.end())  # type: ignore[no-untyped-call]
