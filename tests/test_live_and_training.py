"""What training reads of a file is what a live run reads of it, bit for bit: files of every odd kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from dhmd.features.timeline import SAMPLE_RATE_HZ
from realtime.capture.media import MediaFile
from realtime.capture.samples import AudioBlock
from training.data import media

MakeMedia = Callable[..., Path]

PICTURES: Final = ("-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=2")
TONE: Final = ("-f", "lavfi", "-i", "aevalsrc='0.4*sin(2800*t)|0.3*sin(2000*t)':s=44100:d=2")
H264: Final = ("-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p")
GAPS: Final = ("-af", "aselect='not(between(t,0.2,0.25)+between(t,0.6,1)+between(t,1.4,1.42))'")
"""Leaves out two, many and one of the pieces of 23 ms that FFmpeg makes: a short gap, a long one, and mere jitter."""
MADE: Final = {
    "plain.mp4": (*PICTURES, *TONE, *H264),
    "gaps.mkv": (*PICTURES, *TONE, *GAPS, *H264, "-c:a", "pcm_s16le"),
    "later.mkv": (*PICTURES, "-itsoffset", "0.7", *TONE, *H264),
    "earlier.mkv": ("-itsoffset", "0.7", *PICTURES, *TONE, *H264),
    "offset.ts": (*PICTURES, *TONE, *H264, "-output_ts_offset", "1000"),
    "stereo.ts": (*PICTURES, *TONE, *H264, "-c:a", "mp2"),
    "low.ts": (*PICTURES, *TONE, *H264, "-c:a", "mp2", "-ar", "32000", "-ac", "1"),
    "uneven.mp4": (*PICTURES, *TONE, "-vf", "select='lt(n,10)+not(mod(n,7))'", "-vsync", "vfr", *H264),
    "film.mpg": (*PICTURES, *TONE, "-c:v", "mpeg1video", "-c:a", "mp2"),
    "six.wav": ("-f", "lavfi", "-i", f"aevalsrc='{'|'.join(['0.9*sin(1900*t)'] * 6)}':s=48000:d=2"),
    "unstamped.h264": (*PICTURES, *H264),
}
SPOILED: Final = ("turned.mp4", "spliced.ts", "damaged.mp4", "cut.mkv")


@pytest.fixture(params=[*MADE, *SPOILED])
def path(request: pytest.FixtureRequest, make_media: MakeMedia, tmp_path: Path) -> Path:
    """A file of each kind, one after the other."""

    def made(name: str) -> Path:
        return make_media(f"odd-{name}", *MADE[name])

    kind: str = request.param
    if kind in MADE:
        return made(kind)
    if kind == "turned.mp4":
        return make_media(f"odd-{kind}", "-i", str(made("plain.mp4")), "-c", "copy", "-metadata:s:v", "rotate=90")
    whole = bytearray(made("later.mkv" if kind == "cut.mkv" else "plain.mp4").read_bytes())
    middle = len(whole) // 2
    if kind == "spliced.ts":  # where its stamps run backwards, the sound's rate and layout change, too
        whole = bytearray(made("stereo.ts").read_bytes() + made("low.ts").read_bytes())
    elif kind == "damaged.mp4":
        whole[middle : middle + 3000] = bytes(3000)
    else:
        del whole[middle:]
    spoiled = tmp_path / kind
    spoiled.write_bytes(whole)
    return spoiled


def test_a_whole_file(path: Path) -> None:
    live = MediaFile(path)
    frames, blocks = list(live.frames()), list(live.blocks())
    assert frames or blocks
    pictures = list(media.pictures(path))
    assert [picture.time_s for picture in pictures] == [frame.captured_s for frame in frames]
    for picture, frame in zip(pictures, frames, strict=True):
        np.testing.assert_array_equal(picture.image(), frame.image)
    samples, begin_s = media.sound(path)
    np.testing.assert_array_equal(samples, joined(blocks))
    assert begin_s == (blocks[0].captured_s if blocks else 0.0)


def test_a_part_of_a_file(path: Path) -> None:
    start_s, end_s = 0.25, 1.3
    live = MediaFile(path)
    meant = [frame for frame in live.frames() if start_s <= frame.captured_s < end_s]
    pictures = list(media.pictures(path, start_s, end_s))
    assert [picture.time_s for picture in pictures] == [frame.captured_s - start_s for frame in meant]
    for picture, frame in zip(pictures, meant, strict=True):
        np.testing.assert_array_equal(picture.image(), frame.image)
    samples, begin_s = media.sound(path, start_s, end_s)
    blocks = list(live.blocks())
    first_s = blocks[0].captured_s if blocks else 0.0
    skipped = max(0, round((start_s - first_s) * SAMPLE_RATE_HZ))
    heard = joined(blocks)[skipped : round((end_s - first_s) * SAMPLE_RATE_HZ)]
    assert len(samples) == len(heard)
    # At the end the filter of training has seen nothing of what follows.
    settled = slice(0, len(heard) - 32)
    np.testing.assert_array_equal(samples[settled], heard[settled])
    if len(heard):
        assert begin_s == pytest.approx(first_s + skipped / SAMPLE_RATE_HZ - start_s, abs=1e-9)


def joined(blocks: list[AudioBlock]) -> NDArray[np.float32]:
    return np.concatenate([np.empty(0, np.float32), *(block.samples for block in blocks)])
