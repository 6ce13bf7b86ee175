"""Labelled utterances: what was said, heard and seen of one person at one time, and the features of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from dhmd.contract import Rows, Word
from dhmd.modality import Modality

SESSION: Final = ".mcap"
"""Ending of the files that `dhmd-live` records."""


def is_session(path: Path) -> bool:
    return path.suffix.lower() == SESSION


class Split(StrEnum):
    """The use that an utterance may be put to; a group (speaker, subject, dialogue, video) is in one split only."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One row of a manifest.

    id: unique among all manifests, CORPUS/ID. corpus: name of its manifest. group: who or where it comes from.
    emotion: one of EMOTIONS, None unknown. sentiment: in [-3, 3], None unknown.
    votes: shares of the people asked that named each of EMOTIONS, which sum to 1; None where nobody counted.
    extra: labels for heads of one's own that are known, by the head's name: the place of a class, or a number.
    text: as written; words: the same with times from the utterance's start, where they are known.
    audio, video: a recording, of which the part from `start_s` to `end_s` (None: its end) is meant; as video also a
    session that was recorded live.
    image: a still. An utterance has a video or a still, not both.
    """

    id: str
    corpus: str
    split: Split
    group: str
    emotion: str | None = None
    sentiment: float | None = None
    votes: tuple[float, ...] | None = None
    text: str | None = None
    words: tuple[Word, ...] | None = None
    audio: Path | None = None
    image: Path | None = None
    video: Path | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def session(self) -> Path | None:
        """The session whose features are taken as they were recorded, in place of a film."""
        return self.video if self.video is not None and is_session(self.video) else None

    @property
    def sound(self) -> Path | None:
        """The file in which its voice is recorded, if any: a file of its own before the video's sound track."""
        return self.audio or (None if self.session else self.video)


def counted(utterances: Iterable[Utterance]) -> dict[str, dict[str, int]]:
    """Numbers of utterances by manifest and split."""
    counts: dict[str, dict[str, int]] = {}
    for one in utterances:
        counts.setdefault(one.corpus, dict.fromkeys(Split, 0))[one.split] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Example:
    """An utterance with its features by modality; one that was not perceived (no face, no voice) is left out.

    Row times count from the start of the utterance, on one clock, except those of a still: they are variants of one
    moment.
    """

    utterance: Utterance
    rows: Mapping[Modality, Rows]

    @property
    def still(self) -> bool:
        """Tells whether its vision rows are variants of a still and not pictures over time."""
        return self.utterance.image is not None
