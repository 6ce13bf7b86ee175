"""Manifests: what they may say, and that everything wrong with them is told at once, by row, before any work."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dhmd.contract import Word
from training.data.items import Split
from training.data.manifest import SHOWN, Manifest, read_manifests, split_of
from training.errors import ManifestInvalid
from training.features.store import FeatureStore
from training.inputs import Inputs, Work

Write = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(tmp_path / "features.sqlite") as opened:
        yield opened


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(row, ...): my.csv with these rows."""

    def rows(*table: dict[str, object], name: str = "my") -> Path:
        path = tmp_path / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in table for key in row)))
            writer.writeheader()
            writer.writerows(table)
        return path

    return rows


def spoken(name: str, **cells: object) -> dict[str, object]:
    return {"id": name, "emotion": "happy", "text": "well done", **cells}


def read(path: Path, store: FeatureStore) -> Manifest:
    (manifest,) = read_manifests([path], store.files)
    return manifest


def test_a_row_with_everything(write: Write, store: FeatureStore, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), np.zeros((48, 48), np.uint8))
    words = [["well", 0.1, 0.3], ["done", 0.4, 0.8]]
    path = write(
        {
            "id": "1",
            "split": "dev",
            "emotion": "Joy",
            "sentiment": "1.5",
            "text": "well done",
            "image": "face.png",
            "group": "anna",
            "words": json.dumps(words),
            "votes": '{"joy": 6, "Surprised": 2}',
        }
    )
    (one,) = read(path, store).utterances
    assert (one.id, one.corpus, one.group, one.split) == ("my/1", "my", "my/anna", Split.VALIDATION)
    assert (one.emotion, one.sentiment, one.text) == ("happy", 1.5, "well done")
    assert one.words == (Word("well", 0.1, 0.3), Word("done", 0.4, 0.8))
    assert one.votes == pytest.approx((0, 0.75, 0, 0, 0, 0, 0.25))
    assert one.image == tmp_path / "face.png"
    assert one.audio is one.video is one.sound is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("calm", "neutral"),
        ("Happiness", "happy"),
        ("sadness", "sad"),
        ("anger", "angry"),
        ("fearful", "fear"),
        ("disgusted", "disgust"),
        ("surprised", "surprise"),
    ],
)
def test_usual_names_of_emotions(said: str, meant: str, write: Write, store: FeatureStore) -> None:
    assert read(write(spoken("1", emotion=said)), store).utterances[0].emotion == meant


def test_without_splits_the_hash_of_the_group_decides(write: Write, store: FeatureStore) -> None:
    manifest = read(write(*(spoken(str(i), group=f"speaker {i % 200}") for i in range(600))), store)
    assert not manifest.has_splits
    of_group: dict[str, set[Split]] = {}
    for one in manifest.utterances:
        of_group.setdefault(one.group, set()).add(one.split)
        assert one.split is split_of(one.group.removeprefix("my/"))
    assert all(len(found) == 1 for found in of_group.values())
    shares = Counter(next(iter(found)) for found in of_group.values())
    assert shares[Split.TRAIN] == pytest.approx(140, abs=25)
    assert min(shares[Split.VALIDATION], shares[Split.TEST]) > 15


def test_parquet_says_the_same_as_csv(write: Write, store: FeatureStore, tmp_path: Path) -> None:
    rows = [spoken("1", sentiment=0.5, group=None), spoken("2", sentiment=None, group="anna")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own.parquet")
    typed = read(tmp_path / "own.parquet", store)
    written = read(write(*rows, name="own"), store)
    assert typed.utterances == written.utterances


FAULTS = {
    "unknown emotion 'bored'; there are neutral, happy": {"emotion": "bored"},
    "unknown split 'exam'": {"split": "exam"},
    "sentiment 3.5 is outside of -3 to 3": {"sentiment": "3.5"},
    "sentiment 'good' is not a number": {"sentiment": "good"},
    "sentiment 'nan' is not a number": {"sentiment": "nan"},
    "votes are not {{emotion: number, ...}} in JSON; there are neutral": {"votes": '{"happy": 2, "bored": 3}'},
    "votes are not {{emotion: number, ...}}": {"votes": '{"happy": 2, "sad": -1}'},
    "votes are not {{emotion: number": {"votes": '{"happy": 0}'},
    "votes are not {{emotion": {"votes": '{"happy": "many"}'},
    "votes are not": {"votes": "happy"},
    "has no label": {"emotion": ""},
    "has no modality": {"text": ""},
    "has no id": {"id": ""},
    "id 'fine' stands in row 2 already": {"id": "fine"},
    "audio {}/gone.wav: no such file": {"audio": "gone.wav"},
    "image {}/broken.png: is not an image that OpenCV knows": {"image": "broken.png"},
    "video {}/broken.mp4: is not a media file": {"video": "broken.mp4"},
    "audio {}/text.txt: is": {"audio": "text.txt"},
    "audio {}/empty.wav: is empty (0 bytes)": {"audio": "empty.wav"},
    "video {}: is a directory": {"video": "."},
    "start 3 and end 2 are not a stretch of time": {"audio": "gone.wav", "start": "3", "end": "2"},
    "start and end say which part of audio or video": {"start": "1"},
    "has an image and a video": {"image": "broken.png", "video": "broken.png"},
    "words are not [[word, start": {"words": "[" * 100_000},
    "words are not [[word": {"words": f'[["well", {"9" * 400}, {"9" * 400}]]'},
    "sentiment '999999": {"sentiment": "9" * 5000},
    "words are not [[word, start, end], ...] in JSON": {"words": '[["well", 0.5, 0.2], ["done", 0.1]]'},
}


@pytest.mark.parametrize("told", FAULTS)
def test_each_fault_is_told_with_its_row(told: str, write: Write, store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image at all")
    (tmp_path / "broken.mp4").write_bytes(b"no film at all")
    (tmp_path / "text.txt").write_text("just words\n")
    (tmp_path / "empty.wav").touch()
    path = write(spoken("fine"), spoken("odd", **FAULTS[told]))
    with pytest.raises(ManifestInvalid) as refused:
        read(path, store)
    assert any(f"my.csv, row 3: {told.format(tmp_path)}" in line for line in str(refused.value).splitlines())


def test_all_faults_are_told_at_once_up_to_a_number(write: Write, store: FeatureStore) -> None:
    first = write(*(spoken(str(i), emotion="bored", sentiment=9) for i in range(15)))
    second = write(spoken("1", image="gone.png"), name="other")
    with pytest.raises(ManifestInvalid) as refused:
        read_manifests([first, second], store.files)
    lines = str(refused.value).splitlines()
    assert len(lines) == SHOWN + 1
    assert lines[-1].startswith("and 11 more; correct the manifest")
    assert refused.value.exit_code == 2


def test_bad_rows_can_be_left_out_and_are_counted(write: Write, store: FeatureStore) -> None:
    path = write(spoken("1"), spoken("2", emotion="bored", image="gone.png"), spoken("1"), spoken("3"))
    (manifest,) = read_manifests([path], store.files, skip_bad=True)
    assert [one.id for one in manifest.utterances] == ["my/1", "my/3"]
    assert manifest.bad == 2
    with pytest.raises(ManifestInvalid, match="no row of it is usable"):
        read_manifests([write(spoken("1", emotion="bored"), name="bad")], store.files, skip_bad=True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"id,emotion,txt\n1,sad,x\n", "unknown column 'txt'; did you mean 'text'?"),
        (b"emotion,text\nsad,x\n", "has no column 'id'"),
        (b"id,text,text\n1,x,y\n", "column 'text' stands there twice"),
        (b"id,emotion,text\n", "has no rows"),
        (b"", "has no rows"),
        (b"id,text\n1,\xff\xfe\n", "is neither CSV in UTF-8 nor Parquet"),
        (b"PAR1 and no more", "is neither CSV in UTF-8 nor Parquet"),
        (b"id,emotion,text\n1,sad,x,more\n", "row 2: has more cells than the header, which names 3"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_table_that_is_none(content: bytes, told: str, skip_bad: bool, store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestInvalid) as refused:
        read_manifests([path], store.files, skip_bad=skip_bad)
    assert told in str(refused.value)


def test_lines_and_commas_in_a_text_do_not_move_the_rows(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text('\ufeffid,emotion,text\n1,sad,"one,\ntwo\u2028three"\n\n2,bored,x\n', encoding="utf-8")
    with pytest.raises(ManifestInvalid, match="row 4: unknown emotion 'bored'") as refused:
        read(path, store)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_is_looked_into_again_only_when_it_changed(
    write: Write, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "face.png"
    cv2.imwrite(str(image), np.zeros((48, 48), np.uint8))
    path = write(spoken("1", image="face.png"))
    read(path, store)
    with monkeypatch.context() as patch:
        patch.setattr("training.data.files.probe", lambda *_: pytest.fail("looked again"))
        read(path, store)
    image.write_bytes(b"something else")
    with pytest.raises(ManifestInvalid, match="is not an image"):
        read(path, store)


def test_two_manifests_of_one_name_are_refused(write: Write, store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = write(spoken("1"))
    second = tmp_path / "other" / "my.csv"
    second.write_bytes(first.read_bytes())
    with pytest.raises(ManifestInvalid, match="another manifest has the same name"):
        read_manifests([first, second], store.files)


def test_a_part_past_the_end_is_told(write: Write, store: FeatureStore, make_media: Callable[..., Path]) -> None:
    tone = make_media("one-second.wav", "-f", "lavfi", "-i", "sine=duration=1")
    with pytest.raises(ManifestInvalid, match=r"row 2: starts at 2 s, where audio .*one-second.wav is over \(1.0 s\)"):
        read(write(spoken("1", audio=tone, start=2)), store)


@pytest.mark.parametrize(
    ("text", "assumed"),
    [
        ("\ufeffid;split;emotion;sentiment;text\r\n1;train;Happy;1,5;a, b\r\n", ["';' stands between cells"]),
        ("sep=;\nid;split;emotion;sentiment;text\n1;train;joy;1,5;a, b\n", ["';' stands between cells"]),
        ("id\tsplit\temotion\tsentiment\ttext\n1\ttrain\thappy\t1.5\ta, b\n", ["'\\t' stands between cells"]),
        (
            'ID,Split,Emotion,Sentiment,Text,,\n1,train,HAPPINESS,1.5,"a, b",,\n,,,,,,\n',
            ["columns are named in lower case", "2 empty columns without a name are left out"],
        ),
        ('id,split,emotion,sentiment,text\n1,train,happy,1.5,"a, b"\n', []),
    ],
)
def test_tables_as_spreadsheets_save_them(store: FeatureStore, tmp_path: Path, text: str, assumed: list[str]) -> None:
    path = tmp_path / "my.csv"
    path.write_bytes(text.encode())
    manifest = read(path, store)
    (one,) = manifest.utterances
    assert (one.emotion, one.sentiment, one.text) == ("happy", 1.5, "a, b")
    assert manifest.notes == ((f"{path}: it is assumed that {', that '.join(assumed)}",) if assumed else ())


def test_backslashes_in_paths_are_those_of_folders(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    cv2.imwrite(str(tmp_path / "img" / "a.png"), np.zeros((48, 48), np.uint8))
    path = tmp_path / "my.csv"
    path.write_text("id,emotion,image\n1,happy,img\\a.png\n")
    manifest = read(path, store)
    assert manifest.utterances[0].image == tmp_path / "img" / "a.png"
    assert manifest.notes == (f"{path}: it is assumed that \\ in paths means /",)


def test_a_set_from_which_little_can_be_learned_is_told_of(write: Write, store: FeatureStore, tmp_path: Path) -> None:
    path = write(*(spoken(str(number), split="train") for number in range(3)))
    work = Work(tmp_path, tmp_path, 1, None, skip_bad=False)
    with Inputs.of(work, [str(path)]) as inputs:
        few, one_class, unmeasured = inputs.doubts()
    assert few.startswith("only 3 utterances")
    assert "'happy'" in one_class
    assert "validation or test" in unmeasured
