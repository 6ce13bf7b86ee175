"""A server's windows are those of the edge, or it asks; never a guess."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from dhmd.contract import FeatureSpec
from dhmd.influence import influence
from dhmd.modality import Modality
from realtime.perception.window import SlidingWindow
from realtime.recognition.steadied import Hysteresis
from realtime.recognition.steadiness import Steadiness
from realtime.scale import served
from realtime.scale.served import Estimator, ServedStreams
from realtime.scale.window_message import WindowMessage

MakeUp = Callable[..., Any]


@pytest.fixture
def streams(features: Mapping[Modality, FeatureSpec]) -> ServedStreams:
    return ServedStreams("a", features)


def send(edge: Any, streams: ServedStreams) -> Any:
    message = edge.window()
    edge.answered("a")
    return streams.receive(*message)


def test_a_window_is_that_of_the_edge(
    made_up: MakeUp, streams: ServedStreams, features: Mapping[Modality, FeatureSpec]
) -> None:
    edge = made_up()
    own = SlidingWindow(features, torch.device("cpu"))
    for _ in range(12):
        send(edge, streams)
        for modality, rows in edge.entered:
            (own.replace if modality is Modality.TEXT else own.append)(modality, rows)
        edge.entered.clear()
        (request,) = streams.take(10)
        cut, expected = request.state.window.cut(edge.end_s), own.cut(edge.end_s)
        assert (cut.present, cut.newest_s) == (expected.present, expected.newest_s)
        for m in Modality:
            assert torch.equal(cut.inputs[m], expected.inputs[m])
            assert torch.equal(cut.masks[m], expected.masks[m])


def test_a_gap_is_asked_about_and_nothing_is_estimated_until_it_is_closed(
    made_up: MakeUp, streams: ServedStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = made_up()
    send(edge, streams)
    streams.take(10)
    edge.window()  # is lost
    topic, payload = send(edge, streams)
    assert topic == "dhmd/hall/window/resync"
    assert json.loads(payload) == {"server": "a", "session": edge.stream.incarnation}
    assert send(edge, streams) is None, "asked not more than once a second"
    assert not streams.waiting
    edge.stream.on_resync(payload)
    assert send(edge, streams) is None
    assert send(edge, streams) is None
    assert len(streams.take(10)) == 1
    assert streams.counts["gaps"] == 2


def test_a_stream_of_another_life_and_an_unknown_one_are_asked_for_all(made_up: MakeUp, streams: ServedStreams) -> None:
    edge = made_up()
    edge.window()
    edge.answered("a")
    assert send(edge, streams)[0] == "dhmd/hall/window/resync"
    other = made_up()
    send(other, streams)
    assert send(edge, streams) is None
    assert streams.counts["gaps"] == 2


def test_a_lost_connection_takes_along_all_that_waits(made_up: MakeUp, streams: ServedStreams) -> None:
    opened, continued = made_up("opened"), made_up("continued")
    for edge in (opened, continued, continued):
        send(edge, streams)
    assert (len(streams), streams.waiting) == (2, 2)
    streams.clear()
    assert (len(streams), streams.waiting) == (0, 0)


def test_a_window_that_waits_gives_way_to_the_next_and_is_counted(made_up: MakeUp, streams: ServedStreams) -> None:
    one, other = made_up("one"), made_up("other")
    for edge in (one, other, one, one):
        send(edge, streams)
    requests = streams.take(10)
    assert [(request.stream, request.message.seq) for request in requests] == [("one", 3), ("other", 1)]
    assert streams.counts["overtaken"] == 2


def test_other_features_are_refused_by_name(made_up: MakeUp, streams: ServedStreams) -> None:
    edge = made_up()
    edge.log.specs = {**edge.features, Modality.AUDIO: replace(edge.features[Modality.AUDIO], version="9")}
    topic, payload = send(edge, streams)
    assert topic == "dhmd/hall/window/refused"
    reason = json.loads(payload)["reason"]
    own = edge.features[Modality.AUDIO].version
    assert reason == f"audio: the checkpoint was trained on other features (version: checkpoint {own!r}, extractor '9')"
    assert (len(streams), streams.counts["refused"]) == (0, 1)


def test_malformed_messages_are_counted_and_harm_no_other(made_up: MakeUp, streams: ServedStreams) -> None:
    edge, good = made_up("bad"), made_up("good")
    send(edge, streams)
    send(good, streams)
    topic, payload = edge.window()
    wrong = WindowMessage.decode(payload)
    backwards = {Modality.VISION: edge.rows(Modality.VISION, [0.5])}
    for junk in (
        b"junk",
        replace(wrong, previous=None, features=None).encode(),
        replace(wrong, previous=None, features={}).encode(),
        replace(wrong, rows=backwards).encode(),
    ):
        assert streams.receive(topic, junk) is None
    assert streams.counts["malformed"] == 4
    assert streams.receive(topic, payload)[0] == "dhmd/bad/window/resync", "half of it may have entered"
    assert send(good, streams) is None
    assert streams.waiting == 2


def test_a_server_takes_as_many_streams_as_it_may_and_forgets_those_that_are_silent(
    made_up: MakeUp, features: Mapping[Modality, FeatureSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = ServedStreams("a", features, most=2)
    edges = [made_up(f"s{n}") for n in range(3)]
    assert [send(edge, streams) for edge in edges[:2] * 2] == [None] * 4
    assert "2 streams already" in send(edges[2], streams)[1].decode()
    monkeypatch.setattr(served, "IDLE_S", -1.0)
    send(made_up("s3"), streams)
    assert len(streams) == 1


def test_streams_opened_without_end_take_no_place_of_those_that_go_on(
    made_up: MakeUp, features: Mapping[Modality, FeatureSpec]
) -> None:
    streams = ServedStreams("a", features, most=6)
    honest = [made_up(f"honest{n}") for n in range(4)]
    for edge in honest * 2:
        send(edge, streams)
    for n in range(50):
        send(made_up(f"fake{n}"), streams)
    assert len(streams) == 6
    assert streams.counts["evicted"] == 48
    for edge in honest:
        assert send(edge, streams) is None
    taken = [request.stream for request in streams.take(4)]
    assert taken == ["honest0", "honest1", "honest2", "fake48"]
    newcomer = made_up("newcomer")
    assert send(newcomer, streams) is None
    assert send(newcomer, streams) is None
    assert "newcomer" in [request.stream for request in streams.take(8)]


def test_a_window_that_waited_too_long_is_dropped_and_counted(
    made_up: MakeUp, streams: ServedStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge, other = made_up("one"), made_up("other")
    send(edge, streams)
    now_s = time.monotonic() + served.LATE_S + 1.0
    monkeypatch.setattr(served.time, "monotonic", lambda: now_s)
    send(other, streams)
    assert [request.stream for request in streams.take(10)] == ["other"]
    assert streams.counts["late"] == 1
    assert not streams.waiting


def test_an_estimate_tells_the_edges_times_and_words(
    made_up: MakeUp, streams: ServedStreams, estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = made_up()
    for _ in range(7):
        send(edge, streams)
    (request,) = streams.take(10)
    with monkeypatch.context() as patch:
        patch.setattr(served.time, "monotonic", lambda: request.arrived_s + 0.25)
        (e,) = estimator.answer([request])
    assert (e.stream, e.seq, e.t, e.faces) == ("hall", 7, 1_700_000_007.0, 1)
    assert e.window == (1_700_000_002.0, 1_700_000_007.0)
    assert e.transcript == "word2 word3 word4 word5 word6"
    assert (e.dropped.video, e.dropped.audio) == (2, 3)
    # Sent 50 ms after the newest row; the way, as measured, took half of 100 - 5 ms; we held it for 250.
    assert e.latency_ms.capture_to_estimate == pytest.approx(50 + 47.5 + 250, abs=1.0)


def test_a_stream_is_kept_still_as_its_edge_asks_also_when_it_is_opened_again(
    made_up: MakeUp, streams: ServedStreams, estimator: Estimator
) -> None:
    edge = made_up(steadiness=Steadiness(margin=0.5))
    told = []
    for turn in range(30):
        if turn % 10 == 9:
            edge.stream.reconnected()
        send(edge, streams)
        told += estimator.answer(streams.take(10))
    whole, anew = Hysteresis(0.5), Hysteresis(0.0)
    tops = [e.top for e in told]
    assert tops == [whole.top(tuple(e.emotions.values()), e.t) for e in told]
    assert tops != [anew.top(tuple(e.emotions.values()), e.t) for e in told]


def test_what_a_modality_has_to_do_with_it_is_measured_between_windows_and_told_with_the_next(
    made_up: MakeUp, streams: ServedStreams, estimator: Estimator
) -> None:
    edges = [made_up("one"), made_up("other")]
    told, measured = [], []
    for _ in range(3):
        for edge in edges:
            send(edge, streams)
        requests = streams.take(10)
        cuts = [request.state.window.cut(request.message.end_s, request.message.attention) for request in requests]
        told.append(estimator.answer(requests))
        while estimator.measure():
            pass
        measured.append(cuts)
    assert all(part.influence is None for e in told[0] for _, part in e.modalities)
    for before, estimates in zip(measured, told[1:], strict=False):
        for cut, estimate in zip(before, estimates, strict=True):
            whole = estimator._engine.infer(cut)
            for m in Modality:
                alone = estimator._engine.infer(replace(cut, present=frozenset({m})))
                without = estimator._engine.infer(replace(cut, present=cut.present - {m}))
                assert whole is not None
                assert alone is not None
                assert without is not None
                part = getattr(estimate.modalities, m)
                assert list(part.emotions.values()) == pytest.approx(alone.emotions, abs=1e-3)
                assert part.influence == pytest.approx(influence(whole.emotions, without.emotions), abs=1e-3)


def test_a_server_without_time_to_measure_tells_no_old_shares(
    made_up: MakeUp, streams: ServedStreams, estimator: Estimator
) -> None:
    edge = made_up()
    influences = []
    for hop in range(15):
        send(edge, streams)
        (e,) = estimator.answer(streams.take(10))
        influences.append(e.modalities.vision.influence)
        while hop == 0 and estimator.measure():
            pass
    assert influences[0] is None
    assert None not in influences[1:13]
    assert influences[13:] == [None, None]
