"""Media files as samples of a live capture, and what is told of files that are damaged or cut off."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dhmd.errors import MediaUnreadable
from realtime.capture.media import BLOCK_SAMPLES, MediaFile
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock, VideoFrame

MakeMedia = Callable[..., Path]

PICTURES = ("-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=2")
TONE = ("-f", "lavfi", "-i", "sine=440:r=44100:d=2,volume=4")
H264 = ("-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="session")
def clip(make_media: MakeMedia) -> Path:
    """2 s, 25 pictures a second, a tone of 440 Hz; an index at the front, so that a part of it still plays."""
    return make_media("clip.mp4", *PICTURES, *TONE, *H264, "-movflags", "+faststart")


def test_sound_comes_in_blocks_that_touch(clip: Path) -> None:
    blocks = list(MediaFile(clip).blocks())
    assert {len(block.samples) for block in blocks[:-1]} == {BLOCK_SAMPLES}
    assert [block.captured_s for block in blocks] == pytest.approx(
        [i * 512 / SAMPLE_RATE_HZ for i in range(len(blocks))]
    )


def test_samples_come_as_a_live_capture_would_deliver_them(clip: Path) -> None:
    media = MediaFile(clip)
    samples = list(media.samples())
    assert [s.arrived_s for s in samples] == sorted(s.arrived_s for s in samples)
    frames = [s for s in samples if isinstance(s, VideoFrame)]
    blocks = [s for s in samples if isinstance(s, AudioBlock)]
    assert [f.captured_s for f in frames] == [f.captured_s for f in media.frames()]
    assert all(f.arrived_s == f.captured_s for f in frames)
    assert all(b.arrived_s == b.end_s for b in blocks)
    assert sum(len(b.samples) for b in blocks) == sum(len(piece) for piece in media.reader.sound())


def test_every_pass_gives_the_same(clip: Path) -> None:
    media = MediaFile(clip)
    for first, second in zip(media.samples(), media.samples(), strict=True):
        assert (first.captured_s, first.arrived_s) == (second.captured_s, second.arrived_s)
        if isinstance(first, VideoFrame):
            assert isinstance(second, VideoFrame)
            assert np.array_equal(first.image, second.image)
        else:
            assert isinstance(second, AudioBlock)
            assert np.array_equal(first.samples, second.samples)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0.02, 0.97))
@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_truncated_file_gives_what_there_is_and_says_so(
    make_media: MakeMedia, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, part: float
) -> None:
    whole = clip if name == "cut.mp4" else make_media("whole.mkv", *PICTURES, *TONE, *H264)
    data = whole.read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: int(len(data) * part)])
    complete = [frame.captured_s for frame in MediaFile(whole).frames()]
    caplog.clear()
    try:
        media = MediaFile(cut)
    except MediaUnreadable:
        with pytest.raises(MediaUnreadable, match=rf"^{re.escape(str(cut))}: [^\n]+\Z"):
            MediaFile(cut)
        return
    samples = list(media.samples())
    seen = [s.captured_s for s in samples if isinstance(s, VideoFrame)]
    # Pictures are stored in another order than shown: at the cut a few may be missing between others.
    assert seen == sorted(set(seen) & set(complete))
    assert len(seen) >= sum(t <= max(seen, default=-1) for t in complete) - 3
    if max(s.arrived_s for s in samples) < 1.4:
        assert media.missing_s > 0.5
        assert caplog.text.count(f"cut off {media.missing_s:.1f} s before its stated end") == 1


def test_damage_in_the_middle_is_left_out_and_counted(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    media = MediaFile(damaged)
    samples = list(media.samples())
    assert sum(track.damaged for track in media.reader.tracks) > 0
    assert "damaged packets" in caplog.text
    assert max(s.captured_s for s in samples if isinstance(s, VideoFrame)) == pytest.approx(49 / 25)
