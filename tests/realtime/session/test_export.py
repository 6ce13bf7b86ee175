"""Sessions in other formats, read back by the programs that read those formats."""

from __future__ import annotations

import builtins
import csv
import itertools
import json
import math
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pyxdf
from lxml import etree
from PIL import Image, ImageColor

from dhmd.labels import CHANNELS, EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.session import Session, schema
from dhmd.untrusted import read_json_object
from realtime import languages
from realtime.messages.estimate import Estimate, ExtraClasses, ExtraNumber
from realtime.session.export.formats import FORMATS
from realtime.session.export.html import page
from realtime.session.export.look import COLOURS, MOST, Drawn, clock, signed, ticks
from realtime.session.export.table import columns
from realtime.session.export.write import export
from realtime.session.sentences import sentences
from realtime.session.timeline import Timeline

EMOTIONML = "{http://www.w3.org/2009/10/emotionml}"
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def published(recorded: Path) -> list[dict[str, Any]]:
    lines = recorded.with_name("published.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def timeline(recorded: Path) -> Timeline:
    return Timeline.read(Session.open(recorded))


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Leaves of a JSON value by their path."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {leaf: x for key, part in pairs for leaf, x in flat(part, f"{name}/{key}").items()}
    return {name: value}


def close(value: Any) -> Any:
    """Numbers were recorded in single precision, and rounded to four digits after."""
    return pytest.approx(value, abs=1.1e-4) if isinstance(value, float) else value


def texts_of(markup: str) -> set[str]:
    """What a page gives to be read: its texts, titles and labels."""
    root = etree.fromstring(markup.removeprefix("<!DOCTYPE html>\n").encode())
    written = {text.strip() for element in root.iter() for text in (element.text, element.tail) if text}
    return written | {label for element in root.iter() if (label := element.get("aria-label"))}


def test_a_report_is_written_in_german_if_asked(recorded: Path, tmp_path: Path) -> None:
    text = export(recorded, "html", tmp_path / "r.html", language="de").read_text()
    assert text.startswith('<!DOCTYPE html>\n<html lang="de">')
    texts = read_json_object(languages.FILES / "de.json")
    assert "Was gesagt wurde" in texts_of(text)
    assert not {english for english, german in texts.items() if english != german and "{" not in english} & texts_of(
        text
    )
    english = export(recorded, "html", tmp_path / "e.html").read_text()
    assert "What was said" in texts_of(english)
    assert not {german for english, german in texts.items() if english != german} & texts_of(english)


def test_jsonl_holds_the_estimates_as_they_were_published(
    recorded: Path, published: list[dict[str, Any]], tmp_path: Path
) -> None:
    lines = export(recorded, "jsonl", tmp_path / "estimates.jsonl").read_text().splitlines()
    assert len(lines) == len(published) > 50
    for line, before in zip(lines, published, strict=True):
        Estimate.model_validate_json(line)
        assert {k: close(v) for k, v in flat(before).items()} == flat(json.loads(line))


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_pandas_reads_the_table(to: str, recorded: Path, published: list[dict[str, Any]], tmp_path: Path) -> None:
    path = export(recorded, to, tmp_path / f"table.{to}")
    table = pd.read_csv(path) if to == "csv" else pd.read_parquet(path)
    assert len(table) == len(published)
    assert table["t_s"].tolist() == pytest.approx([e["t"] for e in published])
    assert table["unix"].isna().all()
    for i, e in enumerate(published):
        row = table.iloc[i]
        told = e["sentiment"] or dict.fromkeys(("value", "low", "high"), math.nan)
        emotions = e["emotions"] or dict.fromkeys(EMOTIONS, math.nan)
        affect = [math.nan if e[name] is None else e[name] for name in ("valence", "arousal")]
        expected = [*told.values(), *emotions.values(), *affect]
        found = row[["sentiment", "low", "high", *EMOTIONS, "valence", "arousal"]].astype(float)
        assert found.tolist() == pytest.approx(expected, abs=1.1e-4, nan_ok=True)
        assert (row["top"] if isinstance(row["top"], str) else None) == e["top"]
        for m, channel in CHANNELS.items():
            part = e["modalities"][m]
            assert row[f"{channel}_present"] == part["present"]
            assert row[f"{channel}_late"] == part["late"]
            told = dict.fromkeys(EMOTIONS, math.nan) if part["emotions"] is None else part["emotions"]
            own = row[[f"{channel}_{name}" for name in EMOTIONS]].astype(float)
            assert own.tolist() == pytest.approx(list(told.values()), abs=1.1e-4, nan_ok=True)
            influence = math.nan if part["influence"] is None else part["influence"]
            assert row[f"{channel}_influence"] == pytest.approx(influence, abs=1.1e-4, nan_ok=True)
            assert row[f"{channel}_age_s"] == pytest.approx(
                math.nan if part["age_s"] is None else part["age_s"], abs=6e-4, nan_ok=True
            )
            expected = part["weight"] if part["present"] else math.nan
            assert row[f"{channel}_weight"] == pytest.approx(expected, abs=1.1e-4, nan_ok=True)
        if e["emotions"]:
            for edge in EDGES:
                name = f"{CHANNELS[edge.source]}_to_{CHANNELS[edge.target]}"
                assert row[f"homo_{name}"] == pytest.approx(e["graph"]["homo"][str(edge)], abs=1.1e-4)
                assert row[f"hetero_{name}"] == pytest.approx(e["graph"]["hetero"][str(edge)], abs=1.1e-4)
        assert row["faces"] == e["faces"]
        assert (row["transcript"] if isinstance(row["transcript"], str) else "") == e["transcript"]


def test_every_column_is_documented_and_no_other(timeline: Timeline) -> None:
    """`{face,voice,words}_present` stands for three columns, as a shell reads it; no heads of one's own are here."""
    page = (Path(__file__).parents[3] / "docs" / "sessions.md").read_text()
    cells = re.findall(r"^\| (`.*?`) \|", page[page.index("## The table") :], re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell) if not name.startswith("extra_HEAD")]
    expanded = [
        "".join(parts)
        for name in named
        for parts in itertools.product(*(part.strip("{}").split(",") for part in re.split(r"({[^}]*})", name)))
    ]
    assert sorted(expanded) == sorted(columns(timeline))


def test_a_table_of_a_live_session_has_unix_times_and_latencies(made_session: Session, tmp_path: Path) -> None:
    table = pd.read_parquet(export(made_session.path, "parquet", tmp_path / "t.parquet"))
    assert table["unix"].iloc[0] == pytest.approx(made_session.epoch_unix + 0.1)
    assert table["capture_to_estimate_ms"].between(60, 66).all()
    assert table["dropped_video"].iloc[-1] == 5
    assert table["sentiment"].isna().sum() == 5


def test_emotionml_is_valid_and_tells_what_was_estimated(recorded: Path, timeline: Timeline, tmp_path: Path) -> None:
    document = etree.parse(export(recorded, "emotionml", tmp_path / "e.emotionml"))
    etree.RelaxNG(etree.parse(DATA / "emotionml.rng")).assertValid(document)
    root = document.getroot()
    names = {
        v.get("id"): [item.get("name") for item in v.iter(f"{EMOTIONML}item")]
        for v in root.iter(f"{EMOTIONML}vocabulary")
    }
    assert root.get("category-set") == "#emotions"
    assert names["emotions"] == list(EMOTIONS)
    emotions = list(root.iter(f"{EMOTIONML}emotion"))
    known = np.flatnonzero(~np.isnan(timeline.emotions[:, 0]))
    assert len(emotions) == len(known) > 50
    through = {"face": Modality.VISION, "voice": Modality.AUDIO, "text": Modality.TEXT}
    for emotion, i in zip(emotions, known, strict=True):
        categories = {c.get("name"): float(c.get("confidence")) for c in emotion.iter(f"{EMOTIONML}category")}
        assert list(categories.values()) == pytest.approx(timeline.emotions[i].tolist(), abs=1e-4)
        scales = {d.get("name"): float(d.get("value")) for d in emotion.iter(f"{EMOTIONML}dimension")}
        assert set(scales) == set(names["scales"])
        assert scales["sentiment"] * 6 - 3 == pytest.approx(timeline.sentiment[i, 0], abs=1e-3)
        assert scales["valence"] * 2 - 1 == pytest.approx(timeline.affect[i, 0], abs=1e-3)
        expressed = {through[name] for name in emotion.get("expressed-through").split()}
        assert expressed == {m for m in Modality if timeline.present[m][i]}
        # Time was the clip's own.
        assert emotion.get("time-ref-uri").endswith("demo.mp4")
        assert int(emotion.get("offset-to-start")) == max(0, round(timeline.start_s[i] * 1000))


def test_emotionml_of_a_live_session_has_unix_milliseconds(made_session: Session, tmp_path: Path) -> None:
    document = etree.parse(export(made_session.path, "emotionml", tmp_path / "e.emotionml"))
    etree.RelaxNG(etree.parse(DATA / "emotionml.rng")).assertValid(document)
    first = next(document.getroot().iter(f"{EMOTIONML}emotion"))
    assert int(first.get("end")) == round((made_session.epoch_unix + 0.1) * 1000)
    assert int(first.get("end")) - int(first.get("start")) == 5000


def test_heads_of_ones_own_are_in_emotionml_and_xdf(make: Any, estimate: Callable[..., Any], tmp_path: Path) -> None:
    made = make()
    for i in range(3):
        mood = ExtraClasses(top="very bored", probabilities={"engaged": 0.1 * i, "very bored": 1 - 0.1 * i})
        rating = ExtraNumber(value=2.0 + i, low=1.0, high=5.0, range=(1, 5), unit="points")
        valence = ExtraNumber(value=4.0, low=1.0, high=5.0, range=(1, 5))
        extra = {"mood": mood.model_dump(), "rating": rating.model_dump(), "valence": valence.model_dump()}
        told = estimate(i, 5 + i / 10, extra=json.dumps(extra)) if i else estimate(i, 5.0)  # the first has none
        made.add(schema.ESTIMATE, 5 + i / 10, told)
    session = made.finish()
    document = etree.parse(export(session, "emotionml", tmp_path / "e.emotionml"))
    etree.RelaxNG(etree.parse(DATA / "emotionml.rng")).assertValid(document)
    root = document.getroot()
    own = [one for one in root.iter(f"{EMOTIONML}emotion") if one.get("category-set") == "#own-mood"]
    said = [{c.get("name"): c.get("confidence") for c in one.iter(f"{EMOTIONML}category")} for one in own]
    assert said == [{"engaged": "0.1000", "very_bored": "0.9000"}, {"engaged": "0.2000", "very_bored": "0.8000"}]
    (vocabulary,) = [one for one in root.iter(f"{EMOTIONML}vocabulary") if one.get("id") == "own-mood"]
    assert [item.get("name") for item in vocabulary.iter(f"{EMOTIONML}item")] == ["engaged", "very_bored"]
    ratings = [d.get("value") for d in root.iter(f"{EMOTIONML}dimension") if d.get("name") == "rating"]
    assert ratings == ["0.5000", "0.7500"]
    assert sum(d.get("name") == "valence" for d in root.iter(f"{EMOTIONML}dimension")) == 3

    streams, _ = pyxdf.load_xdf(export(session, "xdf", tmp_path / "s.xdf"))
    (stream,) = [one for one in streams if one["info"]["type"] == ["Extra"]]
    channels = [(one["label"][0], one["unit"][0]) for one in stream["info"]["desc"][0]["channels"][0]["channel"]]
    assert channels[:3] == [("mood_engaged", "probability"), ("mood_very bored", "probability"), ("rating", "points")]
    assert np.isnan(stream["time_series"][0]).all()
    assert stream["time_series"][2][:3].tolist() == pytest.approx([0.2, 0.8, 4.0])


def test_pyxdf_reads_the_streams(recorded: Path, timeline: Timeline, tmp_path: Path) -> None:
    streams, header = pyxdf.load_xdf(export(recorded, "xdf", tmp_path / "s.xdf"))
    assert header["info"]["version"] == ["1.0"]
    by_name = {stream["info"]["name"][0]: stream for stream in streams}
    emotions = by_name["hall emotions"]
    labels = [c["label"][0] for c in emotions["info"]["desc"][0]["channels"][0]["channel"]]
    assert labels == list(EMOTIONS)
    np.testing.assert_allclose(emotions["time_series"], timeline.emotions, atol=1e-6)
    for name in ("emotions", "sentiment", "affect", "weights"):
        stream = by_name[f"hall {name}"]
        np.testing.assert_allclose(stream["time_stamps"], timeline.t_s, atol=1e-6)
        assert float(stream["info"]["nominal_srate"][0]) == 10
        assert stream["info"]["effective_srate"] == pytest.approx(10, abs=0.01)
        assert stream["footer"]["info"]["sample_count"] == [str(len(timeline))]
        assert stream["footer"]["info"]["clock_offsets"]
    words = by_name["hall words"]
    assert words["info"]["type"] == ["Markers"]
    assert [text[0] for text in words["time_series"]] == [word.text for word in timeline.words]
    assert words["time_stamps"].tolist() == pytest.approx([word.start_s for word in timeline.words])


def test_xdf_with_a_hole_keeps_its_times(made_session: Session, tmp_path: Path) -> None:
    streams, _ = pyxdf.load_xdf(export(made_session.path, "xdf", tmp_path / "s.xdf"))
    by_name = {stream["info"]["name"][0]: stream for stream in streams}
    np.testing.assert_allclose(by_name["hall sentiment"]["time_stamps"], Timeline.read(made_session).t_s, atol=1e-9)
    marks = by_name["hall marks"]
    assert [text[0] for text in marks["time_series"]] == ["happy +1.5", "mark"]
    assert marks["time_stamps"].tolist() == [1.0, 3.0]


CUE = re.compile(r"(\d+)\n([\d:,]{12}) --> ([\d:,]{12})\n((?:.+\n){1,3})")


def seconds(time: str) -> float:
    hours, minutes, rest = time.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def cues(path: Path) -> list[tuple[int, float, float, list[str]]]:
    blocks = path.read_text().split("\n\n")
    assert blocks.pop() == ""
    found = [CUE.fullmatch(block + "\n") for block in blocks]
    assert all(found)
    return [(int(m[1]), seconds(m[2]), seconds(m[3]), m[4].splitlines()) for m in found if m]


def test_subtitles_parse_and_ascend(recorded: Path, timeline: Timeline, tmp_path: Path) -> None:
    found = cues(export(recorded, "srt", tmp_path / "s.srt"))
    assert [number for number, *_ in found] == list(range(1, len(found) + 1))
    times_s = [t for _, start_s, end_s, _ in found for t in (start_s, end_s)]
    assert times_s == sorted(times_s)
    assert all(end_s - start_s >= 0.5 for _, start_s, end_s, _ in found)
    said = " ".join(" ".join(lines[:-1]) for *_, lines in found)
    assert said == " ".join(word.text for word in timeline.words)
    for *_, lines in found:
        assert len(lines) <= 3
        assert all(len(line) <= 42 for line in lines)
        assert re.fullmatch(rf"\[({'|'.join(EMOTIONS)}) [+-]\d\.\d\]", lines[-1])


def test_subtitles_end_at_stops_and_pauses(made_session: Session, tmp_path: Path) -> None:
    found = cues(export(made_session.path, "srt", tmp_path / "s.srt"))
    assert found[0][3][0] == "Good morning."
    assert "<" not in "".join(line for *_, lines in found for line in lines)
    assert len(found) == 3
    assert found[0][3][-1].startswith("[happy +")
    assert found[2][3][-1].startswith("[sad ")


def test_subtitles_without_words(make: Any, estimate: Any, refuse: Any) -> None:
    session = make()
    session.add(schema.ESTIMATE, 0.1, estimate(0, 0.1))
    assert "no word was heard" in refuse(1, "export", session.finish(), "--to", "srt")


def test_the_report_is_one_page_of_its_own(recorded: Path, tmp_path: Path) -> None:
    text = export(recorded, "html", tmp_path / "r.html").read_text()
    root = etree.fromstring(text.removeprefix("<!DOCTYPE html>\n").encode())
    assert root.tag == "html"
    for element in root.iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in {"src", "href", "srcset", "action", "data"}
            assert "://" not in value
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    drawings = list(root.iter("svg"))
    assert len(drawings) > 15
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in drawings)
    assert root.find(".//table") is not None
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 500_000


def test_the_report_escapes_all_that_comes_from_the_file(make: Any, estimate: Any, hostile: str) -> None:
    session = make(stream=hostile, model=hostile, checkpoint=hostile, created=hostile)
    session.word(hostile, 0.2, 0.6)
    session.status(0.1, hostile, "running", hostile)
    session.mark(0.2, 0.5, hostile, 1.0)
    for i in range(10):
        session.add(schema.ESTIMATE, 0.1 * i, estimate(i, 0.1 * i + 0.1, transcript=hostile))
    session.finish()
    text = page(Timeline.read(Session.open(session.path)))
    root = etree.fromstring(text.removeprefix("<!DOCTYPE html>\n").encode())
    assert not list(root.iter("script"))
    assert "<script" not in text
    shown = hostile.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert root.findtext(".//h1") == shown
    assert "".join(root.itertext()).count(shown) > 5


def test_the_report_tells_of_marks_failures_and_losses(made_session: Session) -> None:
    text = "".join(etree.fromstring(page(Timeline.read(made_session)).partition("\n")[2].encode()).itertext())
    for what in ("happy +1.5", "restarting", "unplugged", "12 messages of /video", "5 estimates, 12 messages"):
        assert what in text


def test_a_report_of_nobody(make: Any, estimate: Any, tmp_path: Path) -> None:
    session = make()
    for i in range(3):
        session.add(schema.ESTIMATE, 0.1 * i, estimate(i, 0.1 * i + 0.1, perceived=False))
    session.finish()
    assert "Nobody was seen or heard." in export(session.path, "html", tmp_path / "r.html").read_text()
    for to in ("png", "xdf", "emotionml", "csv", "parquet", "jsonl"):
        assert export(session.path, to, tmp_path / f"r.{to}").stat().st_size > 0


def test_the_picture_opens_and_shows_something(recorded: Path, tmp_path: Path) -> None:
    path = export(recorded, "png", tmp_path / "r.png")
    with Image.open(path) as image:
        assert image.width == 1400
        assert image.height > 800
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
    # Yellow of a happy face, and paper.
    assert (np.abs(pixels - np.array(ImageColor.getrgb(COLOURS["happy"]))).sum(axis=1) < 12).mean() > 0.01
    assert (pixels == 255).all(axis=1).mean() > 0.3


def test_the_picture_of_marks_pauses_and_hostile_words(made_session: Session, tmp_path: Path) -> None:
    assert export(made_session.path, "png", tmp_path / "r.png").stat().st_size > 10_000


def test_a_long_session_is_drawn_in_few_points(make: Any, estimate: Any) -> None:
    session = make()
    for i in range(3000):
        session.add(schema.ESTIMATE, 0.1 * i, estimate(i, 0.1 * i + 0.1))
    session.finish()
    timeline = Timeline.read(Session.open(session.path))
    drawn = Drawn.of(timeline)
    assert len(drawn.t_s) <= MOST + 1
    assert list(drawn.stretches(drawn.sentiment[:, 0])) == [slice(0, len(drawn.t_s))]
    assert drawn.dropped.sum() == timeline.dropped_video[-1]
    assert np.mean(drawn.emotions.sum(axis=1)) == pytest.approx(1, abs=0.05)


def test_gaps_are_drawn_as_gaps(made_session: Session) -> None:
    drawn = Drawn.of(Timeline.read(made_session))
    parts = [drawn.t_s[part][[0, -1]].tolist() for part in drawn.stretches(drawn.sentiment[:, 0])]
    assert parts == [pytest.approx(ends) for ends in ([0.1, 2.0], [2.6, 3.0], [3.6, 6.0])]


def test_times_and_signs() -> None:
    assert [clock(t) for t in (0, 65, 3725)] == ["0:00", "1:05", "1:02:05"]
    assert clock(61.26, fine=True) == "1:01.3"
    assert [signed(x) for x in (0.04, -0.04, 1.25, -1.25)] == ["0.0", "0.0", "+1.2", "\N{MINUS SIGN}1.2"]
    for length_s in (0.4, 5.9, 61, 700, 90_000):
        assert 1 < len(ticks(length_s)) <= 10


def test_sentences_have_the_feeling_of_their_stretch(made_session: Session) -> None:
    said = sentences(Timeline.read(made_session))
    assert [sentence.top for sentence in said] == ["happy", "happy", "sad"]
    assert said[0].sentiment == pytest.approx(2 - 0.5 * 1.65, abs=0.05)


@pytest.mark.parametrize("to", list(FORMATS))
def test_by_default_beside_the_session_and_never_over_a_file(to: str, made: Any, live: Any, refuse: Any) -> None:
    out = made.path.with_suffix(f".{to}")
    outcome = live("export", made.path, "--to", to)
    assert (outcome.code, outcome.out) == (0, f"{out}\n"), outcome.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    out.write_text("mine")
    assert refuse(2, "export", made.path, "--to", to).startswith(f"{out}: already exists; ")
    assert out.read_text() == "mine"
    assert live("export", made.path, "--to", to, "--force").code == 0
    assert out.read_bytes() != b"mine"
    assert {path.name for path in out.parent.iterdir()} == {made.path.name, out.name}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nowhere/x.csv", "cannot be written (No such file"),
        (".", "is a directory"),
        ("made.mcap", "the session itself"),
    ],
)
def test_a_place_that_cannot_be_written(made: Any, refuse: Any, where: str, said: str) -> None:
    before = made.path.read_bytes()
    assert said in refuse(2, "export", made.path, "--to", "csv", "--out", made.path.parent / where, "--force")
    assert made.path.read_bytes() == before


def test_a_failed_export_leaves_nothing(make: Any, estimate: Any, refuse: Any) -> None:
    session = make()
    wrong = estimate(3, 0.2)
    wrong.sentiment.value = 77
    session.add(schema.ESTIMATE, 0.1, wrong)
    session.finish()
    assert "damaged, estimate 3" in refuse(1, "export", session.path, "--to", "jsonl")
    assert list(session.path.parent.iterdir()) == [session.path]


@pytest.mark.parametrize(("to", "library"), [("parquet", "pyarrow"), ("png", "matplotlib")])
def test_a_library_that_is_missing(
    made: Any, refuse: Any, monkeypatch: pytest.MonkeyPatch, to: str, library: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"realtime.session.export.{FORMATS[to].module}", raising=False)
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    line = refuse(1, "export", made.path, "--to", to)
    assert line == f"--to {to} needs {library}; pip install 'dhmd[export]'"
    assert not made.path.with_suffix(f".{to}").exists()


def test_a_format_that_there_is_not(made: Any, refuse: Any) -> None:
    assert "invalid choice: 'docx'" in refuse(2, "export", made.path, "--to", "docx")


def test_a_sentence_is_judged_by_the_windows_that_hold_all_of_it_and_nothing_of_the_next(
    make: Any, estimate: Any
) -> None:
    """A sad sentence, an angry one before it: each is what was said of it, and is tinted by its words alone."""
    session = make()
    for word in (("Stop", 0.5, 0.8), ("it.", 0.8, 1.2), ("I", 2.0, 2.2), ("am", 2.2, 2.4), ("sad.", 2.4, 2.8)):
        session.word(*word)
    for i in range(60):
        t_s = 0.1 * (i + 1)
        message = estimate(i, t_s)
        heard_s = next((end for end in (2.8, 1.2) if end <= t_s - 0.3), 0.0)
        for name in EMOTIONS:
            setattr(message.emotions, name, 0.02)
        setattr(message.emotions, "sad" if heard_s == 2.8 else "angry", 0.88)
        message.modalities.text.present = heard_s > 0
        message.modalities.text.newest_s = heard_s
        message.modalities.text.sentiment = -2.0 if heard_s == 2.8 else -1.0
        session.add(schema.ESTIMATE, t_s, message)
    session.end_chunk()
    session.finish()
    said = sentences(Timeline.read(Session.open(session.path)))
    assert [(one.text, one.top, one.alone) for one in said] == [("Stop it.", "angry", -1.0), ("I am sad.", "sad", -2.0)]


@pytest.mark.parametrize("said", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_what_was_said_is_no_formula_in_a_table(said: str, make: Any, estimate: Any) -> None:
    session = make()
    session.add(schema.ESTIMATE, 0.1, estimate(0, 0.1, transcript=said))
    session.finish()
    with export(session.path, "csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["transcript"] == f"'{said}"
    assert row["arousal"] == "0.25"
