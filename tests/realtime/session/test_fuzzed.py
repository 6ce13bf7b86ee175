"""Sessions whose checksums are right and whose messages are not: every export, `info`, `repair` and replay give what
they can or one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcap.records import Channel, Header, Message, Metadata, Schema
from mcap.writer import Writer
from rich.console import Console

from dhmd.errors import DHMDError
from dhmd.session import schema
from dhmd.session.reader import whole_records
from realtime.programs.replay import ReplaySettings, replay
from realtime.session.export.formats import FORMATS
from realtime.session.export.write import export
from realtime.session.info import show_info
from realtime.session.repair import repair
from tests.fuzzing import chances, spoilt

TIMES = (0, 1, 2**62, 2**63 - 1, 10**18)


def doctored(whole: Path, out: Path, chance: random.Random) -> Path:
    """A copy with messages and metadata that are spoilt, in whole chunks."""
    with whole.open("rb") as file, out.open("wb") as copy:
        writer = Writer(copy)
        writer.start()
        every = chance.choice((3, 30, 300))
        for record in whole_records(file):
            if isinstance(record, Metadata):
                head = dict(record.metadata)
                if chance.randrange(4) == 0:
                    name = chance.choice(list(head))
                    value = spoilt(head[name].encode(), chance).decode(errors="replace")
                    head[name] = chance.choice((value, "1e300", "-1", "9" * 5000, "[" * 1000, ""))
                writer.add_metadata(record.name, {**head, schema.CHECKSUM: schema.checksum(head)})
            elif isinstance(record, Schema):
                writer.register_schema(record.name, record.encoding, record.data)
            elif isinstance(record, Channel):
                writer.register_channel(record.topic, record.message_encoding, record.schema_id, record.metadata)
            elif isinstance(record, Message):
                if chance.randrange(every) == 0:
                    record = replace(record, data=spoilt(record.data, chance))  # noqa: PLW2901
                if chance.randrange(4 * every) == 0:
                    record = replace(record, log_time=chance.choice(TIMES))  # noqa: PLW2901
                writer.add_message(record.channel_id, record.log_time, record.data, record.publish_time)
            else:
                assert isinstance(record, Header) or record
        writer.finish()  # type: ignore[no-untyped-call]
    return out


def played(path: Path, out: Path) -> None:
    replay(ReplaySettings(path, estimates=str(out)), Console(quiet=True))


USES: dict[str, Callable[[Path, Path], Any]] = {
    "info": lambda path, _: show_info(path, Console(quiet=True), as_json=False),
    "repair": lambda path, out: repair(path, out, force=True),
    "replay": played,
    **{to: lambda path, out, to=to: export(path, to, out, force=True) for to in FORMATS},  # type: ignore[misc]
}


@pytest.mark.parametrize("use", USES)
def test_whatever_a_session_holds_it_is_used_or_refused(use: str, recorded: Path, tmp_path: Path) -> None:
    for chance in chances():
        path = doctored(recorded, tmp_path / "doctored.mcap", chance)
        with suppress(DHMDError):
            USES[use](path, tmp_path / "out")
