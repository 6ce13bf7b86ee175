"""The importers: fixed splits, labels of the names, and that a second time is quick."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from dhmd.labels import EMOTIONS
from training.cli.commands import CORPORA as OFFERED
from training.data.corpora import CORPORA, GOEMOTIONS_PER_CLASS, prepare
from training.data.items import Split, Utterance
from training.data.manifest import read_manifests
from training.errors import CorpusMissing
from training.features.store import FeatureStore

NAMES = ("ravdess", "emodb", "emovo", "urdu", "ased", "meld", "goemotions", "mosi", "ck48")
"""FER2013 has 32,000 files; its rules, and those of FER+ on the same files, are tested on a small archive."""


def read(manifests: list[Path], store: Path) -> list[Utterance]:
    with FeatureStore(store) as opened:
        return [one for manifest in read_manifests(manifests, opened.files) for one in manifest.utterances]


@pytest.fixture(scope="module")
def utterances(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    out = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        # Whether the files can be read is not what is tested here.
        patch.setattr("training.data.files.probe", lambda *_: None)
        return read(prepare(NAMES, shared / "corpora", out), out / "features.sqlite")


def test_no_group_stands_in_two_splits(utterances: list[Utterance]) -> None:
    splits: dict[str, set[Split]] = {}
    for one in utterances:
        splits.setdefault(one.group, set()).add(one.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len({one.id for one in utterances}) == len(utterances)


def test_the_fixed_splits(utterances: list[Utterance]) -> None:
    groups: dict[tuple[str, Split], set[str]] = {}
    for one in utterances:
        groups.setdefault((one.corpus, one.split), set()).add(one.group.split("/")[1])
    assert groups["ravdess", Split.TEST] == {"17", "18", "19", "20"}
    assert groups["ravdess", Split.VALIDATION] == {"15", "16"}
    assert groups["emodb", Split.TEST] == {"13", "14"}
    assert groups["emodb", Split.VALIDATION] == {"12"}
    assert groups["emovo", Split.TEST] == {"m2"}
    assert groups["emovo", Split.VALIDATION] == {"f2"}
    assert groups["urdu", Split.TEST] == {"SM24", "SF6", "SM4"}
    assert groups["urdu", Split.VALIDATION] == {"SM3", "SM6"}
    assert groups["ased", Split.TEST] == {f"s{number}" for number in range(25, 32)}
    assert groups["ased", Split.VALIDATION] == {f"s{number}" for number in range(20, 25)}
    assert 10 <= len(groups["ck48", Split.VALIDATION]) <= 40
    sizes = Counter((one.corpus, one.split) for one in utterances)
    assert [sizes["mosi", split] for split in Split] == [1284, 229, 686]
    assert [sizes["meld", split] for split in Split] == [9989, 1109, 1306]
    assert [sizes["ravdess", split] for split in Split] == [840, 120, 240]
    assert [sizes["emodb", split] for split in Split] == [208, 30, 112]
    assert [sizes["emovo", split] for split in Split] == [196, 98, 98]
    assert [sizes["urdu", split] for split in Split] == [174, 26, 100]
    assert [sizes["ased", split] for split in Split] == [638, 182, 450]
    assert [sizes["ck48", split] for split in Split] == [723, 204, 0]


def test_labels_are_those_of_the_names(utterances: list[Utterance]) -> None:
    by_id = {one.id: one for one in utterances}
    assert by_id["ravdess/03-01-02-01-01-01-01"].emotion == "neutral"
    assert by_id["ravdess/03-01-06-01-01-01-01"].emotion == "fear"
    assert by_id["emodb/03a01Fa"].emotion == "happy"
    assert by_id["emodb/03a01Wa"].emotion == "angry"
    assert by_id["emovo/dis-f1-b1"].emotion == "disgust"
    assert by_id["urdu/SM1_F10_A010"].emotion == "angry"
    assert by_id["ased/n1-01-01-01-01"].emotion == "neutral"
    assert not any(one.id[-2] == "L" for one in utterances if one.corpus == "emodb")
    assert by_id["meld/train/0/0"].emotion == "neutral"
    assert by_id["mosi/03bSnISJMiM_1"].sentiment == pytest.approx(2.4)
    assert {one.emotion for one in utterances if one.emotion} == set(EMOTIONS)
    assert all((one.sentiment is None) != (one.emotion is None) for one in utterances)


def test_goemotions_is_thinned_by_class(utterances: list[Utterance]) -> None:
    most = Counter((one.split, one.emotion) for one in utterances if one.corpus == "goemotions")
    assert max(n for (split, _), n in most.items() if split is Split.TRAIN) == GOEMOTIONS_PER_CLASS[Split.TRAIN]


def test_words_of_mosi_are_timed_where_they_match(utterances: list[Utterance]) -> None:
    own = [one for one in utterances if one.corpus == "mosi"]
    timed = [one.words for one in own if one.words is not None]
    assert len(own) / 2 < len(timed) < len(own)
    assert all(words[0].start_s == 0.0 for words in timed)


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """FER2013 with its votes, and CK+, in small."""

    def png(seed: int, shift: int = 0) -> bytes:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6)).astype(np.uint8)
        picture = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
        return bytes(cv2.imencode(".png", np.roll(picture, shift, axis=1))[1])

    def vote(image: str, *counts: int, blind: int = 0) -> str:
        return f"{image},{','.join(map(str, counts))},{blind}\n"

    folder = tmp_path / "corpora"
    folder.mkdir()
    votes = (
        "image,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,not_a_face,twin_in_blind_set\n"
    )
    with zipfile.ZipFile(folder / "fer2013.zip", "w") as archive:
        for i in range(40):
            archive.writestr(f"train/{EMOTIONS[i % 7]}/Training_{i}.jpg", png(i))
            votes += vote(f"train/{EMOTIONS[i % 7]}/Training_{i}.jpg", 6, 3, 1, 0, 0, 0, 0, 0, 0, 0)
        for name, seed, shift in (
            ("", 3, 0),
            ("_of_a_test_image", 100, 0),
            ("_shifted", 100, 1),
            ("_of_a_blind", 101, 0),
        ):
            archive.writestr(f"train/sad/Training_copy{name}.jpg", png(seed, shift))
            votes += vote(f"train/sad/Training_copy{name}.jpg", 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, blind=int(seed == 101))
        for name, counts in (("contempt", (4, 0, 0, 0, 0, 0, 0, 6, 0, 0)), ("nobody", (4, 0, 0, 0, 0, 0, 0, 0, 0, 6))):
            archive.writestr(f"train/neutral/Training_{name}.jpg", png(200 + len(name)))
            votes += vote(f"train/neutral/Training_{name}.jpg", *counts)
        for name, counts in (("most", (0, 0, 0, 3, 3, 4, 0, 0, 0, 0)), ("three", (0, 0, 0, 5, 2, 3, 0, 0, 0, 0))):
            archive.writestr(f"train/disgust/Training_{name}.jpg", png(400 + len(name)))
            votes += vote(f"train/disgust/Training_{name}.jpg", *counts)
        archive.writestr("train/angry/Training_unsure.jpg", png(500))
        votes += vote("train/angry/Training_unsure.jpg", 0, 0, 0, 4, 3, 3, 0, 0, 0, 0)
        archive.writestr("train/neutral/Training_not_voted_on.jpg", png(300))
        archive.writestr("test/angry/PrivateTest_1.jpg", png(100))
        votes += vote("test/angry/PrivateTest_1.jpg", 0, 0, 0, 2, 6, 2, 0, 0, 0, 0)
        archive.writestr("test/happy/PrivateTest_2.jpg", png(102))
        votes += vote("test/happy/PrivateTest_2.jpg", 1, 3, 0, 0, 0, 0, 0, 6, 0, 0)
        archive.writestr("test/happy/PrivateTest_3.jpg", png(103))
        votes += vote("test/happy/PrivateTest_3.jpg", 5, 5, 0, 0, 0, 0, 0, 0, 0, 0)
    (folder / "ferplus_votes.csv").write_text(votes)
    with zipfile.ZipFile(folder / "ck48.zip", "w") as archive:
        for name, subject in (("anger", "S010"), ("sadness", "S011"), ("contempt", "S012")):
            archive.writestr(f"{name}/{subject}_004_00000014.png", png(7))
    return folder


def test_what_people_said_of_a_face(corpora: Path, tmp_path: Path) -> None:
    found = read(prepare(["fer2013", "ferplus"], corpora, tmp_path / "data"), tmp_path / "features.sqlite")
    by_id = {one.id: one for one in found}
    labelled, voted = by_id["fer2013/train/happy/Training_1"], by_id["ferplus/train/happy/Training_1"]
    assert (labelled.emotion, voted.emotion) == ("happy", "neutral")
    # One tagger alone is not heard, nor who saw no emotion of ours.
    assert labelled.votes == voted.votes == pytest.approx((6 / 9, 3 / 9, 0, 0, 0, 0, 0))
    assert by_id["fer2013/test/angry/PrivateTest_1"].votes == pytest.approx((0, 0, 0.2, 0.6, 0, 0.2, 0))
    # A test image stays under its label, whatever people said; without a majority it is none of those judged by votes.
    assert by_id["fer2013/test/happy/PrivateTest_2"].votes is None
    assert by_id["fer2013/test/happy/PrivateTest_3"].votes == pytest.approx((0.5, 0.5, 0, 0, 0, 0, 0))
    assert [one.id for one in found if one.id.startswith("ferplus/test")] == ["ferplus/test/angry/PrivateTest_1"]
    # Disgust, which few name, is learned from without a majority too.
    assert {one.id: one.emotion for one in found if "Training_three" in one.id or "Training_most" in one.id} == {
        f"{corpus}/train/disgust/Training_{name}": "disgust"
        for corpus in ("fer2013", "ferplus")
        for name in ("most", "three")
    }
    assert not [one.id for one in found if one.id == "ferplus/train/angry/Training_unsure"]


@pytest.mark.parametrize(
    "image", ["copy_of_a_test_image", "copy_shifted", "copy_of_a_blind", "contempt", "nobody", "not_voted_on"]
)
def test_twins_and_what_shows_no_emotion_of_ours_are_not_learned_from(
    image: str, corpora: Path, tmp_path: Path
) -> None:
    found = read(prepare(["fer2013", "ferplus"], corpora, tmp_path / "data"), tmp_path / "features.sqlite")
    assert len([one for one in found if one.split is not Split.TEST]) == 2 * 43 + 1
    assert not [one for one in found if one.id.endswith(f"Training_{image}")]


def test_copies_of_a_face_fall_on_one_side(corpora: Path, tmp_path: Path) -> None:
    found = read(prepare(["fer2013", "ck48"], corpora, tmp_path / "data"), tmp_path / "features.sqlite")
    by_id = {one.id: one for one in found}
    assert by_id["fer2013/test/angry/PrivateTest_1"].split is Split.TEST
    copy, original = by_id["fer2013/train/sad/Training_copy"], by_id["fer2013/train/angry/Training_3"]
    assert (copy.group, copy.split) == (original.group, original.split)
    assert {one.split for one in found if one.corpus == "fer2013"} == set(Split)
    ck = [(one.group, one.emotion, one.split) for one in found if one.corpus == "ck48"]
    assert ck == [("ck48/S010", "angry", Split.TRAIN), ("ck48/S011", "sad", Split.VALIDATION)]


def test_a_second_time_nothing_is_done_unless_the_archive_changed(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (manifest,) = prepare(["ck48"], corpora, tmp_path / "data")
    first = manifest.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("training.data.corpora.zipfile", None)
        assert prepare(["ck48"], corpora, tmp_path / "data") == [manifest]
    with zipfile.ZipFile(corpora / "ck48.zip", "a") as archive:
        archive.writestr("happy/S013_004_00000014.png", archive.read("anger/S010_004_00000014.png"))
    prepare(["ck48"], corpora, tmp_path / "data")
    assert len(manifest.read_bytes().splitlines()) == len(first.splitlines()) + 1


def test_what_a_cut_left_behind_is_completed(corpora: Path, tmp_path: Path) -> None:
    whole = prepare(["fer2013"], corpora, tmp_path / "whole")[0].read_bytes()
    out = tmp_path / "cut"
    unpacked = out / "fer2013"
    with zipfile.ZipFile(corpora / "fer2013.zip") as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")][:10]
        archive.extractall(unpacked, names)
    cut = unpacked / names[-1]
    cut.write_bytes(cut.read_bytes()[:100])
    assert prepare(["fer2013"], corpora, out)[0].read_bytes() == whole


def test_everything_that_is_missing_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CorpusMissing, match=r"ravdess_speech_16k\.zip, .*mosi_words\.jsonl; pass the folder"):
        prepare(["ravdess", "mosi"], tmp_path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "ravdess_speech_16k.zip").write_bytes(b"no archive")
    with pytest.raises(CorpusMissing, match=r"ravdess_speech_16k.zip is damaged"):
        prepare(["ravdess"], tmp_path, tmp_path / "data")
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "mosi_words.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(CorpusMissing, match=r"mosi_words.jsonl is not what it should be"):
        prepare(["mosi"], tmp_path, tmp_path / "data")


def test_no_file_of_an_archive_lands_outside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "emodb_16k.zip", "w") as archive:
        archive.writestr("../../03a01Fa.flac", b"")
    with pytest.raises(CorpusMissing, match="outside of it"):
        prepare(["emodb"], tmp_path, tmp_path / "data")


def test_the_command_offers_what_there_is() -> None:
    assert tuple(CORPORA) == OFFERED
