"""Recordings that begin in mid-run: the windows are the same from the first estimate on, and time is theirs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmd.checkpoint import Checkpoint, load
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.features.several import Overlaps
from dhmd.modality import Modality
from dhmd.session import Session, schema
from dhmd.session.reader import words_of
from realtime.capture.media import MediaFile
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.clock import MediaClock
from realtime.demo import CLIP
from realtime.messages.estimate import Dropped
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perceived, Perception
from realtime.perception.transcript import TranscriptUpdate
from realtime.perception.window import WindowCut
from realtime.pipeline.offline import run_offline
from realtime.pipeline.pipeline import Emission, Pipeline
from realtime.recognition.engine import Engine
from realtime.session import rewound as module
from realtime.session.export.write import export
from realtime.session.info import read_info
from realtime.session.marking import Marking
from realtime.session.recorder import Recorder, describe
from realtime.session.rewound import Rewound
from realtime.session.timeline import Timeline
from training.data.recorded import RecordedFeatures

CPU = torch.device("cpu")
WIDTH = 2
SPECS = {
    Modality.TEXT: FeatureSpec(Modality.TEXT, "test", "1", WIDTH, None, 4, 2.0, 2.0),
    Modality.VISION: FeatureSpec(Modality.VISION, "test", "1", WIDTH, 5.0, 10, 2.0, 0.5),
    Modality.AUDIO: FeatureSpec(Modality.AUDIO, "test", "1", WIDTH, 2.5, 5, 2.0, 1.0),
}
EPOCH_UNIX = 1_700_000_000.0


class Spelling:
    """In place of the text encoder: a row a word, of its letters and of all words read with it."""

    spec = SPECS[Modality.TEXT]

    def __init__(self, *_: object) -> None: ...

    def reads(self, _: Word) -> bool:
        return True

    def extract(self, words: Sequence[Word]) -> Rows:
        assert words
        all_ = sum(map(ord, "".join(word.text for word in words))) % 1009
        values = [[sum(map(ord, word.text)) % 97, all_] for word in words]
        return Rows(np.array([word.end_s for word in words]), np.array(values, np.float32))

    def extract_many(self, each: Sequence[Sequence[Word]]) -> list[Rows]:
        return [self.extract(words) if words else Rows.empty(WIDTH) for words in each]


class Told:
    """Extractors that make what they are told to."""

    def __init__(self) -> None:
        self.rows, self.update = Rows.empty(WIDTH), TranscriptUpdate((), (), 0.0)
        self.specs, self.text = SPECS, Spelling()
        self.lips = None
        self.face = SimpleNamespace(spec=SPECS[Modality.VISION])
        self.voice = SimpleNamespace(push=lambda *_: self.rows, overlaps=Overlaps())
        self.transcript = SimpleNamespace(finish=lambda *_: self.update)


class Run:
    """Perception that is told what to perceive, and a recorder that joins it."""

    def __init__(self, path: Path) -> None:
        self.told, self.clock = Told(), MediaClock(EPOCH_UNIX)
        self.perception = Perception(cast("StreamExtractors", self.told), CPU)
        self.file = path.open("wb")
        self.recorder: Recorder | None = None
        self.cuts: list[WindowCut] = []
        self.final_s = 0.0
        self.newest_s = dict.fromkeys(Modality, 0.0)

    def rows(self, m: Modality, number: int, count: int) -> None:
        first_s = max(self.newest_s[m], self.clock.now() - 0.2)
        self.newest_s[m] = first_s + (count - 1) / 20
        values = np.random.default_rng(number).normal(size=(count, WIDTH)).astype(np.float32)
        self.told.rows = Rows(first_s + np.arange(count) / 20, values)
        self.perception._append(m, self.told.rows)

    def speak(self, number: int, final: int, partial: int, late_s: float) -> None:
        start_s = max(self.final_s, self.clock.now() - late_s)
        said = [Word(f"w{number}{'x' * i}", start_s + i / 5, start_s + (i + 1) / 5) for i in range(final + partial)]
        self.told.update = TranscriptUpdate(tuple(said[:final]), tuple(said[final:]), 0.0)
        self.final_s = max([self.final_s, *(word.end_s for word in said[:final])])
        self.perception.finish()

    def join(self) -> None:
        head = {
            "stream": "hall", "hop_s": "0.1", "timed": "true", "model": "base", "checkpoint": "0123456789ab",
            "settings": "{}", "features": json.dumps([SPECS[m].to_dict() for m in Modality]),
        }  # fmt: skip
        now_s = self.clock.now()
        self.recorder = Recorder(self.file, self.clock, head, patient=True, start_s=now_s)
        self.recorder.start()
        self.recorder.from_revision = self.perception.join(self.recorder, now_s)

    def estimate(self) -> None:
        cut = self.perception.perceive(self.clock.now()).cut
        if self.recorder is not None:
            self.cuts.append(cut)
            self.recorder.on_estimate(emission(cut))

    def close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
        self.file.close()


def emission(cut: WindowCut) -> Emission:
    """Of a window in which nothing is recognised."""
    latency = SimpleNamespace(capture_to_estimate=None, inference=None)
    told = SimpleNamespace(
        seq=1,
        faces=0,
        transcript="",
        overlapped=None,
        latency_ms=latency,
        dropped=Dropped(video=0, audio=0),
        top=None,
        person=None,
        silent=None,
    )
    return Emission(cast("Any", told), Perceived(cut, 0, ()), None, None, timed=False)


happened = st.one_of(
    st.tuples(st.sampled_from(list(schema.FEATURES)), st.integers(1, 6)),
    st.tuples(st.just("words"), st.integers(0, 2), st.integers(0, 2), st.floats(0, 4)),
    st.tuples(st.just("pass"), st.sampled_from([0.1, 0.1, 0.4, 2.5])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(happened, max_size=40), st.lists(happened, max_size=40))
def test_whenever_it_joins_the_windows_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, before: list[Any], after: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("joined") / "session.mcap"
    run = Run(path)
    run.clock.advance(340.0)
    for number, (what, *rest) in enumerate([*before, ("join",), *after]):
        if what == "join":
            run.join()
        elif what == "pass":
            run.clock.advance(run.clock.now() + rest[0])
        elif what == "words":
            run.speak(number, *rest)
        else:
            run.rows(what, number, *rest)
        run.estimate()
    run.close()
    checkpoint = cast("Checkpoint", SimpleNamespace(features=SPECS, languages=("en",), encoder=lambda _: Path()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TextExtractor", Spelling)
        moments = list(Rewound(Session.open(path), checkpoint, CPU))
    assert len(moments) == len(run.cuts)
    for moment, cut in zip(moments, run.cuts, strict=True):
        assert moment.cut.end_s == cut.end_s
        assert moment.cut.present == cut.present
        for m in Modality:
            assert torch.equal(moment.cut.masks[m], cut.masks[m])
            assert torch.equal(moment.cut.inputs[m], cut.inputs[m])


def test_an_estimate_of_before_is_left_out(tmp_path: Path) -> None:
    """It was under way as the recording began, cut from a window of which the file does not tell."""
    path = tmp_path / "session.mcap"
    run = Run(path)
    run.clock.advance(340.0)
    run.rows(Modality.VISION, 1, 3)
    under_way = emission(run.perception.perceive(340.0).cut)
    early = emission(run.perception.perceive(339.9).cut)
    run.rows(Modality.VISION, 2, 3)
    run.join()
    assert run.recorder is not None
    run.recorder.on_estimate(under_way)
    run.recorder.on_estimate(early)
    run.estimate()
    run.close()
    assert [r.message.revision for r in Session.open(path).records({schema.ESTIMATE})] == [2]


def test_who_left_is_told_nothing(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    run = Run(path)
    run.rows(Modality.VISION, 1, 3)
    run.join()
    assert run.recorder is not None
    run.perception.leave(run.recorder)
    run.rows(Modality.VISION, 2, 3)
    run.close()
    assert [r.message.revision for r in Session.open(path).records(set(schema.FEATURES.values()))] == [1]


LATE_S, JOINED_S, LEFT_S = 340.0, 346.0, 352.0


class Joins:
    """A sink that begins a recording in the middle of a run and ends it there, and keeps the windows."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline = pipeline
        self.path = folder / "joined.mcap"
        self.cuts: list[WindowCut] = []
        self.recorder: Recorder | None = None
        self.left = False

    def on_estimate(self, emission: Emission) -> None:
        now_s = self.pipeline.clock.now()
        if self.recorder is None and now_s >= JOINED_S:
            checkpoint = self.pipeline.engine.checkpoint
            head = describe(checkpoint, stream="hall", hop_s=0.1, timed=False, settings={"checkpoint": "base"})
            self.file = self.path.open("wb")
            self.recorder = Recorder(
                self.file, self.pipeline.clock, head, patient=True, start_s=now_s, video=True, sound=True
            )
            self.recorder.start()
            self.recorder.from_revision = self.pipeline.perception.join(self.recorder, now_s)
        if self.recorder is not None and not self.left:
            self.cuts.append(emission.perceived.cut)
            self.recorder.on_estimate(emission)
            if now_s >= LEFT_S:
                marking = Marking(self.recorder, self.pipeline.clock, 5.0, lambda _: None)
                marking.press("2")
                self.pipeline.perception.leave(self.recorder)
                self.left = True

    def close(self) -> None:
        assert self.recorder is not None
        self.recorder.close()
        self.file.close()


def late_samples() -> Iterator[VideoFrame | AudioBlock]:
    """The demo clip, in a run that is under way for long."""
    for sample in MediaFile(str(CLIP)).samples():
        late = {"captured_s": sample.captured_s + LATE_S, "arrived_s": sample.arrived_s + LATE_S}
        yield dataclasses.replace(sample, **late)


@pytest.fixture(scope="module")
def joins(tmp_path_factory: pytest.TempPathFactory) -> Joins:
    import asyncio

    checkpoint = load("base")
    clock = MediaClock(EPOCH_UNIX)
    none = Dropped(video=0, audio=0)

    async def nothing() -> None: ...

    with Perception(StreamExtractors.load(checkpoint), CPU) as perception:
        pipeline = Pipeline(perception, Engine(checkpoint, CPU), clock, "hall", lambda: none, timed=False)
        joins = Joins(pipeline, tmp_path_factory.mktemp("late"))
        pipeline.outputs.add(joins)
        asyncio.run(
            run_offline(
                pipeline, late_samples(), clock, hop_s=0.1, duration_s=13, stop=asyncio.Event(),
                delivered=nothing, start_s=LATE_S,
            )
        )  # fmt: skip
    joins.close()
    return joins


def test_real_media_joined_late_replay_exactly(joins: Joins, live: Callable[..., Any]) -> None:
    moments = list(Rewound(Session.open(joins.path), joins.pipeline.engine.checkpoint, CPU))
    assert len(moments) == len(joins.cuts) > 55
    assert joins.cuts[0].present >= {Modality.TEXT, Modality.VISION}
    for moment, cut in zip(moments, joins.cuts, strict=True):
        assert moment.cut.present == cut.present
        for m in Modality:
            assert torch.equal(moment.cut.masks[m], cut.masks[m])
            torch.testing.assert_close(moment.cut.inputs[m], cut.inputs[m], rtol=0, atol=1e-6)
    outcome = live("replay", joins.path, "--verify")
    assert outcome.code == 0, outcome
    assert "estimates of 6.0 s, " in outcome.out


def test_its_time_begins_with_it(joins: Joins) -> None:
    session = Session.open(joins.path)
    assert session.start_s == pytest.approx(JOINED_S)
    assert session.started_unix == pytest.approx(EPOCH_UNIX + JOINED_S)
    info = read_info(joins.path)
    assert info.length_s == pytest.approx(6.0, abs=0.11)
    assert info.started is not None
    assert pd.Timestamp(info.started).timestamp() == int(EPOCH_UNIX + JOINED_S)
    [mark] = info.marks
    assert (mark.start_s, mark.end_s) == (pytest.approx(1.0), pytest.approx(6.0))
    timeline = Timeline.read(session)
    assert timeline.t_s[0] == pytest.approx(0.0, abs=0.11)
    assert timeline.length_s == pytest.approx(6.0, abs=0.11)


def test_words_of_before_serve_the_windows_and_are_not_told(joins: Joins) -> None:
    session = Session.open(joins.path)
    first = next(session.records({schema.WORDS})).message
    before = [word for word in words_of(first.final) if word.end_s <= session.start_s]
    assert before
    assert all(word.end_s > session.start_s - 10 for word in before)
    timeline = Timeline.read(session)
    assert len(timeline.words) > 5
    assert all(0 <= word.start_s < word.end_s < 7 for word in timeline.words)
    recording = RecordedFeatures.read(joins.path)
    assert recording.rows[Modality.VISION].times_s[0] < 0 < recording.rows[Modality.VISION].times_s[-1] < 7
    assert [w.text for w in recording.spoken(0.0, 6.0)]


@pytest.mark.parametrize("to", ["csv", "parquet", "jsonl", "html", "srt", "xdf", "png", "emotionml"])
def test_exports_begin_with_it(joins: Joins, tmp_path: Path, to: str) -> None:
    path = export(joins.path, to, tmp_path / f"out.{to}")
    if to in {"csv", "parquet"}:
        table = pd.read_csv(path) if to == "csv" else pd.read_parquet(path)
        assert len(table) == len(joins.cuts)
        assert table["t_s"].between(0, 6.11).all()
        assert table["unix"].iloc[0] == pytest.approx(EPOCH_UNIX + JOINED_S, abs=0.11)
        assert table["face_age_s"].between(0, 0.6).all()
    elif to == "jsonl":
        assert json.loads(path.read_text().splitlines()[0])["t"] == pytest.approx(EPOCH_UNIX + JOINED_S, abs=0.11)
    elif to == "srt":
        assert path.read_text().splitlines()[1] < "00:00:07"
        assert "00:05:4" not in path.read_text()
    elif to == "html":
        assert ">5:46<" not in path.read_text()
        assert ">0:05<" in path.read_text() or ">0:02<" in path.read_text()
    elif to == "xdf":
        import pyxdf

        streams, _ = pyxdf.load_xdf(path)
        assert all(0 <= t < 7 for stream in streams for t in stream["time_stamps"])
    elif to == "emotionml":
        assert f'end="{round((EPOCH_UNIX + JOINED_S) * 1000)}"' in path.read_text()
    else:
        assert path.stat().st_size > 10_000


def test_a_replay_waits_for_no_time_before_it(
    joins: Joins, live: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from realtime.programs import replay as player

    due_s: list[float] = []

    async def until(at_s: float, _: Any) -> None:
        due_s.append(at_s - time.monotonic())

    monkeypatch.setattr(player, "_until", until)
    assert live("replay", joins.path, "--pace", "realtime").code == 0
    assert due_s[0] < 0.2
    assert max(due_s) < 6.2


def test_extracted_again_from_where_it_begins(joins: Joins, live: Callable[..., Any], tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    outcome = live("replay", joins.path, "--again", "--estimates", again)
    assert outcome.code == 0, outcome
    estimates = [json.loads(line) for line in again.read_text().splitlines()]
    assert abs(len(estimates) - len(joins.cuts)) <= 2
    assert estimates[0]["t"] == pytest.approx(EPOCH_UNIX + JOINED_S + 0.1, abs=0.11)
    assert any(one["modalities"]["vision"]["present"] for one in estimates)
    assert any(one["modalities"]["text"]["present"] for one in estimates)
