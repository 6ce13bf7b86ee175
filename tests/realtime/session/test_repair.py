"""Whatever a cut leaves is saved, and what is whole is left alone."""

from __future__ import annotations

import random
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from mcap.records import Chunk, Message
from mcap.stream_reader import StreamReader, breakup_chunk

from dhmd.session import Session, SessionInvalid
from realtime.session.repair import repair


def stamps(path: Path) -> list[tuple[str, int, bytes]]:
    """All messages that another reader finds by the file's index, in the order of the file."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        found = [(channel.topic, m.log_time, m.data) for _, channel, m in reader.iter_messages(log_time_order=False)]
        assert summary.statistics.message_count == len(found)
    return found


def test_what_is_whole_needs_no_repair(recorded: Path, live: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    outcome = live("repair", recorded, "--out", out)
    assert (outcome.code, outcome.out) == (0, f"{recorded}: intact; nothing to repair\n")
    assert not out.exists()


def chunks(path: Path) -> list[tuple[int, int]]:
    """Where each chunk of a whole file ends, and how many messages there are up to it."""
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
        file.seek(0)
        counts = [
            sum(isinstance(record, Message) for record in breakup_chunk(chunk))
            for chunk in StreamReader(file, emit_chunks=True).records
            if isinstance(chunk, Chunk)
        ]
    assert summary is not None
    ends = [index.chunk_start_offset + index.chunk_length for index in summary.chunk_indexes]
    return list(zip(ends, accumulate(counts), strict=True))


def test_a_file_cut_at_any_byte(made: Any) -> None:
    whole, before = made.path.read_bytes(), stamps(made.path)
    whole_chunks = chunks(made.path)
    cut, out = made.path.with_name("cut.mcap"), made.path.with_name("out.mcap")
    choose = random.Random(1)
    sizes = (
        {choose.randrange(len(whole)) for _ in range(60)} | set(range(len(whole) - 200, len(whole))) | set(range(12))
    )
    for size in sorted(sizes):
        cut.write_bytes(whole[:size])
        left = max((count for end, count in whole_chunks if end <= size), default=0)
        if not left:
            with pytest.raises(SessionInvalid, match=rf"^{re.escape(str(cut))}: [^\n]+$"):
                repair(cut, out)
            assert not out.exists()
            continue
        repaired = repair(cut, out, force=True)
        assert repaired is not None
        assert repaired.messages == left
        assert stamps(out) == before[:left]
        session = Session.open(out)
        assert session.complete
        assert session.metadata == Session.open(made.path).metadata
        out.unlink()


def test_only_what_follows_the_last_whole_chunk_is_lost(made: Any) -> None:
    whole = made.path.read_bytes()
    session = Session.open(made.path)
    cut = made.path.with_name("cut.mcap")
    # Ten hops a chunk; none in the first half second of the fourth.
    for chunks, estimates in ((1, 10), (2, 20), (3, 30), (4, 35), (6, 55)):
        cut.write_bytes(whole[: made.chunk_ends[chunks - 1] + 3])
        repaired = repair(cut, force=True)
        assert repaired is not None
        assert repaired.out == made.path.with_name("cut.repaired.mcap")
        assert repaired.last_s == pytest.approx(chunks, abs=0.01)
        kept = list(Session.open(repaired.out).records(["/estimate"]))
        assert len(kept) == estimates
        assert kept == list(session.records(["/estimate"]))[:estimates]


def test_a_recording_cut_in_the_middle(recorded: Path, live: Any, tmp_path: Path) -> None:
    whole = recorded.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    outcome = live("repair", cut)
    out = tmp_path / "cut.repaired.mcap"
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"{out}: ")
    saved = stamps(out)
    assert 0 < len(saved) < len(stamps(recorded))
    assert saved == stamps(recorded)[: len(saved)]
    assert live("export", out, "--to", "csv").code == 0
    assert live("repair", out).out == f"{out}: intact; nothing to repair\n"


def test_a_damaged_chunk_ends_what_can_be_read(made: Any) -> None:
    whole = made.path.read_bytes()
    damaged = made.path.with_name("damaged.mcap")
    saved = chunks(made.path)[3][1]
    for at in range(made.chunk_ends[3], made.chunk_ends[4], 7):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        repaired = repair(damaged, force=True)
        # Damage in the index that follows a chunk is no loss, and may not even be seen.
        if repaired is not None:
            assert repaired.messages >= saved
            assert Session.open(repaired.out).complete


def test_never_over_another_file(made: Any, refuse: Any) -> None:
    cut = made.path.with_name("cut.mcap")
    cut.write_bytes(made.path.read_bytes()[: made.chunk_ends[2]])
    assert "is the session itself" in refuse(2, "repair", cut, "--out", cut, "--force")
    other = made.path.with_name("other.mcap")
    other.write_text("mine")
    assert refuse(2, "repair", cut, "--out", other).startswith(f"{other}: already exists; ")
    assert other.read_text() == "mine"


def test_a_file_cut_before_its_first_chunk(made: Any, refuse: Any) -> None:
    whole = made.path.read_bytes()
    cut = made.path.with_name("cut.mcap")
    cut.write_bytes(whole[: made.chunk_ends[0] - 900])
    assert refuse(1, "repair", cut) == (
        f"{cut}: cut before the first second of it was written; there is nothing to repair"
    )
    cut.write_bytes(whole[:40])
    assert refuse(1, "repair", cut) == f"{cut}: cut before anything was recorded; there is nothing in it"
