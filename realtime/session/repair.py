"""Repair of a session that was cut or whose end is damaged: a whole file of all up to the last complete chunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dhmd.session import Session, SessionInvalid
from dhmd.session.reader import Contents, whole_records
from realtime.session.files import check_out, whole_file


@dataclass(frozen=True, slots=True)
class Repaired:
    """Outcome of a repair. messages: how many were saved. last_s: arrival of the last, in seconds of the recording."""

    out: Path
    messages: int
    last_s: float


def repair(path: Path, out: Path | None = None, *, force: bool = False) -> Repaired | None:
    """Write what can be read of a session as an indexed file; None, and nothing written, where it is whole already.

    out: by default FILE.repaired.mcap beside the session. Raises SessionInvalid, SettingsInvalid.
    """
    session = Session.open(path)
    contents = Contents.of(session)
    if contents.whole:
        return None
    if not contents.messages:
        raise SessionInvalid(f"{path}: cut before the first second of it was written; there is nothing to repair")
    out = out or path.with_suffix(".repaired.mcap")
    check_out(out, path, force=force)
    with path.open("rb") as file, whole_file(out) as copy:
        _copy(file, copy)
    return Repaired(out, contents.messages, contents.last_s)


def _copy(file: IO[bytes], copy: IO[bytes]) -> None:
    """Copy schemas, channels, metadata and messages as they are, with a new index."""
    from mcap.records import Channel, Header, Message, Metadata, Schema
    from mcap.writer import CompressionType, Writer

    writer = Writer(copy, compression=CompressionType.ZSTD)
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    for record in whole_records(file):
        if isinstance(record, Header):
            writer.start(profile=record.profile, library=record.library)
        elif isinstance(record, Metadata):
            writer.add_metadata(record.name, record.metadata)
        elif isinstance(record, Schema) and record.id not in schemas:
            schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
        elif isinstance(record, Channel) and record.id not in channels:
            channels[record.id] = writer.register_channel(
                record.topic, record.message_encoding, schemas[record.schema_id], record.metadata
            )
        elif isinstance(record, Message):
            writer.add_message(
                channels[record.channel_id], record.log_time, record.data, record.publish_time, record.sequence
            )
    writer.finish()  # type: ignore[no-untyped-call]
