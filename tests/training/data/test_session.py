"""Sessions recorded live as training data: their rows, their labels, and what can be wrong with either."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mcap.reader import make_reader
from rich.console import Console

from dhmd.checkpoint import encoder_path, load
from dhmd.contract import Rows, Word
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from dhmd.model import Head
from dhmd.session import Session, schema
from dhmd.session.reader import rows_of, words_of
from realtime.clock import MediaClock
from realtime.demo import CLIP
from realtime.programs.run import run
from realtime.session.recorder import Recorder, describe, new_file
from realtime.settings import RunSettings
from training.cli import main
from training.data.items import Example
from training.data.manifest import read_manifests
from training.data.recorded import RecordedFeatures, extent
from training.errors import ManifestInvalid
from training.features import pieces
from training.features.extract import Extraction, extract
from training.features.store import FeatureStore

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
LENGTH_S = 8.0


@pytest.fixture(scope="module")
def recorded(untrained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first eight seconds of the demo clip: "Hello. I will tell you about my day. What wonderful news, ..."."""
    path = tmp_path_factory.mktemp("recorded") / "talk.mcap"
    threads = torch.get_num_threads()
    settings = RunSettings(
        source=str(CLIP),
        pace="max",
        broker="none",
        checkpoint=str(untrained_checkpoint),
        duration=LENGTH_S,
        record=str(path),
    )
    with (path.parent / "out.txt").open("w") as out:
        run(settings, Console(file=out))
    torch.set_num_threads(threads)
    return path


@pytest.fixture
def talk(recorded: Path, tmp_path: Path) -> Path:
    """A copy beside which labels may be put."""
    return Path(shutil.copyfile(recorded, tmp_path / "talk.mcap"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(tmp_path / "features.sqlite") as opened:
        yield opened


def label(talk: Path, *rows: str, header: str = "start,end,emotion,sentiment") -> Path:
    path = talk.with_suffix(".csv")
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def examples(path: Path, store: FeatureStore, encoders: Path) -> list[Example]:
    (manifest,) = read_manifests([path], store.files)
    return extract(manifest.utterances, store, Extraction(encoders, jobs=1))[0]


def in_file(path: Path, modality: Modality) -> Rows:
    """All rows, read with none of the code under test."""
    parts = [rows_of(record.message) for record in Session.open(path).records({schema.FEATURES[modality]})]
    return Rows.concatenate(parts, parts[0].values.shape[1])


def test_rows_are_those_that_were_recorded(
    talk: Path, store: FeatureStore, untrained_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No landmarker, voice network or speech model runs."""
    for maker in ("face", "landmarks", "speech"):
        monkeypatch.setattr(pieces.LazyExtractors, maker, lambda *_: pytest.fail("an extractor was started"))
    monkeypatch.setattr("dhmd.features.voice.VoiceExtractor.push", lambda *_: pytest.fail("a voice was heard"))
    label(talk, "0.5,4.1,neutral,", "4.1,8,happy,1.5")
    first, second = examples(talk, store, untrained_checkpoint)
    assert (first.utterance.id, second.utterance.id) == ("talk/0.5-4.1", "talk/4.1-8")
    assert (first.utterance.emotion, first.utterance.sentiment) == ("neutral", None)
    assert (second.utterance.emotion, second.utterance.sentiment) == ("happy", 1.5)
    for example, start_s, end_s in ((first, 0.5, 4.1), (second, 4.1, 8.0)):
        assert not example.still
        for m in (Modality.VISION, Modality.AUDIO):
            rows = in_file(talk, m)
            inside = (rows.times_s >= start_s) & (rows.times_s <= end_s)
            assert inside.sum() > 15
            np.testing.assert_allclose(example.rows[m].times_s, rows.times_s[inside] - start_s, atol=1e-9)
            np.testing.assert_array_equal(example.rows[m].values, rows.values[inside])
    words = [w for r in Session.open(talk).records({schema.WORDS}) for w in words_of(r.message.final)]
    said = [Word(w.text, w.start_s - 0.5, w.end_s - 0.5) for w in words if w.end_s < 4.1]
    assert "about my day" in " ".join(word.text for word in said)
    read = TextExtractor(adapter=encoder_path(untrained_checkpoint, Modality.TEXT)).extract(said)
    np.testing.assert_allclose(first.rows[Modality.TEXT].times_s, read.times_s)
    np.testing.assert_array_equal(first.rows[Modality.TEXT].values, read.halved().values)


def test_rows_of_a_session_are_kept_and_found_again(
    talk: Path, store: FeatureStore, untrained_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(talk, "0.5,4.1,neutral,")
    read = RecordedFeatures.read
    times: list[Path] = []
    monkeypatch.setattr(RecordedFeatures, "read", lambda path: times.append(path) or read(path))
    before = examples(talk, store, untrained_checkpoint)
    assert times == [talk]
    # The same stretch under another name of the same content.
    other = Path(shutil.copyfile(talk, talk.with_name("other.mcap")))
    label(other, "a,0.5,4.1,sad", header="id,start,end,emotion")
    again = examples(other, store, untrained_checkpoint)
    assert times == [talk]
    np.testing.assert_array_equal(before[0].rows[Modality.AUDIO].values, again[0].rows[Modality.AUDIO].values)


def test_a_manifest_may_name_a_session_where_it_names_a_film(
    talk: Path, store: FeatureStore, untrained_checkpoint: Path
) -> None:
    path = talk.with_name("my.csv")
    rows = ["1,happy,talk.mcap,4.1,8,", "2,sad,talk.mcap,,,", "3,happy,talk.mcap,4.1,8,what wonderful news"]
    path.write_text("\n".join(["id,emotion,video,start,end,text", *rows]) + "\n")
    part, whole, typed = examples(path, store, untrained_checkpoint)
    assert len(whole.rows[Modality.VISION]) == len(in_file(talk, Modality.VISION))
    assert set(part.rows) == set(whole.rows) == set(typed.rows) == set(Modality)
    # Words that somebody typed end with the voice.
    assert len(typed.rows[Modality.TEXT]) == 3
    assert typed.rows[Modality.TEXT].times_s[-1] == part.rows[Modality.AUDIO].times_s[-1]


def test_a_sessions_labels_may_be_ones_own(talk: Path, store: FeatureStore) -> None:
    heads = (
        Head("mood", "classification", 2, ("engaged", "bored")),
        Head("rating", "regression", 1, low=1.0, high=5.0),
    )
    label(talk, "0.5,4.1,Bored,", "4.1,8,,4.5", header="start,end,mood,rating")
    (manifest,) = read_manifests([talk], store.files, heads=heads)
    first, second = (utterance.extra for utterance in manifest.utterances)
    assert first == {"mood": 1}
    assert second == {"rating": 4.5}
    label(talk, "0.5,4.1,sleepy,", "4.1,8,,7", "4.1,8,,", header="start,end,mood,rating")
    with pytest.raises(ManifestInvalid) as refused:
        read_manifests([talk], store.files, heads=heads)
    told = str(refused.value)
    assert "row 2: " in told
    assert "'sleepy'" in told
    assert "row 3: " in told
    assert "7" in told


def faults(path: Path, store: FeatureStore, **named: Path) -> list[str]:
    with pytest.raises(ManifestInvalid) as refused:
        read_manifests([path], store.files, **named)
    return str(refused.value).splitlines()


def test_all_that_is_wrong_with_labels_is_told_at_once_by_row(talk: Path, store: FeatureStore) -> None:
    table = label(
        talk, "0,2,bored,", "4,3,sad,", "1.5,3,sad,", "3,4,,", "5,9,sad,", "20,21,sad,", "4,4.5,sad,7", "x,5,sad,"
    )
    told = faults(talk, store)
    expected = {
        2: "unknown emotion 'bored'; there are neutral, happy",
        3: "start 4 and end 3 are not a stretch of time",
        4: "overlaps row 2",
        5: "has no label: neither emotion nor sentiment",
        6: f"ends at 9 s, where video {talk} is over (8.0 s)",
        7: f"starts at 20 s, where video {talk} is over (8.0 s)",
        8: "sentiment 7 is outside of -3 to 3",
        9: "start 'x' is not a number",
    }
    for row, what in expected.items():
        assert any(line.startswith(f"{table}, row {row}: {what}") for line in told), (row, told)
    kept = read_manifests([talk], store.files, labels=label(talk, "0,2,happy,", "5,9,sad,"), skip_bad=True)[0]
    assert ([one.id for one in kept.utterances], kept.bad) == (["talk/0-2"], 1)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("start,end,emotoin", "unknown column 'emotoin'; did you mean 'emotion'?"),
        ("start,end,emotion,video", "unknown column 'video'; known are start, end, emotion, sentiment, id, split"),
    ],
)
def test_columns_that_labels_do_not_have(header: str, told: str, talk: Path, store: FeatureStore) -> None:
    table = label(talk, "0,2,sad", header=header)
    assert faults(talk, store)[0].startswith(f"{table}: {told}")


def test_labels_taken_for_a_manifest_are_recognised(talk: Path, store: FeatureStore) -> None:
    table = label(talk, "0,2,sad,")
    assert faults(table, store) == [f"{table}: has no column 'id'; if it holds the labels of {talk}, name that instead"]


class Marked:
    """A session with marks and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *marks: tuple[float, float, str | None], length_s: float = 60.0) -> None:
        clock = MediaClock()
        clock.advance(length_s)
        head = describe(load("base"), stream="desk", hop_s=0.1, timed=False, settings={})
        with new_file(self.path) as file, Recorder(file, clock, head) as recorder:
            for start_s, end_s, emotion in marks:
                recorder.mark(start_s, end_s, emotion)


@pytest.fixture
def marked(tmp_path: Path) -> Marked:
    return Marked(tmp_path / "marked.mcap")


def test_marks_made_live_are_labels(marked: Marked, store: FeatureStore) -> None:
    """A later mark corrects an earlier one that it covers for the most part, and cuts another short."""
    marked.write(
        (10.0, 15.0, "happy"), (11.0, 16.0, "sad"), (20.0, 30.0, "angry"), (27.0, 32.0, "fear"), (40.0, 42.0, None)
    )
    (manifest,) = read_manifests([marked.path], store.files)
    found = [(one.start_s, one.end_s, one.emotion) for one in manifest.utterances]
    assert found == [(11.0, 16.0, "sad"), (20.0, 27.0, "angry"), (27.0, 32.0, "fear")]
    assert manifest.notes == (f"{marked.path}: 1 of its marks have no emotion and are left out",)


def test_labels_beside_a_session_come_before_its_marks_and_named_ones_before_both(
    marked: Marked, store: FeatureStore, tmp_path: Path
) -> None:
    marked.write((10.0, 15.0, "happy"))
    label(marked.path, "1,2,sad,")
    assert [one.emotion for one in read_manifests([marked.path], store.files)[0].utterances] == ["sad"]
    named = tmp_path / "named.csv"
    named.write_text("start,end,sentiment,split,group\n3,4,-1,train,anna\n")
    (manifest,) = read_manifests([marked.path], store.files, labels=named)
    (one,) = manifest.utterances
    assert (one.id, one.sentiment, one.group, manifest.has_splits) == ("marked/3-4", -1.0, "marked/anna", True)


def test_a_session_exported_as_a_table_beside_it_holds_no_labels(marked: Marked, store: FeatureStore) -> None:
    marked.write((10.0, 15.0, "happy"))
    label(marked.path, "0,0.1,1.2,happy", header="seq,t_s,sentiment,top")
    assert [one.emotion for one in read_manifests([marked.path], store.files)[0].utterances] == ["happy"]


def test_marks_that_cannot_be_are_told_by_number(marked: Marked, store: FeatureStore) -> None:
    marked.write((10.0, 15.0, "happy"), (20.0, 30.0, "bored"), (50.0, 70.0, "sad"))
    told = faults(marked.path, store)
    assert told[0].startswith(f"{marked.path}, mark 2: unknown emotion 'bored'")
    assert told[1].startswith(f"{marked.path}, mark 3: ends at 70 s, where video {marked.path} is over (60.0 s)")


def test_a_session_without_a_usable_label_is_told_with_the_remedy(marked: Marked, store: FeatureStore) -> None:
    marked.write((10.0, 15.0, None))
    remedy = (
        "label it in marked.csv (start, end, emotion, sentiment; seconds of the session), or with the keys m and 1 to"
    )
    (line,) = faults(marked.path, store)
    assert line.startswith(f"{marked.path}: none of its 1 marks has an emotion; {remedy}")


def test_a_session_with_nothing_marked(talk: Path, store: FeatureStore) -> None:
    (line,) = faults(talk, store)
    assert line.startswith(f"{talk}: has neither marks nor a table of labels; label it in talk.csv")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no session at all", "not an MCAP file; sessions are recorded with --record"),
        (b"\x89MCAP0\r\n", "cut before anything was recorded; there is nothing in it"),
        (b"", "not an MCAP file; sessions are recorded with --record"),
    ],
)
def test_a_file_that_is_no_session(content: bytes, why: str, store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "talk.mcap"
    path.write_bytes(content)
    label(path, "0,1,sad,")
    assert faults(path, store) == [f"{path}: {why}"]
    manifest = tmp_path / "my.csv"
    manifest.write_text("id,emotion,video\n1,sad,talk.mcap\n2,sad,gone.mcap\n")
    told = faults(manifest, store)
    assert told[0].startswith(f"{manifest}, row 2: video {path}: {why}")
    assert told[1].startswith(f"{manifest}, row 3: video {tmp_path / 'gone.mcap'}: cannot be read (No such file")


def test_a_session_of_other_extractors_is_refused_naming_both_sides(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label(talk, "0.5,4.1,neutral,")
    assert main(["evaluate", "--manifest", str(talk), "--cache", str(tmp_path / "cache"), "--jobs", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dhmd-train: {talk}: recorded with other extractors than those at hand (vision: weights: ")
    assert "session {" in line
    assert "extractor {" in line
    assert line.endswith("name the encoders of its checkpoint, or record it with this one")


def test_a_cut_session_serves_up_to_its_cut_and_says_so(
    talk: Path, untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.write_bytes(talk.read_bytes()[: talk.stat().st_size // 2])
    length_s, cut = extent(talk)
    assert cut
    assert 1.5 < length_s < LENGTH_S
    argv = ["extract", str(talk), "--encoders", str(untrained_checkpoint), "--jobs", "1"]
    argv += ["--cache", str(tmp_path / "cache")]
    label(talk, f"0.2,{length_s:.1f},happy,")
    for _ in range(2):
        assert main(argv) == 0
        err = capsys.readouterr().err
        assert f"{talk}: breaks off after {length_s:.1f} s; what was recorded before is used" in err
    table = label(talk, "0.2,1,happy,", "7,7.5,sad,")
    assert main(argv) == 2
    told = f"{table}, row 3: starts at 7 s, where video {talk} breaks off ({length_s:.1f} s)"
    assert told in capsys.readouterr().err


def test_a_damaged_chunk_is_a_cut(talk: Path, store: FeatureStore, untrained_checkpoint: Path) -> None:
    content = bytearray(talk.read_bytes())
    with talk.open("rb") as file:
        chunks = make_reader(file).get_summary().chunk_indexes  # type: ignore[union-attr]
    chunk = chunks[len(chunks) // 2]
    middle = chunk.chunk_start_offset + chunk.chunk_length // 2
    content[middle : middle + 64] = bytes(64)
    talk.write_bytes(content)
    assert Session.open(talk).complete
    length_s, cut = extent(talk)
    assert cut
    label(talk, f"0.2,{length_s:.1f},happy,")
    (manifest,) = read_manifests([talk], store.files)
    assert manifest.notes == (f"{talk}: breaks off after {length_s:.1f} s; what was recorded before is used",)
    ((example),) = examples(talk, store, untrained_checkpoint)
    assert Modality.VISION in example.rows


def test_labels_are_for_one_session(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = label(talk, "0,2,sad,")
    (tmp_path / "my.csv").write_text("id,emotion,text\n1,sad,oh no\n")
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["extract", str(tmp_path / "my.csv"), "--labels", str(table), *cache]) == 2
    assert "--labels are those of one session, and none are named" in capsys.readouterr().err
    assert main(["extract", str(talk), "--labels", str(tmp_path / "gone.csv"), *cache]) == 2
    assert f"{tmp_path / 'gone.csv'}: cannot be read (No such file" in capsys.readouterr().err


def test_from_a_session_to_a_checkpoint_and_its_measures(
    talk: Path,
    untrained_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    label(
        talk,
        *("0.5,2,neutral,train", "2,4.1,sad,train", "4.1,6,happy,train", "6,8,happy,validation"),
        header="start,end,emotion,split",
    )
    config = (CONFIGS / "finetune.yaml").read_text().replace("start: base", f"start: {untrained_checkpoint}")
    short = re.sub(r"epochs: \d+", "epochs: 1", re.sub(r"steps: \d+", "steps: 2", config))
    Path("finetune.yaml").write_text(
        re.sub(r"per_class: \d+", "per_class: 1", re.sub(r"batch: \d+", "batch: 2", short))
    )
    assert main(["extract", "talk.mcap", "--encoders", str(untrained_checkpoint), "--jobs", "1"]) == 0
    assert "4 utterances have their features in cache; nothing was perceived in 0" in capsys.readouterr().out
    assert main(["fit", "finetune.yaml", "--manifest", "talk.mcap", "--jobs", "1"]) == 0
    checkpoint = load("runs/finetune/checkpoint")
    assert checkpoint.training["items"]["talk"] == {"train": 3, "validation": 1, "test": 0}
    capsys.readouterr()
    evaluate = ["evaluate", "--checkpoint", "runs/finetune/checkpoint", "--manifest", "talk.mcap", "--jobs", "1"]
    assert main([*evaluate, "--split", "all"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["n"], measured["coverage"], measured["modalities"]) == (4, 1.0, "text+vision+audio")
