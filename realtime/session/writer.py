"""Session file, written chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any

from google.protobuf.timestamp_pb2 import Timestamp

from dhmd.session import schema

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
        # The library ends a chunk by size alone; a recording must end it by time.
        self._writer._Writer__finalize_chunk()  # type: ignore[attr-defined]  # noqa: SLF001
        self._file.flush()

    def finish(self) -> None:
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.flush()
