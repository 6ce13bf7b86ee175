"""Public corpora as manifests, with fixed splits: no speaker, subject, dialogue or video stands in two of them."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.checkpoint import write_atomically
from dhmd.untrusted import read_json_object
from training.data.items import Split
from training.data.manifest import SYNONYMS
from training.errors import CorpusMissing
from training.progress import followed

GOEMOTIONS_PER_CLASS: Final = {Split.TRAIN: 3000, Split.VALIDATION: 150}
"""At most so many rows of a class, so that the large classes of Reddit do not drown the rest."""

DISGUSTED: Final = 3
"""Taggers of FER+ that make a face labelled disgust by FER2013 one of disgust."""

_RAVDESS_EMOTION: Final = {
    "01": "neutral",
    "02": "calm",
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

_FERPLUS: Final = "ferplus_votes.csv"
_BLIND: Final = "twin_in_blind_set"
_THUMBNAIL: Final = 24
_TWIN: Final = 0.9
"""Correlation of thumbnails from which on two images of FER2013 are taken for one: seen side by side, above it nearly
all were the same picture, shifted by a few pixels or with another watermark, and below 0.85 few."""

Row = dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Corpus:
    """files: what must lie in the folder of the corpora. rows: of the manifest, given the folder of the corpora, and
    that of the archive's files beside the manifest. unpacked: the latter's name, where another corpus has the same."""

    files: tuple[str, ...]
    rows: Callable[[Path, Path], Iterator[Row]]
    unpacked: str | None = None

    @property
    def archive(self) -> str | None:
        return next((file for file in self.files if file.endswith(".zip")), None)


def ravdess(_: Path, unpacked: Path) -> Iterator[Row]:
    """RAVDESS speech: actors 17-20 test, 15-16 validation; calm counts as neutral."""
    for clip in sorted(unpacked.rglob("*.flac")):
        fields = clip.stem.split("-")
        emotion, actor = fields[2], fields[6]
        yield _clip(clip, unpacked, _RAVDESS_SPLIT.get(actor, Split.TRAIN), actor, _RAVDESS_EMOTION[emotion])


def emodb(_: Path, unpacked: Path) -> Iterator[Row]:
    """EMO-DB: speakers 13 and 14 test, 12 validation; boredom left out."""
    for clip in sorted(unpacked.rglob("*.flac")):
        speaker, letter = clip.stem[:2], clip.stem[5]
        if letter in _EMODB_EMOTION:
            yield _clip(clip, unpacked, _EMODB_SPLIT.get(speaker, Split.TRAIN), speaker, _EMODB_EMOTION[letter])


def emovo(_: Path, unpacked: Path) -> Iterator[Row]:
    """EMOVO, Italian: speaker m2 test, f2 validation."""
    return _labelled(unpacked, {"m2": Split.TEST, "f2": Split.VALIDATION})


def urdu(_: Path, unpacked: Path) -> Iterator[Row]:
    """URDU, talk shows: speakers SM24, SF6 and SM4 test; SM3 and SM6, who show all four classes, validation."""
    tested = dict.fromkeys(("SM24", "SF6", "SM4"), Split.TEST)
    return _labelled(unpacked, tested | dict.fromkeys(("SM3", "SM6"), Split.VALIDATION))


def ased(_: Path, unpacked: Path) -> Iterator[Row]:
    """ASED, Amharic: speakers s25 to s31 test, s20 to s24 validation."""
    tested = dict.fromkeys((f"s{number}" for number in range(25, 32)), Split.TEST)
    return _labelled(unpacked, tested | dict.fromkeys((f"s{number}" for number in range(20, 25)), Split.VALIDATION))


def _labelled(unpacked: Path, splits: Mapping[str, Split]) -> Iterator[Row]:
    """Clips by the table beside them, speakers that no split names in training."""
    with (unpacked / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            speaker = row["speaker"]
            split = splits.get(speaker, Split.TRAIN)
            yield _clip(unpacked / row["file"], unpacked, split, speaker, row["emotion"])


def _clip(clip: Path, unpacked: Path, split: Split, speaker: str, emotion: str) -> Row:
    audio = clip.relative_to(unpacked.parent).as_posix()
    return {"id": clip.stem, "split": split, "emotion": emotion, "audio": audio, "group": speaker}


def meld(corpora: Path, _: Path) -> Iterator[Row]:
    """MELD: the lines of a dialogue, in the official splits."""
    files = {Split.TRAIN: "meld_train.csv", Split.VALIDATION: "meld_dev.csv", Split.TEST: "meld_test_public.csv"}
    for split, name in files.items():
        with (corpora / "text" / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                dialogue = f"{split}/{row['Dialogue_ID']}"
                key = f"{dialogue}/{row['Utterance_ID']}"
                yield _sentence(key, split, dialogue, row["Utterance"], SYNONYMS[row["Emotion"]])


def goemotions(corpora: Path, _: Path) -> Iterator[Row]:
    """GoEmotions, Ekman grouping: rows of one label, at most GOEMOTIONS_PER_CLASS of a class, chosen by hash."""
    labels = (corpora / "text" / "goemotions_ekman_labels.txt").read_text(encoding="utf-8").split()
    files = {Split.TRAIN: "goemotions_ekman_train.tsv", Split.VALIDATION: "goemotions_ekman_dev.tsv"}
    for split, name in files.items():
        by_label: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in (corpora / "text" / name).read_text(encoding="utf-8").splitlines():
            text, label, key = line.rsplit("\t", 2)
            if "," not in label:
                by_label[labels[int(label)]].append((key, text))
        for label, rows in sorted(by_label.items()):
            chosen = sorted(rows, key=lambda row: sha256(row[0].encode()).digest())[: GOEMOTIONS_PER_CLASS[split]]
            for key, text in chosen:
                yield _sentence(key, split, key, text, SYNONYMS[label])


def _sentence(key: str, split: Split, group: str, text: str, emotion: str) -> Row:
    return {"id": key, "split": split, "emotion": emotion, "text": text, "group": group}


def mosi(corpora: Path, _: Path) -> Iterator[Row]:
    """CMU-MOSI: words of the utterances with their sentiment, in the official split by video.

    Where the timed words are not those of the transcript, the transcript is timed as typed text.
    """
    splits = {"train": Split.TRAIN, "valid": Split.VALIDATION, "test": Split.TEST}
    for line in (corpora / "mosi" / "mosi_words.jsonl").read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = read_json_object(line)
        words = ""
        if row["words_match_transcript"] and row["words"]:
            begin = row["words"][0][1]
            words = json.dumps([[text, round(a - begin, 3), round(b - begin, 3)] for text, a, b in row["words"]])
        yield {
            "id": row["id"],
            "split": splits[row["split"]],
            "sentiment": float(row["label"]),
            "text": row["transcript"].lower(),
            "group": row["video"],
            "words": words,
        }


def fer2013(corpora: Path, unpacked: Path) -> Iterator[Row]:
    """FER2013 with its own labels, and beside them the votes of FER+ (Barsoum et al. 2016).

    Its test folder is the test set, whole. A tenth of its train folder is validation, chosen by hash, so copies of one
    image fall on the same side. Left out of both are images that FER+ did not find to show one of our emotions, twins
    of test images, and those that a later, blind evaluation repeats.
    """
    for path, split, digest, votes in _faces_with_votes(corpora, unpacked):
        named = _of_ours(votes)
        if split is Split.TEST or named:
            yield _face(path, unpacked, split, digest) | {"votes": json.dumps(named) if named else ""}


def ferplus(corpora: Path, unpacked: Path) -> Iterator[Row]:
    """The images of FER2013 by the majority of FER+: one of our emotions that more than half of the taggers named.

    Few such are disgust. To learn from, and to choose by, are also images which more taggers call disgust than anything
    else, and those labelled so by FER2013 where DISGUSTED taggers agree.
    """
    for path, split, digest, votes in _faces_with_votes(corpora, unpacked):
        named = _of_ours(votes)
        emotion = max(named, key=lambda emotion: named[emotion], default="")
        if 2 * named.get(emotion, 0) <= sum(votes.values()):
            labelled = path.parent.name == "disgust" and named.get("disgust", 0) >= DISGUSTED
            if split is Split.TEST or not (labelled or emotion == "disgust"):
                continue
            emotion = "disgust"
        yield _face(path, unpacked, split, digest) | {"emotion": emotion, "votes": json.dumps(named)}


def _faces_with_votes(corpora: Path, unpacked: Path) -> Iterator[tuple[Path, Split, str, Mapping[str, int]]]:
    """Images, split, digest and votes by the names of FER+; none where FER+ has none."""
    votes = {}
    with (corpora / _FERPLUS).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            path, blind = row.pop("image"), row.pop(_BLIND)
            votes[path] = {name: int(count) for name, count in row.items()}, blind == "1"
    paths = sorted(unpacked.glob("*/*/*.jpg"))
    pictures = [_grey(path) for path in paths]
    tested = np.array([path.parts[-3] == "test" for path in paths], np.bool_)
    thumbnails = np.array([_thumbnail(picture) for picture in pictures], np.float32).reshape(len(paths), -1)
    twin = np.zeros(len(paths), np.bool_)
    if tested.any():
        twin[~tested] = (thumbnails[~tested] @ thumbnails[tested].T).max(axis=1, initial=0) > _TWIN
    for path, picture, test, double in zip(paths, pictures, tested, twin, strict=True):
        digest = sha256(picture.tobytes()).hexdigest()
        counts, blind = votes.get(path.relative_to(unpacked).as_posix(), ({}, False))
        if test:
            yield path, Split.TEST, digest, counts
        elif not (double or blind):
            held_out = int(digest[:8], 16) % 10 == 0
            yield path, Split.VALIDATION if held_out else Split.TRAIN, digest, counts


def _of_ours(votes: Mapping[str, int]) -> dict[str, int]:
    """Votes for our emotions, without those of a single tagger; empty where most said something else, as that there is
    no face."""
    if not votes or SYNONYMS.get(max(votes, key=lambda name: votes[name])) is None:
        return {}
    return {SYNONYMS[name]: count for name, count in votes.items() if name in SYNONYMS and count > 1}


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vector whose product with another is their correlation; zero of an even surface."""
    import cv2

    small = cv2.resize(picture, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1.0), np.float32)


def ck48(_: Path, unpacked: Path) -> Iterator[Row]:
    """CK+: a fifth of the subjects is validation, chosen by hash; contempt, which we do not have, is left out."""
    for path in sorted(unpacked.glob("*/*.png")):
        match = re.fullmatch(r"(S\d+)_\w+", path.stem)
        if match is not None and path.parent.name in SYNONYMS:
            held_out = sha256(match[1].encode()).digest()[0] % 5 == 0
            yield _face(path, unpacked, Split.VALIDATION if held_out else Split.TRAIN, match[1])


def _face(path: Path, unpacked: Path, split: Split, group: str) -> Row:
    name, emotion = path.relative_to(unpacked).with_suffix("").as_posix(), SYNONYMS[path.parent.name]
    image = path.relative_to(unpacked.parent).as_posix()
    return {"id": name, "split": split, "emotion": emotion, "image": image, "group": group}


def _grey(path: Path) -> NDArray[np.uint8]:
    import cv2

    encoded = np.fromfile(path, np.uint8)
    grey = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE) if len(encoded) else None
    if grey is None:
        raise CorpusMissing(f"{path} is damaged: remove its folder, fetch the corpus again, and prepare it anew")
    return np.asarray(grey, np.uint8)


CORPORA: Final[dict[str, Corpus]] = {
    "ravdess": Corpus(("ravdess_speech_16k.zip",), ravdess),
    "emodb": Corpus(("emodb_16k.zip",), emodb),
    "emovo": Corpus(("emovo_16k.zip",), emovo),
    "urdu": Corpus(("urdu_16k.zip",), urdu),
    "ased": Corpus(("ased_16k.zip",), ased),
    "meld": Corpus(("text/meld_train.csv", "text/meld_dev.csv", "text/meld_test_public.csv"), meld),
    "goemotions": Corpus(
        ("text/goemotions_ekman_labels.txt", "text/goemotions_ekman_train.tsv", "text/goemotions_ekman_dev.tsv"),
        goemotions,
    ),
    "mosi": Corpus(("mosi/mosi_words.jsonl",), mosi),
    "fer2013": Corpus(("fer2013.zip", _FERPLUS), fer2013),
    "ferplus": Corpus(("fer2013.zip", _FERPLUS), ferplus, unpacked="fer2013"),
    "ck48": Corpus(("ck48.zip",), ck48),
}


def prepare(names: Sequence[str], corpora: Path, out: Path) -> list[Path]:
    """Unpack the archives of these corpora into `out`/NAME and write `out`/NAME.csv; what is up to date stays.

    Returns the manifests. Raises CorpusMissing, naming all that is missing before anything is done.
    """
    missing = [corpora / file for name in names for file in CORPORA[name].files if not (corpora / file).is_file()]
    if missing:
        named = ", ".join(str(path) for path in missing)
        raise CorpusMissing(f"not there: {named}; pass the folder of the corpora with --corpora")
    out.mkdir(parents=True, exist_ok=True)
    return [_prepared(name, corpora, out) for name in names]


def _prepared(name: str, corpora: Path, out: Path) -> Path:
    corpus, manifest, mark = CORPORA[name], out / f"{name}.csv", out / f".{name}.json"
    sources = {file: _state(corpora / file) for file in corpus.files}
    # What this file does shapes the manifest, too.
    sources["importer"] = sha256(Path(__file__).read_bytes()).hexdigest()
    text = json.dumps(sources)
    if manifest.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == text:
        return manifest
    folder = out / (corpus.unpacked or name)
    if corpus.archive is not None:
        _unpack(corpora / corpus.archive, folder)
    try:
        rows = list(corpus.rows(corpora, folder))
    except (KeyError, IndexError, ValueError) as error:
        named = " or ".join(str(corpora / file) for file in corpus.files)
        raise CorpusMissing(f"{named} is not what it should be ({error!r}): fetch it again") from error
    columns = list(rows[0]) if rows else ["id"]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(manifest, table.getvalue())
    write_atomically(mark, text)
    return manifest


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _unpack(archive: Path, folder: Path) -> None:
    """Every file of the archive that does not lie in the folder with its size."""
    try:
        with zipfile.ZipFile(archive) as opened:
            files = [info for info in opened.infolist() if not info.is_dir()]
            for info in followed(files, f"Unpacking {archive.name}", "files"):
                target = folder / info.filename
                if ".." in target.parts or not target.is_relative_to(folder):
                    raise CorpusMissing(f"{archive} names the file {info.filename!r} outside of it: fetch it again")
                if target.is_file() and target.stat().st_size == info.file_size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                # One that is cut has another size, and is written anew.
                target.write_bytes(opened.read(info))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise CorpusMissing(f"{archive} is damaged or cannot be unpacked ({error}): fetch it again") from error
