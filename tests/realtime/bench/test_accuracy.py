"""The command that reads clips: changed by ffmpeg, each read once, and its tables in a page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from dhmd.media.reader import MediaReader
from realtime.bench import accuracy
from realtime.bench.accuracy import BEGIN, END
from realtime.bench.variants import VARIANTS, Variant, VariantUnavailable
from realtime.cli import main
from realtime.demo import CLIP
from tests.conftest import require


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with half a second of the demo clip under the name of a neutral talker, and a film without sound."""
    require("ffmpeg", "ffmpeg")
    folder = tmp_path / "clips"
    folder.mkdir()
    cut = ["ffmpeg", "-v", "error", "-ss", "1", "-i", str(CLIP), "-t", "0.5", "-c:v", "mpeg4"]
    subprocess.run([*cut, str(folder / "grid_made.mp4")], check=True)
    subprocess.run([*cut, "-an", str(folder / "mead_silent.mp4")], check=True)
    (folder / "notes.txt").write_text("no clip")
    return folder


def run(*words: str) -> int:
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as end:
        main(["accuracy", *words])
    torch.set_num_threads(threads)
    return int(end.value.code or 0)


def test_clips_are_read_once_and_the_tables_take_their_place_in_a_page(
    clips: Path,
    untrained_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = (VARIANTS[0], VARIANTS[1])
    monkeypatch.setattr(accuracy, "VARIANTS", few)
    monkeypatch.setattr(accuracy, "CLIP", (clips / "grid_made.mp4").rename(tmp_path / "demo.mp4"))
    shutil.copy(tmp_path / "demo.mp4", clips / "grid_made.mp4")
    monkeypatch.setattr(accuracy, "cache_folder", lambda: tmp_path / "cache")
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    words = (str(clips), "--checkpoint", str(untrained_checkpoint), "--into", str(page))
    assert run(*words) == 0
    written = page.read_text()
    assert written.startswith(f"# Before\n\n{BEGIN}\n")
    assert written.endswith(f"{END}\n\nAfter.\n")
    assert "old" not in written
    assert "| neutral talkers (GRID), 1 |" in written
    assert "| `mead_silent.mp4` |" in written
    (again,) = [line for line in written.splitlines() if line.startswith(f"| {few[0].name} |")]
    # Without loss the label is that of the clip itself, in each kind and in all.
    assert again.split("|")[2:-1] == [" 100% "] * 5
    assert any(line.startswith(f"| {few[1].name} |") for line in written.splitlines())
    told = capsys.readouterr().out
    assert "9 still to be read" in told
    assert "100%" in told

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(accuracy, "_reader", refuse)
    assert run(*words) == 0
    assert page.read_text() == written


def test_without_clips_it_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert run(str(folder)) == 0
        assert capsys.readouterr().out.strip().splitlines() == [
            f"skipped: no clips named grid_... or mead_... in {folder}"
        ]


def test_a_page_without_a_place_for_the_tables_is_refused_before_anything_is_read(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing here\n")
    assert run(str(clips), "--into", str(page)) == 2
    assert BEGIN in capsys.readouterr().err
    assert run(str(clips), "--into", str(tmp_path / "absent.md")) == 2


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("name", ["grid_made", "mead_silent"])
def test_each_variant_can_be_made_and_read(variant: Variant, name: str, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "changed.mkv"
    variant.make(clips / f"{name}.mp4", out)
    media = MediaReader(out)
    pictures = list(media.pictures())
    assert pictures[-1].time_s == pytest.approx((len(pictures) - 1) / 25 / variant.tempo, abs=0.05)
    assert (media.soundtrack is None) == (name == "mead_silent")
    if media.soundtrack is not None:
        length_s = sum(len(piece) for piece in media.sound()) / 16_000
        assert length_s == pytest.approx(0.5 / variant.tempo, abs=0.1)


def test_what_cannot_be_changed_is_told_with_the_cause(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VariantUnavailable, match="cannot make it 'odd'"):
        Variant("odd", video="nosuchfilter").make(clips / "grid_made.mp4", tmp_path / "out.mkv")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VariantUnavailable, match="apt-get install ffmpeg"):
        VARIANTS[0].make(clips / "grid_made.mp4", tmp_path / "out.mkv")
