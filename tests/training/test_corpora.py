"""The fixed splits of the corpora, and what their items hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.corpora import CORPORA, GOEMOTIONS_PER_CLASS, items_of, typed_words
from training.data.items import Item, Split
from training.errors import CorpusMissing


@pytest.fixture(scope="module")
def items(shared: Path) -> list[Item]:
    return items_of(shared / "corpora", list(CORPORA))


def test_no_group_stands_in_two_splits(items: list[Item]) -> None:
    splits: dict[str, set[Split]] = {}
    for item in items:
        splits.setdefault(item.group, set()).add(item.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len({item.id for item in items}) == len(items)


def test_the_fixed_splits(items: list[Item]) -> None:
    groups: dict[tuple[str, Split], set[str]] = {}
    for item in items:
        groups.setdefault((item.corpus, item.split), set()).add(item.group.split("/")[1])
    assert groups["ravdess", Split.TEST] == {"17", "18", "19", "20"}
    assert groups["ravdess", Split.VALIDATION] == {"15", "16"}
    assert groups["emodb", Split.TEST] == {"13", "14"}
    assert groups["emodb", Split.VALIDATION] == {"12"}
    sizes = Counter((item.corpus, item.split) for item in items)
    assert [sizes["mosi", split] for split in Split] == [1284, 229, 686]
    assert [sizes["meld", split] for split in Split] == [9989, 1109, 1306]


def test_labels_are_those_of_the_names(items: list[Item]) -> None:
    by_id = {item.id: item for item in items}
    assert by_id["ravdess/03-01-02-01-01-01-01"].emotion == "neutral"
    assert by_id["ravdess/03-01-06-01-01-01-01"].emotion == "fear"
    assert by_id["emodb/03a01Fa"].emotion == "happy"
    assert by_id["emodb/03a01Wa"].emotion == "angry"
    assert not any(item.id[-2] == "L" for item in items if item.corpus == "emodb")
    assert by_id["meld/train/0/0"].emotion == "neutral"
    assert by_id["mosi/03bSnISJMiM_1"].sentiment == pytest.approx(2.4)
    assert {item.emotion for item in items if item.emotion} == set(EMOTIONS)
    assert all((item.sentiment is None) != (item.emotion is None) for item in items)


def test_goemotions_is_thinned_by_class_and_always_to_the_same_rows(items: list[Item], shared: Path) -> None:
    own = [item for item in items if item.corpus == "goemotions"]
    most = Counter((item.split, item.emotion) for item in own)
    assert max(n for (split, _), n in most.items() if split is Split.TRAIN) == GOEMOTIONS_PER_CLASS[Split.TRAIN]
    assert own == items_of(shared / "corpora", ["goemotions"])


def test_words_are_timed(items: list[Item]) -> None:
    text = [item for item in items if item.modality is Modality.TEXT]
    for item in text:
        assert isinstance(item.content, tuple)
        ends = [word.end_s for word in item.content]
        assert ends == sorted(ends)
    words = typed_words("I\u2019m  fine, thanks", "key")
    assert [word.text for word in words] == ["I'm", "fine,", "thanks"]
    assert words == typed_words("I\u2019m fine, thanks", "key")
    assert 0.6 < words[-1].end_s < 1.6
    assert typed_words("", "key") == ()


@pytest.mark.parametrize("name", list(CORPORA))
def test_a_missing_corpus_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusMissing, match=r"is not there: pass the folder of the corpora with --corpora"):
        items_of(tmp_path, [name])


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "ravdess_speech_16k.zip").write_bytes(b"no archive")
    with pytest.raises(CorpusMissing, match=r"ravdess_speech_16k.zip is damaged"):
        items_of(tmp_path, ["ravdess"])
