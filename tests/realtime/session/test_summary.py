"""A session in numbers, its report, and several sessions side by side."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lxml import etree

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from dhmd.session import Session, schema
from realtime.session.export.comparison import COLUMNS
from realtime.session.export.html import page
from realtime.session.export.write import compare
from realtime.session.summary import Summary, _means
from realtime.session.timeline import Timeline


def test_an_interval_is_as_wide_as_neighbours_are_alike() -> None:
    """Over many drawn series, the true mean lies in 19 of 20 intervals where rows are independent, and in nearly as
    many where each is like the one before; taken for independent, those intervals would hold it in two of three."""
    rng = np.random.default_rng(1)
    held = {"independent": 0, "alike": 0, "alike, taken for independent": 0}
    for _ in range(40):
        noise = rng.normal(size=(1500, 1))
        alike = np.zeros_like(noise)
        for i in range(1, len(noise)):
            alike[i] = 0.9 * alike[i - 1] + noise[i]
        for name, series, block in (
            ("independent", noise, 50),
            ("alike", alike, 50),
            ("alike, taken for independent", alike, 1),
        ):
            (mean,) = _means(series, block)
            held[name] += mean.low <= 0 <= mean.high
    assert held["independent"] >= 34
    assert held["alike"] >= 31
    assert held["alike, taken for independent"] <= 22


def test_a_short_session_has_no_interval_and_a_constant_one_no_width() -> None:
    (short,) = _means(np.ones((299, 1)), 50)
    assert short.value == 1
    assert np.isnan(short.low)
    (constant,) = _means(np.ones((300, 1)), 50)
    assert (constant.value, constant.low, constant.high) == (1, 1, 1)


def test_a_session_in_numbers(made_session: Session) -> None:
    """Six seconds that turn from happy to sad, half a second in which nobody is seen, and as much left out."""
    summary = Summary.of(Timeline.read(made_session))
    assert summary.estimated == pytest.approx(50 / 55)
    assert sum(mean.value for mean in summary.on_top.values()) == pytest.approx(1)
    tops = [name for name in summary.timeline.top if name]
    assert summary.on_top["sad"].value == pytest.approx(tops.count("sad") / len(tops))
    assert [(e.emotion, round(e.start_s, 2), round(e.end_s, 2)) for e in summary.episodes] == [
        ("happy", 0.0, 2.0),
        ("sad", 3.5, 6.0),
    ]
    assert [channel.name for channel in summary.heard_of] == ["face", "words"]
    (face, voice, words) = summary.channels
    assert (face.present, voice.present) == (pytest.approx(50 / 55), 0)
    assert words.says is None
    assert summary.events[0] == (pytest.approx(0.1), "a face appears")


def told(session: Session) -> str:
    return "".join(etree.fromstring(page(Timeline.read(session)).partition("\n")[2].encode()).itertext())


def test_the_report_tells_who_when_from_what_and_how(make: Any, estimate: Any) -> None:
    settings = {"source": "camera:0", "participant": "P07", "notes": "second <interview>", "margin": 0.2}
    session = make(settings=json.dumps(settings))
    for i in range(40):
        message = estimate(i, 0.1 * i + 0.1)
        for m in Modality:
            state = getattr(message.modalities, m.value)
            state.present = m is Modality.VISION
            if m is Modality.VISION:
                state.influence = 1.0
                state.emotions.happy = 0.9
            else:
                state.late = m is Modality.AUDIO
        session.add(schema.ESTIMATE, 0.1 * i, message)
    session.finish()
    text = told(Session.open(session.path))
    assert "Read from the face alone: no voice and no words in this session." in text
    assert "who teaches whom" not in text
    for what in ("participantP07", "notessecond <interview>", "filemade.mcap", "UTC", "voice0 %100 %"):
        assert what in text, what
    assert "led it by a probability of 0.2" in text
    assert "checkpoint base (0123456789ab)" in text
    assert "Decoupled Hierarchical Multimodal Distillation" in text


def test_the_report_shows_influence_and_where_it_lay(recorded: Path) -> None:
    summary = Summary.of(Timeline.read(Session.open(recorded)))
    assert all(0 <= channel.influence <= 1 for channel in summary.heard_of)
    text = told(Session.open(recorded))
    assert "mean influence" in text
    assert "how far each moves the answer" in text


def test_sessions_side_by_side(make: Any, estimate: Any, hostile: str, live: Any, tmp_path: Path) -> None:
    paths = []
    for name, perceived in (("a & b", True), ("nobody", False)):
        session = make(f"{name}.mcap", settings=json.dumps({"participant": hostile}))
        for i in range(400):
            session.add(schema.ESTIMATE, 0.1 * i, estimate(i, 0.1 * i + 0.1, perceived=perceived))
        paths.append(session.finish())
    (tmp_path / "a & b.html").write_text("its report")
    outcome = live("export", *paths, "--to", "html")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'sessions.html'}\n"), outcome.err
    text = (tmp_path / "sessions.html").read_text()
    root = etree.fromstring(text.removeprefix("<!DOCTYPE html>\n").encode())
    assert "<script" not in text
    assert [(a.get("href"), a.text) for a in root.iter("a")] == [("a%20%26%20b.html", "a & b")]
    shown = "".join(root.itertext())
    assert "nobody was seen or heard" in shown
    with compare(paths, "csv", tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    first, second = rows
    assert float(first["answered"]) == 1
    assert sum(float(first[f"{name}_time"]) for name in EMOTIONS) == pytest.approx(1, abs=1e-3)
    assert float(first["sentiment_low"]) < float(first["sentiment"]) < float(first["sentiment_high"])
    assert (second["answered"], second["sentiment"], second["top"]) == ("0.0000", "", "")
    page_of_docs = (Path(__file__).parents[3] / "docs" / "sessions.md").read_text()
    for column in COLUMNS:
        base = column.removesuffix("_low").removesuffix("_high")
        base = base if base not in EMOTIONS else "happy"
        base = f"happy_{base.rpartition('_')[2]}" if base.endswith("_time") else base
        base = f"face_{base.rpartition('_')[2]}" if base.startswith(("voice_", "words_")) else base
        assert f"`{base}`" in page_of_docs, column


def test_several_sessions_become_a_page_or_a_table_alone(made: Any, refuse: Any) -> None:
    assert refuse(2, "export", made.path, made.path, "--to", "srt").startswith("--to srt: several sessions become one")


def test_who_is_recorded_belongs_to_a_recording(refuse: Any) -> None:
    line = refuse(2, "run", "--source", "camera:0", "--participant", "P07")
    assert line == "--participant and --notes belong to a recording; name its file with --record"
