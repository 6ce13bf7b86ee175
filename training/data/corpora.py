"""Public corpora as items, with fixed splits: no speaker, subject, dialogue or video stands in two of them."""

from __future__ import annotations

import csv
import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from dhmd.contract import Word
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.items import Archived, Item, Split
from training.errors import CorpusMissing

WORD_S: Final = 0.35
"""Duration of a spoken word, on average; typed words are spread at this rate."""

GOEMOTIONS_PER_CLASS: Final = {Split.TRAIN: 1000, Split.VALIDATION: 150}
"""At most so many rows of a class, so that the large classes of Reddit do not drown the rest."""

_RAVDESS_EMOTION: Final = {
    "01": "neutral",
    "02": "neutral",  # calm
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
_RAVDESS_SPLIT: Final = dict.fromkeys(("15", "16"), Split.VALIDATION) | dict.fromkeys(
    ("17", "18", "19", "20"), Split.TEST
)
_EMODB_EMOTION: Final = {
    "W": "angry",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}  # L, boredom, is left out
_EMODB_SPLIT: Final = {"12": Split.VALIDATION, "13": Split.TEST, "14": Split.TEST}
_TEXT_EMOTION: Final = {"joy": "happy", "sadness": "sad", "anger": "angry"} | {name: name for name in EMOTIONS}


def typed_words(text: str, key: str) -> tuple[Word, ...]:
    """The words of a typed text, timed as if spoken; `key` fixes the jitter of their durations."""
    words = text.replace("\u2019", "'").split()
    generator = np.random.default_rng(int.from_bytes(sha256(key.encode()).digest()[:8], "big"))
    ends = np.cumsum(WORD_S * generator.uniform(0.6, 1.4, len(words)))
    starts = np.concatenate([[0.0], ends[:-1]]) if len(words) else ends
    timed = zip(words, starts.tolist(), ends.tolist(), strict=True)
    return tuple(Word(word, round(start, 3), round(end, 3)) for word, start, end in timed)


def ravdess(corpora: Path) -> Iterator[Item]:
    """RAVDESS speech: actors 17-20 test, 15-16 validation; calm counts as neutral."""
    archive = corpora / "ravdess_speech_16k.zip"
    for name in _members(archive, ".flac"):
        fields = Path(name).stem.split("-")
        emotion, actor = fields[2], fields[6]
        split = _RAVDESS_SPLIT.get(actor, Split.TRAIN)
        yield _clip("ravdess", archive, name, split, actor, _RAVDESS_EMOTION[emotion])


def emodb(corpora: Path) -> Iterator[Item]:
    """EMO-DB: speakers 13 and 14 test, 12 validation; boredom left out."""
    archive = corpora / "emodb_16k.zip"
    for name in _members(archive, ".flac"):
        stem = Path(name).stem
        speaker, letter = stem[:2], stem[5]
        if letter in _EMODB_EMOTION:
            split = _EMODB_SPLIT.get(speaker, Split.TRAIN)
            yield _clip("emodb", archive, name, split, speaker, _EMODB_EMOTION[letter])


def _clip(corpus: str, archive: Path, member: str, split: Split, speaker: str, emotion: str) -> Item:
    return Item(
        id=f"{corpus}/{Path(member).stem}",
        corpus=corpus,
        split=split,
        group=f"{corpus}/{speaker}",
        modality=Modality.AUDIO,
        content=Archived(archive, member),
        emotion=emotion,
    )


def meld(corpora: Path) -> Iterator[Item]:
    """MELD: the lines of a dialogue, in the official splits."""
    files = {Split.TRAIN: "meld_train.csv", Split.VALIDATION: "meld_dev.csv", Split.TEST: "meld_test_public.csv"}
    for split, name in files.items():
        with _existing(corpora / "text" / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                dialogue = f"meld/{split}/{row['Dialogue_ID']}"
                key = f"{dialogue}/{row['Utterance_ID']}"
                yield _sentence("meld", key, split, dialogue, row["Utterance"], _TEXT_EMOTION[row["Emotion"]])


def goemotions(corpora: Path) -> Iterator[Item]:
    """GoEmotions, Ekman grouping: rows of one label, at most GOEMOTIONS_PER_CLASS of a class, chosen by hash."""
    labels = _existing(corpora / "text" / "goemotions_ekman_labels.txt").read_text(encoding="utf-8").split()
    files = {Split.TRAIN: "goemotions_ekman_train.tsv", Split.VALIDATION: "goemotions_ekman_dev.tsv"}
    for split, name in files.items():
        by_label: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in _existing(corpora / "text" / name).read_text(encoding="utf-8").splitlines():
            text, label, key = line.rsplit("\t", 2)
            if "," not in label:
                by_label[labels[int(label)]].append((key, text))
        for label, rows in sorted(by_label.items()):
            chosen = sorted(rows, key=lambda row: sha256(row[0].encode()).digest())[: GOEMOTIONS_PER_CLASS[split]]
            for key, text in chosen:
                yield _sentence(
                    "goemotions", f"goemotions/{key}", split, f"goemotions/{key}", text, _TEXT_EMOTION[label]
                )


def _sentence(corpus: str, key: str, split: Split, group: str, text: str, emotion: str) -> Item:
    return Item(key, corpus, split, group, Modality.TEXT, typed_words(text, key), emotion)


def mosi(corpora: Path) -> Iterator[Item]:
    """CMU-MOSI: words of the utterances with their sentiment, in the official split by video.

    Where the timed words are not those of the transcript, the transcript is timed as typed text.
    """
    splits = {"train": Split.TRAIN, "valid": Split.VALIDATION, "test": Split.TEST}
    for line in _existing(corpora / "mosi" / "mosi_words.jsonl").read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        key = f"mosi/{row['id']}"
        if row["words_match_transcript"] and row["words"]:
            begin = row["words"][0][1]
            words = tuple(Word(text, round(a - begin, 3), round(b - begin, 3)) for text, a, b in row["words"])
        else:
            words = typed_words(row["transcript"].lower(), key)
        yield Item(
            id=key,
            corpus="mosi",
            split=splits[row["split"]],
            group=f"mosi/{row['video']}",
            modality=Modality.TEXT,
            content=words,
            sentiment=float(row["label"]),
        )


CORPORA: Final[dict[str, Callable[[Path], Iterator[Item]]]] = {
    corpus.__name__: corpus for corpus in (ravdess, emodb, meld, goemotions, mosi)
}
"""Corpora of speech and of text by name; those of faces are read by `training.face_images`."""


def items_of(corpora: Path, names: Sequence[str]) -> list[Item]:
    """All items of the named corpora. Raises CorpusMissing."""
    return [item for name in names for item in CORPORA[name](corpora)]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CorpusMissing(f"{path} is not there: pass the folder of the corpora with --corpora")
    return path


def _members(archive: Path, suffix: str) -> list[str]:
    try:
        with zipfile.ZipFile(_existing(archive)) as opened:
            return sorted(name for name in opened.namelist() if name.endswith(suffix))
    except zipfile.BadZipFile as error:
        raise CorpusMissing(f"{archive} is damaged ({error}): fetch it again") from error
