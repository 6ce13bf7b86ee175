"""Films whose stamps jump, in all tracks or in one; the same pictures and sounds with stamps of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.reader import STANDS_S, MediaReader

MakeMedia = Callable[..., Path]
HOUR_S = 3600.0


@pytest.fixture(scope="session")
def film(make_media: MakeMedia) -> Path:
    """2 s of pictures, white from 1.2 s on, and a beep there."""
    flash = "color=black:s=160x120:r=25:d=2,drawbox=c=white:t=fill:enable='gte(t,1.2)'"
    beep = "sine=1000:r=48000:d=2,volume=4,volume=0:enable='lt(t,1.2)'"
    codecs = ("-c:v", "libx264", "-bf", "2", "-g", "10", "-pix_fmt", "yuv420p", "-c:a", "mp2")
    return make_media("to_stamp.mp4", "-f", "lavfi", "-i", flash, "-f", "lavfi", "-i", beep, *codecs)


def restamped(
    source: Path,
    path: Path,
    stamp: Callable[[str, float], float],
    wanted: Callable[[float], bool] = lambda stamp_s: True,
) -> MediaReader:
    """The packets of `source` in their order, stamped by `stamp(kind of the stream, its own stamp)`."""
    with av.open(str(source)) as film, av.open(str(path), "w") as copy:
        copies = {stream.index: copy.add_stream_from_template(stream) for stream in film.streams}
        for packet in film.demux():
            if packet.dts is None or packet.pts is None:
                continue
            base, delay = packet.time_base, packet.pts - packet.dts
            if not wanted(float(packet.dts * base)):
                continue
            moved_s = stamp(packet.stream.type, float(packet.dts * base))
            packet.stream = copies[packet.stream_index]
            packet.dts = round(moved_s / base)
            packet.pts = packet.dts + delay
            copy.mux(packet)
    return MediaReader(path)


def flash_and_beep_s(media: MediaReader) -> tuple[float, float]:
    flash_s = next(picture.time_s for picture in media.pictures() if picture.image().mean() > 128)
    heard = np.concatenate(list(media.sound()))
    return flash_s, media.sound_start_s + float(np.flatnonzero(np.abs(heard) > 0.1)[0]) / SAMPLE_RATE_HZ


def jumping(by_s: float) -> Callable[[str, float], float]:
    return lambda kind, stamp_s: stamp_s + (by_s if stamp_s > 0.8 else 0.0)


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
@pytest.mark.parametrize("jump_s", [10 * HOUR_S, 20.0])
def test_a_jump_of_all_tracks_is_a_splice(film: Path, tmp_path: Path, jump_s: float, suffix: str) -> None:
    media = restamped(film, tmp_path / f"jump.{suffix}", jumping(jump_s))
    times_s = [picture.time_s for picture in media.pictures()]
    assert len(times_s) == 50
    assert times_s[-1] == pytest.approx(49 / 25, abs=0.25)
    assert sum(len(piece) for piece in media.sound()) == pytest.approx(2 * SAMPLE_RATE_HZ, abs=4000)
    flash_s, beep_s = flash_and_beep_s(media)
    assert flash_s == pytest.approx(beep_s, abs=0.08)
    assert [len(track.splices) for track in media.tracks] == [1, 1]
    assert media.tracks[0].splices == media.tracks[1].splices
    assert media.missing_s == 0


def test_stamps_that_fall_back_go_on(film: Path, tmp_path: Path) -> None:
    """Two recordings in one file, the second with an earlier clock."""
    parts = [tmp_path / f"part{number}.ts" for number in range(2)]
    restamped(film, parts[0], lambda kind, stamp_s: stamp_s + HOUR_S)
    restamped(film, parts[1], lambda kind, stamp_s: stamp_s + 10)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    media = MediaReader(joined)
    times_s = [picture.time_s for picture in media.pictures()]
    assert len(times_s) == 100
    assert times_s[-1] == pytest.approx(99 / 25, abs=0.25)
    assert sum(len(piece) for piece in media.sound()) == pytest.approx(4 * SAMPLE_RATE_HZ, abs=4000)


def test_stamps_astray_for_a_moment_move_nothing_else(film: Path, tmp_path: Path) -> None:
    astray = tmp_path / "astray.ts"
    with astray.open("wb") as file:
        for begin_s, end_s, by_s in [(-1, 0.6, 0), (0.6, 0.8, 5 * HOUR_S), (0.8, 3, 0)]:
            part = tmp_path / f"{begin_s}.ts"
            restamped(film, part, lambda _, s, by_s=by_s: s + by_s, lambda s, a=begin_s, b=end_s: a <= s < b)
            file.write(part.read_bytes())
    media = MediaReader(astray)
    assert list(media.pictures())[-1].time_s == pytest.approx(49 / 25, abs=0.05)
    assert flash_and_beep_s(media) == pytest.approx((1.2, 1.2), abs=0.05)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize("late", ["audio", "video"])
def test_a_track_that_begins_an_hour_later_begins_with_the_other(
    film: Path, tmp_path: Path, late: str, suffix: str
) -> None:
    media = restamped(film, tmp_path / f"late.{suffix}", lambda kind, s: s + (HOUR_S if kind == late else 0))
    assert list(media.pictures())[-1].time_s == pytest.approx(49 / 25, abs=0.2)
    assert media.sound_start_s + sum(len(piece) for piece in media.sound()) / SAMPLE_RATE_HZ < 2.3
    flash_s, beep_s = flash_and_beep_s(media)
    assert flash_s == pytest.approx(beep_s, abs=0.2)


def test_negative_stamps_begin_at_zero(film: Path, tmp_path: Path) -> None:
    media = restamped(film, tmp_path / "negative.nut", lambda kind, stamp_s: stamp_s - 100)
    assert next(media.pictures()).time_s == pytest.approx(0, abs=0.1)
    assert flash_and_beep_s(media) == pytest.approx((1.2, 1.2), abs=0.05)


def test_a_clock_that_wraps_goes_on(film: Path, tmp_path: Path) -> None:
    """33 bits of 90 kHz, as in every transport stream."""
    media = restamped(film, tmp_path / "wraps.ts", lambda kind, stamp_s: stamp_s + 2**33 / 90_000 - 1)
    assert list(media.pictures())[-1].time_s == pytest.approx(49 / 25, abs=0.2)
    flash_s, beep_s = flash_and_beep_s(media)
    assert flash_s == pytest.approx(beep_s, abs=0.08)


def test_a_picture_that_stands_while_the_sound_goes_on_is_no_splice(make_media: MakeMedia) -> None:
    slides = ("-f", "lavfi", "-i", "testsrc=s=160x120:r=1/25:d=75")
    sound = ("-f", "lavfi", "-i", "sine=440:r=16000:d=75")
    media = MediaReader(make_media("slides.mkv", *slides, *sound, "-c:v", "libx264", "-g", "1", "-c:a", "pcm_s16le"))
    assert [picture.time_s for picture in media.pictures()] == pytest.approx(np.arange(0, 75, STANDS_S))
    assert sum(len(piece) for piece in media.sound()) == pytest.approx(75 * SAMPLE_RATE_HZ, abs=100)
    assert not any(track.splices for track in media.tracks)


def test_few_pictures_without_sound_keep_their_times(make_media: MakeMedia) -> None:
    slides = ("-f", "lavfi", "-i", "testsrc=s=160x120:r=1/25:d=75")
    media = MediaReader(make_media("slides.mp4", *slides, "-c:v", "libx264"))
    assert [picture.time_s for picture in media.pictures()] == pytest.approx(np.arange(0, 75, STANDS_S))


def test_equal_stamps_neither_lose_the_rest_nor_stretch_it(film: Path, tmp_path: Path) -> None:
    media = restamped(film, tmp_path / "equal.mkv", lambda kind, stamp_s: stamp_s // 0.08 * 0.08)
    times_s = [picture.time_s for picture in media.pictures()]
    assert times_s == sorted(set(times_s))
    assert times_s[-1] == pytest.approx(2, abs=0.6)
    assert len(times_s) > 35
