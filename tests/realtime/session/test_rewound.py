"""Rewound windows are those that were cut live, whatever the order in which the threads' records reached the file."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmd.checkpoint import Checkpoint
from dhmd.contract import ContractMismatch, FeatureSpec, Rows, Word
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.session import Session, SessionInvalid, schema
from realtime.perception.attention import WHOLE, Attention
from realtime.perception.transcript import TranscriptUpdate
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.perception.words import SpokenWords
from realtime.recognition.engine import Inference, Sentiment
from realtime.session import messages
from realtime.session import rewound as module
from realtime.session.rewound import SETTLED_S, Agreement, Moment, Rewound
from realtime.session.writer import SessionWriter

CPU = torch.device("cpu")
WIDTH = 2
SPECS = {
    Modality.TEXT: FeatureSpec(Modality.TEXT, "test", "1", WIDTH, None, 4, 2.0, 2.0),
    Modality.VISION: FeatureSpec(Modality.VISION, "test", "1", WIDTH, 5.0, 10, 2.0, 0.5),
    Modality.AUDIO: FeatureSpec(Modality.AUDIO, "test", "1", WIDTH, 2.5, 5, 2.0, 1.0),
}
CHECKPOINT = cast("Checkpoint", SimpleNamespace(features=SPECS, languages=("en",), encoder=lambda _: Path()))


class Spelling:
    """In place of the text encoder: a row a word, of its letters."""

    spec = SPECS[Modality.TEXT]

    def __init__(self, *_: object) -> None: ...

    def extract(self, words: Sequence[Word]) -> Rows:
        letters = [[len(word.text), sum(map(ord, word.text)) % 97] for word in words]
        return Rows(np.array([word.end_s for word in words]), np.array(letters, np.float32).reshape(-1, WIDTH))

    def extract_many(self, each: Sequence[Sequence[Word]]) -> list[Rows]:
        return [self.extract(words) for words in each]


@pytest.fixture(autouse=True)
def _spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TextExtractor", Spelling)


def head(specs: Mapping[Modality, FeatureSpec] = SPECS) -> dict[str, str]:
    return {
        "version": "1", "epoch_unix": "1700000000.0", "stream": "hall", "hop_s": "0.1", "timed": "true",
        "model": "test", "checkpoint": "0123456789ab", "settings": "{}",
        "features": json.dumps([specs[m].to_dict() for m in Modality]),
    }  # fmt: skip


@dataclass
class LiveRun:
    """A window under way, as perception fills it: each of three threads tells what it did, and the engine cuts."""

    window: SlidingWindow = field(default_factory=lambda: SlidingWindow(SPECS, CPU))
    words: SpokenWords = field(default_factory=SpokenWords)
    now_s: float = 0.0
    revision_of_words: int = 0
    final_s: float = 0.0
    newest_s: dict[Modality, float] = field(default_factory=dict)
    told: list[tuple[str, float, Any]] = field(default_factory=list)
    """(topic, when it was told, message)."""
    cuts: list[WindowCut] = field(default_factory=list)

    def rows(self, m: Modality, number: int, count: int, late_s: float) -> None:
        first_s = max(self.now_s - late_s, self.newest_s.get(m, 0.0))
        self.newest_s[m] = first_s + (count - 1) / 50
        values = np.random.default_rng(number).normal(size=(count, WIDTH)).astype(np.float32)
        rows = Rows(first_s + np.arange(count) / 50, values).halved()
        revision = self.window.append(m, rows)
        self.tell(schema.FEATURES[m], lambda when: messages.features(rows, revision, when))

    def speak(self, final: int, partial: int, number: int, late_s: float) -> None:
        start_s = max(self.now_s - late_s, self.final_s)
        spoken = [Word(f"w{number}{'x' * i}", start_s + i / 9, start_s + (i + 1) / 9) for i in range(final + partial)]
        update = TranscriptUpdate(tuple(spoken[:final]), tuple(spoken[final:]), 0.0)
        self.final_s = max([self.final_s, *(word.end_s for word in update.final)])
        words = self.words.update(update.final, update.partial, self.window.window_s)
        self.revision_of_words = self.window.replace(Modality.TEXT, Spelling().extract(words))
        revision = self.revision_of_words
        self.tell(schema.WORDS, lambda when: messages.words(update, revision, when))

    def cut(self, attention: Attention = WHOLE) -> None:
        cut = self.window.cut(self.now_s, attention)
        self.cuts.append(cut)
        states = {m.value: {"as_of_s": as_of_s} for m, as_of_s in attention.as_of_s.items()}
        message = schema.Estimate(revision=cut.revision, end_s=cut.end_s, modalities=states)
        self.tell(schema.ESTIMATE, lambda _: message)

    def tell(self, topic: str, build: Any) -> None:
        self.told.append((topic, self.now_s, build))

    def write(self, path: Path, delays_s: Sequence[float]) -> None:
        """Each record as much later in the file as if its thread had waited so long; each thread keeps its order."""
        keyed: list[tuple[float, int]] = []
        newest: dict[str, float] = {}
        for i, (topic, at_s, _) in enumerate(self.told):
            delay_s = 0.0 if topic == schema.ESTIMATE else delays_s[i % len(delays_s)]
            newest[topic] = max(newest.get(topic, 0.0), at_s + delay_s)
            keyed.append((newest[topic], i))
        with path.open("wb") as file:
            writer = SessionWriter(file, 1_700_000_000.0, head())
            for _, i in sorted(keyed):
                topic, at_s, build = self.told[i]
                writer.add(topic, at_s, at_s, build)
            writer.end_chunk()
            writer.finish()


def rewound(path: Path) -> list[Moment]:
    return list(Rewound(Session.open(path), CHECKPOINT, CPU))


def assert_same(moments: Sequence[Moment], cuts: Sequence[WindowCut]) -> None:
    assert len(moments) == len(cuts)
    for moment, cut in zip(moments, cuts, strict=True):
        assert moment.cut.end_s == cut.end_s
        assert moment.cut.present == cut.present
        assert moment.cut.newest_s == cut.newest_s
        for m in Modality:
            assert torch.equal(moment.cut.masks[m], cut.masks[m])
            assert torch.equal(moment.cut.inputs[m], cut.inputs[m])


seen_or_heard = st.tuples(st.sampled_from(list(schema.FEATURES)), st.integers(1, 4), st.floats(0, 0.4))
spoken = st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1.5))
steps = st.lists(st.tuples(st.floats(0.001, 0.3), st.one_of(seen_or_heard, spoken, st.none())), min_size=1, max_size=60)
delays = st.lists(st.floats(0, SETTLED_S - 0.01), min_size=1, max_size=9)


@settings(max_examples=80, deadline=None)
@given(steps=steps, delays_s=delays)
def test_every_window_is_cut_again(tmp_path_factory: pytest.TempPathFactory, steps: Any, delays_s: list[float]) -> None:
    live = LiveRun()
    for number, (passed_s, what) in enumerate(steps):
        live.now_s += passed_s
        if what is None:
            live.cut()
        elif isinstance(what[0], Modality):
            live.rows(what[0], number, what[1], what[2])
        else:
            live.speak(what[0], what[1], number, what[2])
    live.cut()
    path = tmp_path_factory.getbasetemp() / "every.mcap"
    live.write(path, delays_s)
    assert_same(rewound(path), live.cuts)


def test_what_was_looked_at_late_stands_for_now_again(tmp_path: Path) -> None:
    live = LiveRun(now_s=1.0)
    live.rows(Modality.VISION, 1, 2, 0.1)
    for attention in (WHOLE, Attention({Modality.VISION: 1.1})):
        live.now_s = 1.0 + 1.2 * SPECS[Modality.VISION].absent_after_s
        live.cut(attention)
    live.write(tmp_path / "late.mcap", [0.0])
    moments = rewound(tmp_path / "late.mcap")
    assert_same(moments, live.cuts)
    assert [bool(moment.cut.present) for moment in moments] == [False, True]


def test_rows_that_stand_after_the_estimate_that_saw_them(tmp_path: Path) -> None:
    """And those that stand before one that did not."""
    path = tmp_path / "session.mcap"
    live = LiveRun(now_s=1.0)
    live.rows(Modality.VISION, 1, 2, 0.1)
    live.cut()
    live.now_s = 1.3
    live.rows(Modality.VISION, 2, 1, 0.0)
    live.speak(1, 1, 3, 0.5)
    live.cut()
    order = [1, 3, 4, 2, 0]  # the first estimate, what followed it, and what it saw
    with path.open("wb") as file:
        writer = SessionWriter(file, 1_700_000_000.0, head())
        for i in order:
            topic, at_s, build = live.told[i]
            writer.add(topic, at_s, at_s, build)
        writer.end_chunk()
    moments = rewound(path)
    assert_same(moments, live.cuts)
    assert [int(moment.cut.masks[Modality.VISION].sum()) for moment in moments] == [1, 3]
    assert [Modality.TEXT in moment.cut.present for moment in moments] == [False, True]


def test_the_order_does_not_change_what_a_longer_session_says(tmp_path: Path) -> None:
    """Half a minute at the real rates, and a session need not be held in memory to be rewound."""
    chance = random.Random(3)
    live = LiveRun()
    for tick in range(300):
        live.now_s = tick / 10
        live.rows(Modality.VISION, tick, 2, 0.05)
        if tick % 4 == 0:
            live.rows(Modality.AUDIO, 1000 + tick, 1, 0.1)
        if tick % 6 == 0:
            live.speak(tick % 12 == 0, 2, tick, 0.8)
        live.cut()
    path = tmp_path / "session.mcap"
    live.write(path, [chance.uniform(0, 1.9) for _ in range(50)])
    source = iter(Rewound(Session.open(path), CHECKPOINT, CPU))
    assert_same(list(source), live.cuts)


def test_what_the_recorder_left_out_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    live = LiveRun(now_s=1.0)
    live.rows(Modality.VISION, 1, 2, 0.1)
    live.cut()
    for topic, count in ((schema.FACE, 3), (schema.VIDEO, 1), (schema.FACE, 4)):
        live.tell(schema.LOST, lambda when, t=topic, n=count: messages.lost(t, n, when))
    live.write(path, [0.0])
    again = Rewound(Session.open(path), CHECKPOINT, CPU)
    assert_same(list(again), live.cuts)
    assert again.lost == {schema.FACE: 7, schema.VIDEO: 1}


def test_features_of_another_contract_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    other = {**SPECS, Modality.AUDIO: dataclasses.replace(SPECS[Modality.AUDIO], version="2")}
    with path.open("wb") as file:
        SessionWriter(file, 1_700_000_000.0, head(other)).finish()
    with pytest.raises(ContractMismatch, match=r"audio: .*version: checkpoint '1', extractor '2'"):
        Rewound(Session.open(path), CHECKPOINT, CPU)


@pytest.mark.parametrize(
    ("values", "times_s", "line"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], [1.0, 0.5], "not in the order of their times"),
        ([[float("nan"), 2.0]], [1.0], "holds NaN or infinity"),
        ([[1.0, 2.0, 3.0]], [1.0], r"expected rows \(1, 2\), got \(1, 3\)"),
        ([[1.0, 2.0]], [float("inf")], "a message of /features/vision cannot be read"),
    ],
)
def test_rows_that_no_run_makes_are_named(
    tmp_path: Path, values: list[list[float]], times_s: list[float], line: str
) -> None:
    path = tmp_path / "session.mcap"
    live = LiveRun(now_s=1.0)
    rows = Rows(np.array(times_s), np.array(values, np.float32))
    live.tell(schema.FEATURES[Modality.VISION], lambda when: messages.features(rows, 1, when))
    live.cuts.append(live.window.cut(1.0))
    live.tell(schema.ESTIMATE, lambda _: schema.Estimate(revision=1, end_s=1.0))
    live.write(path, [0.0])
    with pytest.raises(SessionInvalid, match=f"damaged, .*{line}"):
        rewound(path)


def an_inference(**changes: Any) -> Inference:
    alone = {Modality.VISION: 0.5, Modality.TEXT: -0.5}
    usual: dict[str, Any] = {
        "sentiment": Sentiment(1.0, 0.5, 1.5), "emotions": (0.4,) + (0.1,) * (len(EMOTIONS) - 1),
        "modality_sentiment": alone, "homo_edges": (0.2,) * len(EDGES), "hetero_edges": (0.1,) * len(EDGES),
        "weights": {}, "inference_ms": 1.0,
    }  # fmt: skip
    return Inference(**{**usual, **changes})


PRESENT = frozenset({Modality.VISION, Modality.TEXT})


def compare(
    recorded: Inference | None, replayed: Inference | None, present: frozenset[Modality] = PRESENT
) -> Agreement:
    message = schema.Estimate(end_s=1.0)
    for m in PRESENT if recorded else ():
        getattr(message.modalities, m.value).present = True
        getattr(message.modalities, m.value).sentiment = recorded.modality_sentiment[m]
    if recorded is not None:
        message.sentiment.value = recorded.sentiment.value
        for name, value in zip(EMOTIONS, recorded.emotions, strict=True):
            setattr(message.emotions, name, value)
        for graph, edges in ((message.homo, recorded.homo_edges), (message.hetero, recorded.hetero_edges)):
            for edge, weight in zip(EDGES, edges, strict=True):
                setattr(graph, f"{edge.source}_to_{edge.target}", weight)
    agreement = Agreement()
    agreement.add(message, dataclasses.replace(SlidingWindow(SPECS, CPU).cut(1.0), present=present), replayed)
    return agreement


def test_the_same_agrees() -> None:
    assert compare(an_inference(), an_inference()).holds
    assert compare(None, None, frozenset()).holds


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"sentiment": Sentiment(1.0001, 0.5, 1.5)}, "sentiment"),
        ({"emotions": (0.3999, 0.1001) + (0.1,) * (len(EMOTIONS) - 2)}, "emotions"),
        ({"modality_sentiment": {Modality.VISION: 0.5, Modality.TEXT: -0.49}}, "sentiment of one modality"),
        ({"homo_edges": (0.21,) + (0.2,) * (len(EDGES) - 1)}, "edges"),
        ({"hetero_edges": (0.1,) * (len(EDGES) - 1) + (0.2,)}, "edges"),
        ({"sentiment": Sentiment(float("nan"), 0.5, 1.5)}, "sentiment"),
        ({"emotions": (0.4,) + (0.1,) * (len(EMOTIONS) - 2) + (float("nan"),)}, "emotions"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], name: str) -> None:
    for one, other in ((an_inference(), an_inference(**change)), (an_inference(**change), an_inference())):
        agreement = compare(one, other)
        assert not agreement.holds
        assert [k for k, v in agreement.largest.items() if not v <= 1e-5] == [name]


def test_a_difference_is_not_forgotten_over_what_follows() -> None:
    for other in (float("nan"), 0.0):
        agreement = compare(an_inference(), an_inference(sentiment=Sentiment(other, 0.5, 1.5)))
        message = schema.Estimate()
        for name in EMOTIONS:
            setattr(message.emotions, name, 0.0)
        agreement.add(message, SlidingWindow(SPECS, CPU).cut(1.0), messages.inference_of(message))
        assert agreement.estimates == 2
        assert not agreement.holds


@pytest.mark.parametrize(
    ("recorded", "replayed", "present"),
    [
        (an_inference(), None, frozenset()),
        (None, an_inference(), PRESENT),
        (an_inference(), an_inference(), frozenset()),
    ],
)
def test_who_is_perceived_must_agree(
    recorded: Inference | None, replayed: Inference | None, present: frozenset[Modality]
) -> None:
    agreement = compare(recorded, replayed, present)
    assert agreement.absent == 1
    assert not agreement.holds
