"""Whom the next window goes to, and what is in it, whatever servers do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from dhmd.modality import Modality
from dhmd.untrusted import LONGEST_QUOTE
from realtime.scale.edge_stream import FIRST_S, LONGEST_S, PATIENCE_S, RENEWED_S, SPREAD_S
from realtime.scale.topics import GONE, HERE
from realtime.scale.window_message import WindowMessage

MakeUp = Callable[..., Any]


def read(message: tuple[str, bytes] | None) -> tuple[str, WindowMessage]:
    assert message is not None
    return message[0], WindowMessage.decode(message[1])


def opened(made_up: MakeUp) -> Any:
    """A stream that server a has taken."""
    edge = made_up()
    edge.window()
    assert edge.answered("a")
    return edge


def test_a_stream_opens_with_all_and_goes_on_with_what_is_new(made_up: MakeUp) -> None:
    edge = made_up()
    edge.hop()
    topic, first = read(edge.window())
    assert topic == "dhmd/hall/window"
    assert (first.previous, first.features) == (None, edge.features)
    assert len(first.rows[Modality.VISION]) == 30
    assert edge.window() is None
    edge.answered("a")
    topic, second = read(edge.window())
    assert topic == "dhmd/hall/window/a"
    assert (second.seq, second.previous, second.features) == (2, 1, None)
    assert len(second.rows[Modality.VISION]) == 30, "those of the window that was withheld, too"
    edge.answered("a")
    _, third = read(edge.window())
    assert (third.seq, third.previous, len(third.rows[Modality.VISION])) == (3, 2, 15)


def test_a_full_window_holds_no_rows_that_no_window_will_hold(made_up: MakeUp) -> None:
    edge = made_up()
    for _ in range(20):
        edge.hop()
    _, full = read(edge.window())
    assert len(full.rows[Modality.VISION]) == 75
    assert [word.text for word in full.words or ()] == [f"word{n}" for n in range(16, 21)]


def test_the_next_window_is_full_when_the_server_asks_and_when_nobody_else_does(made_up: MakeUp) -> None:
    edge = opened(made_up)
    for asked in (
        {"server": "b", "session": edge.stream.incarnation},
        {"server": "a", "session": "another"},
        ["no object"],
    ):
        edge.stream.on_resync(json.dumps(asked).encode())
        assert read(edge.window())[1].previous is not None
    edge.stream.on_resync(b"\xff{")
    edge.stream.on_resync(json.dumps({"server": "a", "session": edge.stream.incarnation}).encode())
    topic, full = read(edge.window())
    assert (topic, full.previous) == ("dhmd/hall/window/a", None)
    assert read(edge.window())[1].previous == full.seq


def test_when_its_server_goes_the_stream_opens_again_at_once(made_up: MakeUp) -> None:
    edge = opened(made_up)
    edge.stream.on_presence("b", GONE, edge.now_s)
    assert read(edge.window())[0] == "dhmd/hall/window/a"
    edge.stream.on_presence("a", GONE, edge.now_s)
    topic, full = read(edge.window())
    assert (topic, full.previous) == ("dhmd/hall/window", None)
    edge.answered("b")
    assert read(edge.window())[0] == "dhmd/hall/window/b"


def test_a_server_that_does_not_answer_is_left(made_up: MakeUp, caplog: pytest.LogCaptureFixture) -> None:
    edge = opened(made_up)
    windows = [read(edge.window())[0] for _ in range(round(PATIENCE_S) + 2)]
    assert windows[-1] == "dhmd/hall/window"
    assert set(windows[:-1]) == {"dhmd/hall/window/a"}
    assert "server a does not answer" in caplog.text
    late = edge.answered("a", window="3")
    assert late, "an estimate is an estimate"
    assert edge.stream.server is None


def test_without_servers_openings_become_rare_and_it_is_told_once(
    made_up: MakeUp, caplog: pytest.LogCaptureFixture
) -> None:
    edge = made_up()
    sent = [edge.now_s for _ in range(120) if edge.window() is not None]
    waits = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert waits[0] == FIRST_S
    assert waits[-1] == LONGEST_S
    assert len(caplog.records) == 1
    assert "no server answers" in caplog.text
    edge.stream.on_presence("a", HERE, edge.now_s)
    assert read(edge.window())[0] == "dhmd/hall/window"


def test_streams_spread_anew_when_a_server_comes_and_once_in_a_while(made_up: MakeUp) -> None:
    edge = opened(made_up)
    edge.stream.on_presence("b", HERE, edge.now_s)
    topics = []
    for _ in range(round(SPREAD_S) + 2):
        message = edge.window()
        topics.append(message and message[0])
        edge.answered("a")
    assert topics.count("dhmd/hall/window") == 1
    topics = []
    for _ in range(round(2 * RENEWED_S)):
        message = edge.window()
        topics.append(message and message[0])
        edge.answered("a")
    assert 1 <= topics.count("dhmd/hall/window") <= 2


def test_a_refusal_is_one_clear_line_and_other_servers_are_asked(
    made_up: MakeUp, caplog: pytest.LogCaptureFixture
) -> None:
    edge = made_up()
    edge.window()
    refusal = {"server": "a", "session": edge.stream.incarnation, "reason": "vision: other features (version)"}
    for _ in range(30):
        edge.stream.on_refused(json.dumps(refusal).encode())
        edge.window()
    assert [record.getMessage() for record in caplog.records] == [
        "hall: server a refuses this stream: vision: other features (version)"
    ]
    edge.stream.on_presence("b", HERE, edge.now_s)
    assert read(edge.window())[0] == "dhmd/hall/window"


def test_what_a_server_says_is_told_in_a_short_line_that_no_terminal_obeys(
    made_up: MakeUp, caplog: pytest.LogCaptureFixture
) -> None:
    edge = made_up()
    edge.window()
    for reason in ("\x1b[2J", "x" * 5000):
        edge.stream.on_refused(
            json.dumps({"server": reason, "session": edge.stream.incarnation, "reason": reason}).encode()
        )
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) <= LONGEST_QUOTE + len("hall: ")
    assert len(caplog.records) == 2


def test_what_is_said_of_other_sessions_changes_nothing(made_up: MakeUp) -> None:
    edge = made_up()
    edge.window()
    assert not edge.answered("a", session="another")
    for window in ("x", "9" * 5000, "-1", "٣", ""):
        assert not edge.answered("a", window=window)
    assert not edge.stream.on_answer({}, edge.now_s)
    assert edge.answered("a", held_ms="long")
    assert edge.stream.server == "a"


@pytest.mark.parametrize("held_ms", ["-inf", "nan", "1e9", "-5", "9" * 400, ""])
def test_a_time_that_no_server_can_have_held_a_window_is_not_measured(made_up: MakeUp, held_ms: str) -> None:
    edge = made_up()
    edge.window()
    assert edge.answered("a", held_ms=held_ms)
    _, message = read(edge.window())
    assert message.transit_s == 0.0
