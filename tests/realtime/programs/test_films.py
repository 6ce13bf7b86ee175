"""Media files and folders become sessions: each once, with a report, and one that fails stops no other."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from dhmd.session import Session
from realtime.cli import main
from realtime.demo import CLIP
from realtime.errors import SettingsInvalid
from realtime.programs.films import jobs_of, media_files


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["replay", *words])
    return int(end.value.code or 0)


def cut(out: Path, start: float) -> None:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-ss", str(start), "-i", CLIP, "-t", "1.5", "-c:v", "mpeg4", out], check=True
    )


def test_a_folder_becomes_sessions_with_reports_and_is_not_done_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    films, out = tmp_path / "films", tmp_path / "sessions"
    (films / "more").mkdir(parents=True)
    cut(films / "more" / "a & b.mp4", 5)
    (films / "broken.mp4").write_bytes(b"no film")
    (films / "notes.txt").write_text("not media")
    (films / "other.mp4").write_bytes(b"film of another")
    out.mkdir()
    (out / "other.mcap").write_text("somebody's")
    (out / "a & b.mcap.part").write_bytes(b"what a cut run left")
    assert run(str(films), "--out", str(out), "--jobs", "1") == 1
    told = capfd.readouterr().out
    assert told.count("failed: ") == 2
    assert "move it away" in told
    assert "1 sessions, 2 failed" in told
    assert (out / "other.mcap").read_text() == "somebody's"
    assert not (out / "a & b.mcap.part").exists()
    session = Session.open(out / "a & b.mcap")
    assert session.complete
    assert "Mostly" in (out / "a & b.html").read_text() or "happy" in (out / "a & b.html").read_text()
    with (out / "sessions.csv").open(newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert set(rows) == {"a & b.mp4", "broken.mp4", "other.mp4"}
    assert float(rows["a & b.mp4"]["seconds"]) == pytest.approx(1.5, abs=0.2)
    assert rows["broken.mp4"]["error"]
    page = (out / "sessions.html").read_text()
    assert 'href="a%20%26%20b.html">a &amp; b</a>' in page

    written = (out / "a & b.mcap").stat().st_mtime_ns
    assert run(str(films / "more"), "--out", str(out)) == 0
    assert "1 of 1 are sessions already" in capfd.readouterr().out
    assert (out / "a & b.mcap").stat().st_mtime_ns == written
    assert run(str(films / "more"), "--out", str(out), "--language", "en") == 1
    assert "a & b.mcap already exists, and is another session" in capfd.readouterr().out
    assert (out / "a & b.mcap").stat().st_mtime_ns == written


def test_two_media_that_would_be_one_session_are_refused(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mov"):
        (tmp_path / name).touch()
    with pytest.raises(SettingsInvalid, match="would both become"):
        jobs_of(media_files([tmp_path]), None)


@pytest.mark.parametrize(("name", "told"), [("nothing", "no such file"), ("empty", "no media file in it")])
def test_nothing_to_do_is_one_line(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsInvalid, match=told):
        media_files([tmp_path / name])


def test_of_a_folder_films_sounds_and_pictures_are_taken_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    for name in ["b.mp4", "a.JPG", "c.wav", "._b.mp4", ".trash/d.mp4", "e.mp4.part", "f.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in media_files([tmp_path])] == ["a.JPG", "b.mp4", "c.wav"]
