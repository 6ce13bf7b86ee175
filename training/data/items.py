"""A labelled piece of one modality: a clip, a sentence or an image."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from dhmd.contract import Rows, Word
from dhmd.modality import Modality


class Split(StrEnum):
    """What an item may be used for; a group (speaker, subject, dialogue, video) is in one split only."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Archived:
    """A file inside a zip archive."""

    archive: Path
    member: str

    def read(self) -> bytes:
        return _open(self.archive).read(self.member)


@lru_cache(maxsize=8)
def _open(archive: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled piece of one modality.

    id: unique among all corpora. group: who or where it comes from.
    content: words with times from 0, or a file. emotion: one of EMOTIONS, None unknown.
    sentiment: in [-3, 3], None unknown.
    """

    id: str
    corpus: str
    split: Split
    group: str
    modality: Modality
    content: tuple[Word, ...] | Archived
    emotion: str | None = None
    sentiment: float | None = None

    def digest(self) -> str:
        """sha256 of the content, wherever it lies."""
        if isinstance(self.content, Archived):
            return hashlib.sha256(self.content.read()).hexdigest()
        return hashlib.sha256(json.dumps([astuple(word) for word in self.content]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Example:
    """An item with its features. Row times count from the start of the item."""

    item: Item
    rows: Rows
