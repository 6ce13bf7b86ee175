"""Two people who talk in turns, from a film to estimates of each: recorded, replayed, published and exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from dhmd.modality import Modality
from realtime.cli import main
from tests import composites

LEFT_SAYS, RIGHT_SAYS = "now", "again"
"""The last words of the two sentences."""


def live(*words: object) -> tuple[int, str]:
    """A command's exit status, and what it said."""
    threads, said = torch.get_num_threads(), StringIO()
    with pytest.raises(SystemExit) as end, redirect_stdout(said), redirect_stderr(said):
        main([str(word) for word in words])
    torch.set_num_threads(threads)
    return int(end.value.code or 0), said.getvalue()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def talk(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: the film, talk.mcap recorded of it with two people, and its estimates, two.jsonl; one.jsonl of one."""
    folder = tmp_path_factory.mktemp("talk")
    film = composites.conversation(folder / "talk.mp4", shared)
    common = ("run", "--source", film, "--pace", "max", "--broker", "none", "--stream", "table")
    session = ("--record", folder / "talk.mcap", "--estimates", folder / "two.jsonl")
    assert live(*common, "--people", "2", *session)[0] == 0
    assert live(*common, "--estimates", folder / "one.jsonl")[0] == 0
    return folder


def of(estimates: list[dict[str, Any]], person: int | None) -> list[dict[str, Any]]:
    return [one for one in estimates if one.get("person") == person]


def test_each_has_their_own_voice_and_their_own_words(talk: Path) -> None:
    estimates = lines(talk / "two.jsonl")
    people = {one["person"] for one in estimates if "person" in one}
    said = {person: of(estimates, person)[-1]["transcript"].lower() for person in people}
    (left,) = (person for person in people if LEFT_SAYS in said[person])
    (right,) = (person for person in people if RIGHT_SAYS in said[person])
    assert people == {left, right} == {1, 2}
    assert RIGHT_SAYS not in said[left]
    assert LEFT_SAYS not in said[right]
    for person, other, begins_s, ends_s in ((left, right, 1.7, 2.2), (right, left, 4.4, 5.0)):
        speaking, listening = (
            [one["modalities"]["audio"]["present"] for one in of(estimates, who) if begins_s < one["t"] < ends_s]
            for who in (person, other)
        )
        assert all(speaking)
        assert not any(listening)
        (silent,) = {one.get("silent") for one in of(estimates, other) if begins_s < one["t"] < ends_s}
        assert silent == "another"
    assert all(one["modalities"]["vision"]["present"] for one in estimates if one["t"] > 0.5)


def test_each_of_two_has_an_estimate_at_every_tick_of_a_face_that_is_new(talk: Path) -> None:
    estimates = lines(talk / "two.jsonl")
    ticks = [one["t"] for one in of(estimates, None) if one["t"] > 0.5]
    for person in (1, 2):
        theirs = [one for one in of(estimates, person) if one["t"] > 0.5]
        assert [one["t"] for one in theirs] == ticks
        assert max(one["modalities"]["vision"]["age_s"] for one in theirs) < 0.15


def test_each_of_four_has_estimates_of_a_face_that_is_new_enough(shared: Path, tmp_path: Path) -> None:
    film = composites.four(tmp_path / "four.mp4", shared)
    said = ("--broker", "none", "--estimates", tmp_path / "four.jsonl")
    assert live("run", "--source", film, "--pace", "max", "--people", "4", *said)[0] == 0
    estimates = [one for one in lines(tmp_path / "four.jsonl") if one["t"] > 0.8]
    seconds = estimates[-1]["t"] - estimates[0]["t"]
    assert {one["person"] for one in estimates if "person" in one} == {1, 2, 3, 4}
    for person in (1, 2, 3, 4):
        theirs = of(estimates, person)
        assert len(theirs) >= 5 * seconds
        assert max(one["modalities"]["vision"]["age_s"] for one in theirs) < 0.3


def test_both_together_have_the_words_that_are_heard(talk: Path) -> None:
    """None is lost between them: as many as of one person who says it all."""
    estimates = lines(talk / "two.jsonl")
    heard, *said = (of(estimates, person)[-1]["transcript"].split() for person in (None, 1, 2))
    assert len(heard) > 6
    assert sorted([*said[0], *said[1]]) == sorted(heard)
    assert heard == of(lines(talk / "one.jsonl"), None)[-1]["transcript"].split()


def test_the_estimates_of_the_stream_are_those_of_one_person(talk: Path) -> None:
    """Programs that know of no people need not change. To rounding: windows of several pass the network together."""
    two, one = of(lines(talk / "two.jsonl"), None), lines(talk / "one.jsonl")
    assert [estimate.keys() for estimate in two] == [estimate.keys() for estimate in one]
    for name in ("seq", "t", "top", "faces", "transcript", "model"):
        assert [estimate[name] for estimate in two] == [estimate[name] for estimate in one]
    for mine, other in zip(two, one, strict=True):
        assert mine["emotions"] == (other["emotions"] and pytest.approx(other["emotions"], abs=2e-3))


def test_a_replay_says_the_same_of_each(talk: Path, tmp_path: Path) -> None:
    status, said = live("replay", talk / "talk.mcap", "--verify", "--estimates", tmp_path / "again.jsonl")
    assert status == 0, said
    assert "verified" in said
    again, before = lines(tmp_path / "again.jsonl"), lines(talk / "two.jsonl")
    assert [(one["seq"], one.get("person"), one.get("silent"), one["transcript"], one["top"]) for one in again] == [
        (one["seq"], one.get("person"), one.get("silent"), one["transcript"], one["top"]) for one in before
    ]


def test_a_replay_that_lacks_who_spoke_is_noticed(talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimates of each hang on the rows that entered their window."""
    from dhmd.modality import Modality
    from dhmd.session import schema

    without = {m: topic for m, topic in schema.PERSON_FEATURES.items() if m is not Modality.AUDIO}
    monkeypatch.setattr(schema, "PERSON_FEATURES", without)
    status, said = live("replay", talk / "talk.mcap", "--verify")
    assert status == 1
    assert "other modalities were perceived" in said


def test_a_broker_is_told_who_is_there_who_speaks_and_what_each_shows(
    talk: Path, mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    listener = subscribe(mosquitto.port)
    status, said = live("replay", talk / "talk.mcap", "--broker", mosquitto.url, "--pace", "20")
    assert status == 0, said
    listener.wait_for(lambda: listener.statuses("table")[-1:] == ["stopped"])
    *told, last = listener.payloads("dhmd/table/people")
    assert last == b""  # taken back
    people = [json.loads(payload) for payload in told]
    assert {one["person"] for one in people[-1]["people"]} == {1, 2}
    speakers = [one["speaker"] for one in people if one["speech"] == "person"]
    assert set(speakers) == {1, 2}
    assert speakers.index(speakers[-1]) > 0  # first one, then the other
    events = [json.loads(payload) for payload in listener.payloads("dhmd/table/event")]
    assert [one["person"] for one in events if one["event"] == "person_appeared"] == [1, 2]
    assert {one["person"] for one in events if one["event"] == "person_speaks"} == {1, 2}
    for person in (1, 2):
        estimates = [json.loads(payload) for payload in listener.payloads(f"dhmd/table/person/{person}/emotion")]
        assert {one["person"] for one in estimates} == {person}
    assert not any("person" in one for one in listener.estimates("table"))


def test_an_edge_and_a_server_say_of_each_what_a_run_says(
    talk: Path, mosquitto: Any, subscribe: Callable[..., Any], start_live: Callable[..., Any], tmp_path: Path
) -> None:
    listener = subscribe(mosquitto.port)
    serving = start_live("serve", "--broker", mosquitto.url)
    serving.wait_for(lambda: "serving" in serving.out)
    source = ("--source", talk / "talk.mp4", "--pace", "max", "--hop", "0.1", "--people", "2", "--stream", "table")
    status, said = live("edge", *source, "--broker", mosquitto.url, "--estimates", tmp_path / "edge.jsonl")
    assert status == 0, said
    theirs, ours = lines(tmp_path / "edge.jsonl"), lines(talk / "two.jsonl")
    who, spoke = ([(one["t"], one.get("person")) for one in estimates] for estimates in (theirs, ours))
    assert who == spoke
    for other, own in zip(theirs, ours, strict=True):
        for name in ("window", "faces", "transcript", "model"):
            assert other[name] == own[name]
        assert other.get("silent") == own.get("silent")
        for m in Modality:
            assert other["modalities"][m]["age_s"] == own["modalities"][m]["age_s"]
            assert other["modalities"][m]["present"] == own["modalities"][m]["present"]
        assert other["emotions"] == (own["emotions"] and pytest.approx(own["emotions"], abs=2e-3))
    listener.wait_for(lambda: listener.statuses("table")[-1:] == ["stopped"])
    for person in (1, 2):
        published = [json.loads(payload) for payload in listener.payloads(f"dhmd/table/person/{person}/emotion")]
        assert published == of(theirs, person)
    *told, last = listener.payloads("dhmd/table/people")
    assert last == b""
    assert {one["speaker"] for one in map(json.loads, told) if one["speech"] == "person"} == {1, 2}
    events = [json.loads(payload) for payload in listener.payloads("dhmd/table/event")]
    assert [one["person"] for one in events if one["event"] == "person_appeared"] == [1, 2]
    assert {one["person"] for one in events if one["event"] == "person_speaks"} == {1, 2}


def test_a_table_has_a_row_for_each(talk: Path, tmp_path: Path) -> None:
    assert live("export", talk / "talk.mcap", "--to", "csv", "--out", tmp_path / "talk.csv")[0] == 0
    with (tmp_path / "talk.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["seq"]), row["person"]) for row in rows] == [
        (one["seq"], str(one.get("person", ""))) for one in lines(talk / "two.jsonl")
    ]


def test_two_who_talk_at_once_are_told_everywhere(
    shared: Path, mosquitto: Any, subscribe: Callable[..., Any], tmp_path: Path
) -> None:
    film = composites.at_once(tmp_path / "both.mp4", shared)
    said = ("--record", tmp_path / "both.mcap", "--estimates", tmp_path / "both.jsonl")
    source = ("--source", film, "--pace", "max", "--people", "2", "--stream", "table")
    assert live("run", *source, "--broker", "none", *said)[0] == 0
    listener = subscribe(mosquitto.port)
    status, told = live("replay", tmp_path / "both.mcap", "--broker", mosquitto.url, "--pace", "20")
    assert status == 0, told
    listener.wait_for(lambda: listener.statuses("table")[-1:] == ["stopped"])
    *people, _ = (json.loads(payload or b"null") for payload in listener.payloads("dhmd/table/people"))
    assert any((one["speech"], one["speaker"]) == ("overlap", None) for one in people)
    events = [json.loads(payload)["event"] for payload in listener.payloads("dhmd/table/event")]
    assert "several_speak" in events
    estimates = lines(tmp_path / "both.jsonl")
    assert "overlap" in {one.get("silent") for one in estimates}
    report = tmp_path / "both.html"
    assert live("export", tmp_path / "both.mcap", "--to", "html", "--out", report)[0] == 0
    assert '<path class="several" d="M' in report.read_text()


def test_of_two_who_talk_at_once_the_louder_ones_words_are_given_and_marked(
    shared: Path, mosquitto: Any, subscribe: Callable[..., Any], tmp_path: Path
) -> None:
    """With one person, too; in the estimates, the session, its replay, and the report."""
    film, session = composites.at_once(tmp_path / "both.mp4", shared, volume=0.35, length_s=5), tmp_path / "both.mcap"
    said = ("--record", session, "--estimates", tmp_path / "both.jsonl")
    assert live("run", "--source", film, "--pace", "max", "--stream", "table", "--broker", "none", *said)[0] == 0
    estimates = lines(tmp_path / "both.jsonl")
    assert any(one["transcript"] and one.get("overlapped") for one in estimates)
    status, told = live("replay", session, "--verify")
    assert status == 0, told
    listener = subscribe(mosquitto.port)
    assert live("replay", session, "--broker", mosquitto.url, "--pace", "20")[0] == 0
    listener.wait_for(lambda: listener.statuses("table")[-1:] == ["stopped"])
    published = [json.loads(payload) for payload in listener.payloads("dhmd/table/emotion")]
    assert [one.get("overlapped") for one in published] == [one.get("overlapped") for one in estimates]
    report = tmp_path / "both.html"
    assert live("export", session, "--to", "html", "--out", report)[0] == 0
    assert '<u title="several speak at once">' in report.read_text()


@pytest.mark.parametrize("people", ["0", "17", "two", "-1"])
def test_a_number_that_is_none_is_one_line(people: str, tmp_path: Path) -> None:
    status, said = live("run", "--source", "none", f"--people={people}")
    assert status == 2
    assert said.strip() == f"error: --people: expected a number of people from 1 to 16, or all, found {_shown(people)}"


def _shown(people: str) -> str:
    return people if people.isdecimal() else repr(people)


def test_a_report_has_a_lane_for_each(talk: Path, tmp_path: Path) -> None:
    assert live("export", talk / "talk.mcap", "--to", "html", "--out", tmp_path / "talk.html")[0] == 0
    report = (tmp_path / "talk.html").read_text()
    assert [f'aria-label="Person {person}: ' in report for person in (1, 2, 3)] == [True, True, False]
