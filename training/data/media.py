"""The part of a file that an utterance means, and a look whether a file can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import MediaUnreadable
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.picture import Picture, read_image
from dhmd.media.reader import MediaReader


class Kind(StrEnum):
    """The use that a manifest names a file for."""

    AUDIO = "audio"
    IMAGE = "image"
    VIDEO = "video"


def probe(kind: Kind, path: Path) -> float | None:
    """Open a file and decode the first of it. Returns its duration in seconds where it states one.

    Raises MediaUnreadable.
    """
    if kind is Kind.IMAGE:
        import cv2

        read_image(path, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        return None
    media = MediaReader(path)
    track, what = (media.film, "pictures") if kind is Kind.VIDEO else (media.soundtrack, "sound")
    if track is None:
        raise MediaUnreadable(f"{path}: has no {what} that can be decoded; name a file that has")
    return media.duration_s


def pictures(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Iterator[Picture]:
    """Pictures that a film shows from `start_s` on and before `end_s`, at increasing times from `start_s`.

    Raises MediaUnreadable.
    """
    for picture in MediaReader(path).pictures():
        if end_s is not None and picture.time_s >= end_s:
            return
        if picture.time_s >= start_s:
            yield replace(picture, time_s=picture.time_s - start_s)


def sound(path: Path, start_s: float = 0.0, end_s: float | None = None) -> tuple[NDArray[np.float32], float]:
    """(N,) samples from `start_s` to `end_s`, 16 kHz mono in [-1, 1], and the time of the first from `start_s` on.

    No samples where the file has no sound. Raises MediaUnreadable.
    """
    media = MediaReader(path)
    samples = np.concatenate([np.empty(0, np.float32), *media.sound(end_s)])
    begin_s = media.sound_start_s - start_s  # of the first sample, on the utterance's clock
    skipped = max(0, round(-begin_s * SAMPLE_RATE_HZ))
    last = None if end_s is None else max(0, round((end_s - start_s - begin_s) * SAMPLE_RATE_HZ))
    return samples[skipped:last], begin_s + skipped / SAMPLE_RATE_HZ
