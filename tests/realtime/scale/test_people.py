"""Several people of an edge's stream: their windows at the server are theirs, whatever was taken back or lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.modality import Modality
from realtime.perception.people import PerceivedPerson
from realtime.perception.window import SlidingWindow
from realtime.recognition.steadied import Hysteresis
from realtime.recognition.steadiness import Steadiness
from realtime.scale.people_log import PersonWindow
from realtime.scale.served import Estimator, ServedStreams

MakeUp = Callable[..., Any]
SILENT = 2


@pytest.fixture
def streams(features: Mapping[Modality, FeatureSpec]) -> ServedStreams:
    return ServedStreams("a", features)


class Table:
    """People at an edge, whose windows change as people's do: voice is given and taken back, words are revised."""

    def __init__(self, edge: Any) -> None:
        self.edge = edge
        self._random = np.random.default_rng(3)
        self.windows: dict[int, SlidingWindow] = {}
        self.words: dict[int, tuple[Word, ...]] = {}

    def send(self, streams: ServedStreams, *here: int, lost: bool = False) -> Any:
        hop = self.edge.hop()
        for person in here:
            self._live(person)
        self.windows = {person: window for person, window in self.windows.items() if person in here}
        self.words = {person: words for person, words in self.words.items() if person in here}
        perceived = [
            PerceivedPerson(
                person, window, window.cut(hop.end_s), self.words[person], "quiet" if person == SILENT else None
            )
            for person, window in self.windows.items()
        ]
        people = [PersonWindow.of(one) for one in perceived]
        message = self.edge.stream.window(replace(hop, people=people), self.edge.now_s)
        self.edge.answered("a", people=str(len(people)))
        return None if lost else streams.receive(*message)

    def _live(self, person: int) -> None:
        window = self.windows.setdefault(person, SlidingWindow(self.edge.features, torch.device("cpu")))
        end_s = self.edge.end_s
        window.append(Modality.VISION, self.edge.rows(Modality.VISION, end_s - 1 + np.arange(1, 16) / 15))
        voice = self.edge.rows(Modality.AUDIO, end_s - 1 + np.arange(1, 13) / 12)
        match self._random.integers(4):
            case 0:
                window.replace(Modality.AUDIO, Rows.empty(voice.values.shape[1]))
            case 1:
                window.replace(Modality.AUDIO, voice)
            case 2:
                window.append(Modality.AUDIO, voice)
        if self._random.integers(2) or person not in self.words:
            count = int(self._random.integers(3))
            self.words[person] = tuple(Word(f"w{n}", end_s - 0.5, end_s - 0.1 * n, 0.5) for n in range(count))
            window.replace(Modality.TEXT, self.edge.rows(Modality.TEXT, [end_s - 0.1] * count))


def test_the_window_of_each_is_that_of_the_edge(made_up: MakeUp, streams: ServedStreams) -> None:
    table = Table(made_up())
    comings = [(1,), (1, 2), (1, 2), (1, 2, 3), (2, 3), (2, 3), (2, 3)] * 6
    for number, here in enumerate(comings):
        if number == 20:
            table.send(streams, *here, lost=True)
            topic, asked = table.send(streams, *here)
            assert topic == "dhmd/hall/window/resync"
            table.edge.stream.on_resync(asked)
        table.send(streams, *here)
        (request,) = streams.take(1)
        assert [asked.person for asked in request.asked] == [None, *here]
        for asked in request.asked[1:]:
            own = table.windows[asked.person].cut(table.edge.end_s)
            cut = asked.served.window.cut(table.edge.end_s, asked.attention)
            assert (cut.present, asked.words) == (own.present, table.words[asked.person])
            assert asked.silent == ("quiet" if asked.person == SILENT else None)
            for m in Modality:
                assert torch.equal(cut.inputs[m], own.inputs[m])
                assert torch.equal(cut.masks[m], own.masks[m])


def test_all_of_a_stream_are_estimated_together_and_told_apart(
    made_up: MakeUp, streams: ServedStreams, estimator: Estimator
) -> None:
    table, alone = Table(made_up("table")), made_up("alone")
    for _ in range(3):
        table.send(streams, 1, 2)
    alone.answered()
    streams.receive(*alone.window())
    assert streams.counts["windows"] == 10
    requests = streams.take(64)
    made = estimator.answer(requests)
    assert [(e.stream, e.person, e.silent) for e in made] == [
        ("table", None, None),
        ("table", 1, None),
        ("table", 2, "quiet"),
        ("alone", None, None),
    ]
    assert len({e.seq for e in made[:3]}) == 1
    assert len({str(e.emotions) for e in made[:3]}) == 3
    while estimator.measure():
        pass
    table.send(streams, 1, 2)
    again = estimator.answer(streams.take(64))
    assert all(e.modalities.vision.influence is not None for e in again)


def test_a_batch_is_full_by_windows(made_up: MakeUp, streams: ServedStreams) -> None:
    tables = [Table(made_up(name)) for name in ("one", "other", "third")]
    for table in tables * 2:
        table.send(streams, 1, 2)
    assert [request.stream for request in streams.take(4)] == ["one", "other"]
    assert [request.stream for request in streams.take(4)] == ["third"]


def test_each_is_kept_still_also_when_the_stream_is_opened_again(
    made_up: MakeUp, streams: ServedStreams, estimator: Estimator
) -> None:
    table = Table(made_up(steadiness=Steadiness(margin=0.5)))
    told = []
    for turn in range(24):
        if turn % 8 == 7:
            table.edge.stream.reconnected()
        table.send(streams, 1)
        told.append(estimator.answer(streams.take(8))[1])
    whole = Hysteresis(0.5)
    assert [e.top for e in told] == [whole.top(tuple((e.emotions or {}).values()), e.t) for e in told]


def test_a_server_that_knows_of_no_people_is_told_of_once(made_up: MakeUp, caplog: pytest.LogCaptureFixture) -> None:
    edge = made_up()
    person = PersonWindow(1, 0.0, {m: Rows.empty(spec.width) for m, spec in edge.features.items()}, ())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            edge.stream.window(replace(edge.hop(), people=[person]), edge.now_s)
            edge.answered("a", people="1")
        assert not caplog.records
        for _ in range(3):
            edge.stream.window(replace(edge.hop(), people=[person]), edge.now_s)
            edge.answered("a")
    assert [one.getMessage() for one in caplog.records] == [
        "hall: server a is of an older version and estimates no people; update it"
    ]


def told(edge: Any, window: int, **others: str) -> dict[str, str]:
    return {"server": "a", "session": edge.stream.incarnation, "window": str(window), **others}


def test_estimates_of_people_are_handed_out_with_that_of_their_stream(made_up: MakeUp) -> None:
    edge = made_up()
    for _ in range(3):
        edge.window()
        edge.answered("a") if edge.stream.server is None else None
    for window, payload in ((2, b"lost"), (3, b"one"), (3, b"two"), (9, b"of nobody")):
        edge.stream.on_person(told(edge, window), payload)
    edge.stream.on_person({**told(edge, 3), "session": "another"}, b"of another life")
    edge.stream.on_person({}, b"without properties")
    assert edge.stream.people_of(told(edge, 3)) == [b"one", b"two"]
    assert edge.stream.people_of(told(edge, 3)) == ()
    for n in range(40):
        edge.stream.on_person(told(edge, 3), b"%d" % n)
    assert len(edge.stream.people_of(told(edge, 3))) == 16
