"""Media files of many kinds, made by FFmpeg with known times; and files that are no media."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from dhmd.errors import MediaUnreadable
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.picture import turned
from dhmd.media.reader import MediaReader

MakeMedia = Callable[..., Path]

PICTURES = ("-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=2")
TONE = ("-f", "lavfi", "-i", "sine=440:r=44100:d=2,volume=4")
FLASH = ("-f", "lavfi", "-i", "color=black:s=160x120:r=25:d=2,drawbox=c=white:t=fill:enable='between(t,1,1.19)'")
BEEP = ("-f", "lavfi", "-i", "sine=1000:r=48000:d=2,volume=4,volume=0:enable='lt(t,1)'")
H264 = ("-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="session")
def clip(make_media: MakeMedia) -> Path:
    """2 s, 25 pictures a second, a tone of 440 Hz; an index at the front, so that a part of it still plays."""
    return make_media("clip.mp4", *PICTURES, *TONE, *H264, "-movflags", "+faststart")


def sound(media: MediaReader) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.concatenate([np.empty(0, np.float32), *media.sound()])


def test_pictures_and_sound_come_at_their_times(clip: Path) -> None:
    media = MediaReader(clip)
    pictures = list(media.pictures())
    assert [picture.time_s for picture in pictures] == pytest.approx([i / 25 for i in range(50)])
    images = [picture.image() for picture in pictures]
    assert {(image.shape, image.dtype.name) for image in images} == {((120, 160, 3), "uint8")}
    heard = sound(media)
    assert len(heard) == pytest.approx(2 * SAMPLE_RATE_HZ, abs=512)  # AAC pads its last packet
    spectrum = np.abs(np.fft.rfft(heard[8000:24000]))
    assert spectrum.argmax() == 440
    assert np.abs(heard[8000:24000]).max() == pytest.approx(0.5, abs=0.02)
    assert media.sound_start_s == 0
    assert [track.damaged for track in media.tracks] == [0, 0]
    assert media.missing_s == 0


def test_pictures_that_are_kept_keep_no_threads(clip: Path) -> None:
    pictures = list(MediaReader(clip).pictures())
    before = psutil.Process().num_threads()
    images = [picture.image() for picture in pictures]
    assert psutil.Process().num_threads() <= before + 1
    assert len(images) == 50


def test_pictures_are_bgr(make_media: MakeMedia) -> None:
    red = make_media("red.mp4", "-f", "lavfi", "-i", "color=red:s=64x64:r=5:d=1", *H264)
    blue_green_red = next(MediaReader(red).pictures()).image().mean(axis=(0, 1))
    assert blue_green_red == pytest.approx([0, 0, 254], abs=4)


@pytest.mark.parametrize("width", [62, 160, 250, 360])
def test_pictures_of_any_width_are_contiguous_as_face_landmarker_asks(make_media: MakeMedia, width: int) -> None:
    odd = make_media(f"w{width}.mp4", "-f", "lavfi", "-i", f"testsrc=s={width}x64:r=5:d=1", *H264)
    image = next(MediaReader(odd).pictures()).image()
    assert image.shape == (64, width, 3)
    assert image.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("sync.mp4", H264),
        ("sync.mkv", H264),
        ("sync.ts", H264),
        ("sync.mov", ("-c:v", "mjpeg", "-c:a", "pcm_s16le")),
        ("sync.avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
        ("sync.mpg", ("-c:v", "mpeg1video", "-c:a", "mp2")),
        ("sync.webm", ("-c:v", "libvpx", "-c:a", "libopus")),
    ],
)
def test_a_flash_and_a_beep_at_one_second_stay_together(make_media: MakeMedia, name: str, codecs: list[str]) -> None:
    media = MediaReader(make_media(name, *FLASH, *BEEP, *codecs))
    flash_s = next(picture.time_s for picture in media.pictures() if picture.image().mean() > 128)
    heard = sound(media)
    beep_s = media.sound_start_s + np.flatnonzero(np.abs(heard) > 0.1)[0] / SAMPLE_RATE_HZ
    # MP3 in AVI carries no account of its encoder's delay of about 25 ms.
    assert flash_s - beep_s == pytest.approx(0, abs=0.03)
    assert flash_s == pytest.approx(1.0, abs=0.05)


def test_a_variable_frame_rate_keeps_its_own_times(make_media: MakeMedia) -> None:
    uneven = ("-vf", "select='lt(n,10)+not(mod(n,7))'", "-vsync", "vfr")
    media = MediaReader(make_media("uneven.mp4", *PICTURES, *uneven, *H264))
    expected = [n / 25 for n in range(50) if n < 10 or n % 7 == 0]
    assert [picture.time_s for picture in media.pictures()] == pytest.approx(expected)


def test_stamps_that_start_anywhere_start_at_zero_here(make_media: MakeMedia) -> None:
    media = MediaReader(make_media("late.ts", *PICTURES, *TONE, *H264, "-output_ts_offset", "1000"))
    assert min(next(media.pictures()).time_s, media.sound_start_s) == 0
    assert [picture.time_s for picture in media.pictures()][-1] == pytest.approx(49 / 25, abs=0.05)


def test_sound_that_starts_later_keeps_its_distance(make_media: MakeMedia) -> None:
    media = MediaReader(make_media("later.mkv", *PICTURES, "-itsoffset", "0.7", *TONE, *H264))
    assert next(media.pictures()).time_s == pytest.approx(0, abs=0.025)
    assert media.sound_start_s == pytest.approx(0.7, abs=0.025)


def test_pictures_without_stamps_follow_the_frame_rate(make_media: MakeMedia) -> None:
    media = MediaReader(make_media("raw.h264", *PICTURES, *H264))
    assert [picture.time_s for picture in media.pictures()] == pytest.approx([i / 25 for i in range(50)])


def test_a_gap_in_the_sound_is_silence(make_media: MakeMedia) -> None:
    gap = ("-af", "aselect='lt(t,0.8)+gt(t,1.3)'", "-c:a", "pcm_s16le")
    media = MediaReader(make_media("gap.mkv", *TONE, *gap))
    heard = sound(media)
    loud = np.abs(heard[: len(heard) // 100 * 100]).reshape(-1, 100).max(axis=1) > 0.1
    quiet_s = np.flatnonzero(~loud) * 100 / SAMPLE_RATE_HZ
    assert len(heard) == pytest.approx(2 * SAMPLE_RATE_HZ, abs=100)
    assert quiet_s[0] == pytest.approx(0.8, abs=0.04)
    assert quiet_s[-1] == pytest.approx(1.3, abs=0.04)


def test_sound_that_changes_its_rate_and_layout_is_heard_whole(make_media: MakeMedia, tmp_path: Path) -> None:
    mono = make_media("mono.ts", "-f", "lavfi", "-i", "sine=440:r=48000:d=1,volume=4", "-c:a", "mp2")
    tones = "aevalsrc='0.5*sin(2*PI*660*t)|0.5*sin(2*PI*660*t)':s=32000:d=1"
    stereo = make_media("stereo.ts", "-f", "lavfi", "-i", tones, "-c:a", "mp2")
    changing = tmp_path / "changing.ts"
    changing.write_bytes(mono.read_bytes() + stereo.read_bytes())
    heard = sound(MediaReader(changing))
    assert len(heard) == pytest.approx(2 * SAMPLE_RATE_HZ, abs=1200)  # MP2 fills its last frames
    for part, tone_hz in ((heard[4000:12000], 440), (heard[20000:28000], 660)):
        assert np.abs(np.fft.rfft(part)).argmax() * 2 == tone_hz


def test_film_without_sound(make_media: MakeMedia) -> None:
    media = MediaReader(make_media("silent.mp4", *PICTURES, *H264))
    assert (media.film is not None, media.soundtrack) == (True, None)
    assert media.duration_s == pytest.approx(2, abs=0.01)
    assert list(media.sound()) == []
    assert len(list(media.pictures())) == 50


def test_sound_without_film_even_with_cover_art(make_media: MakeMedia) -> None:
    cover = make_media("cover.png", "-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-frames:v", "1")
    mapped = ("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic")
    media = MediaReader(make_media("song.mp3", *TONE, "-i", str(cover), *mapped))
    assert (media.film, media.soundtrack is not None) == (None, True)
    assert list(media.pictures()) == []
    assert len(sound(media)) == pytest.approx(2 * SAMPLE_RATE_HZ, rel=0.05)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_mixing_down_keeps_the_level(make_media: MakeMedia, channels: int) -> None:
    """A loud tone, alike on all channels, neither clips nor fades."""
    tones = "|".join(["0.9*sin(2*PI*300*t)"] * channels)
    source = ("-f", "lavfi", "-i", f"aevalsrc='{tones}':s=48000:d=1", "-c:a", "pcm_s16le")
    heard = sound(MediaReader(make_media(f"loud{channels}.wav", *source)))
    assert np.abs(heard[2000:-2000]).max() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phone_held_sideways_is_turned_upright(make_media: MakeMedia, degrees: int) -> None:
    level = make_media("level.mp4", *PICTURES, *H264)
    turned = make_media(f"turned{degrees}.mp4", "-i", str(level), "-c", "copy", "-metadata:s:v", f"rotate={degrees}")
    raw = ["ffmpeg", "-v", "error", "-i", str(turned), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    upright = np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8)
    image = next(MediaReader(turned).pictures()).image()
    assert image.shape == ((160, 120, 3) if degrees != 180 else (120, 160, 3))
    # Two builds of FFmpeg convert colours with different rounding.
    assert np.abs(image.astype(int) - upright.reshape(image.shape)).mean() < 2


def unreadable(path: Path) -> str:
    with pytest.raises(MediaUnreadable) as caught:
        MediaReader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_what_is_no_media_is_refused_in_one_line(tmp_path: Path, clip: Path) -> None:
    assert "no such file" in unreadable(tmp_path / "missing.mp4")
    assert "is a directory" in unreadable(tmp_path)
    assert "not a regular file" in unreadable(Path("/dev/null"))
    for name, content, cause in [
        ("empty.mp4", b"", "is empty (0 bytes)"),
        ("words.txt", b"these are words\n" * 40, "not a media file"),
        ("words.mp4", b"these are words\n" * 40, "not a media file"),
        ("noise.bin", np.random.default_rng(0).bytes(20_000), "not a media file"),
        ("titles.srt", b"1\n00:00:00,000 --> 00:00:02,000\nhello\n\n", "not a media file"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        assert cause in unreadable(path)


def test_an_mp4_without_its_index_is_said_to_be_cut_off(make_media: MakeMedia, tmp_path: Path) -> None:
    whole = make_media("index_last.mp4", *PICTURES, *H264).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "without its index" in unreadable(cut)


def test_a_file_of_zero_length_is_refused(make_media: MakeMedia) -> None:
    none = make_media("none.wav", "-f", "lavfi", "-i", "sine=440:d=1", "-t", "0")
    assert "zero length" in unreadable(none)


def test_a_playlist_opens_no_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/part.ts"
        playlist = tmp_path / "list.m3u8"
        playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n")
        unreadable(playlist)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_playlists_and_lists_of_files_are_not_followed(make_media: MakeMedia, tmp_path: Path) -> None:
    """Whatever their suffix: each names another file, which FFmpeg would open."""
    film = make_media("part.ts", *PICTURES, *H264)
    for name, text in [
        ("hls.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n"),
        ("relative.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n../{film.name}\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", f"ffconcat version 1.0\nfile 'file://{film}'\n"),
        ("concat.txt", f"ffconcat version 1.0\nfile '{film}'\n"),
        ("session.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"),
        ("dash.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>'),
    ]:
        path = tmp_path / name
        path.write_text(text)
        assert "not a media file" in unreadable(path)


def test_pixels_that_are_not_square_are_made_so(make_media: MakeMedia) -> None:
    for name, sar, shape in [("wide", "4/3", (120, 213, 3)), ("high", "8/9", (135, 160, 3)), ("absurd", "90/1", None)]:
        media = MediaReader(make_media(f"{name}.mkv", *PICTURES, "-vf", f"setsar={sar}", *H264))
        assert next(media.pictures()).image().shape == (shape or (120, 160, 3))


def with_clean_aperture(film: bytes, left: int, right: int, top: int, bottom: int, size: tuple[int, int]) -> bytes:
    """An MP4 file, its index last, with a `clap` box (ISO/IEC 14496-12) in its first track."""
    width, height = size[0] - left - right, size[1] - top - bottom
    # Centres are told in halves, from that of the whole.
    fields = (width, 1, height, 1, left - right, 2, top - bottom, 2)
    clap = (40).to_bytes(4) + b"clap" + b"".join(number.to_bytes(4, signed=True) for number in fields)
    grown, at = bytearray(film), 0
    for name, header in [
        (b"moov", 8),
        (b"trak", 8),
        (b"mdia", 8),
        (b"minf", 8),
        (b"stbl", 8),
        (b"stsd", 16),
        (b"avc1", 0),
    ]:
        while grown[at + 4 : at + 8] != name:
            at += int.from_bytes(grown[at : at + 4])
        length = int.from_bytes(grown[at : at + 4])
        grown[at : at + 4] = (length + len(clap)).to_bytes(4)
        if name == b"avc1":
            grown[at + length : at + length] = clap
        at += header
    return bytes(grown)


def test_a_cropping_rectangle_of_the_container_is_cut_out(make_media: MakeMedia, tmp_path: Path) -> None:
    whole = make_media("whole.mp4", *PICTURES, *H264)
    cropped = tmp_path / "cropped.mp4"
    cropped.write_bytes(with_clean_aperture(whole.read_bytes(), 10, 20, 6, 14, (160, 120)))
    image = next(MediaReader(whole).pictures()).image()
    assert (next(MediaReader(cropped).pictures()).image() == image[6:-14, 10:-20]).all()


MIRRORED = {"left_right": [-1, 0, 0, 1], "up_down": [1, 0, 0, -1], "diagonal": [0, 1, 1, 0], "other": [0, -1, -1, 0]}


@pytest.mark.parametrize("name", MIRRORED)
def test_a_matrix_that_mirrors_is_followed_whole(make_media: MakeMedia, name: str, tmp_path: Path) -> None:
    """The matrix lies in the track's header (tkhd), the elements at nine places of 4 bytes; 1 is 1 << 16."""
    level = make_media("level.mp4", *PICTURES, *H264)
    film, unity = bytearray(level.read_bytes()), (1 << 16).to_bytes(4)
    at = film.index(unity, film.index(b"tkhd") + 40)
    for place, element in zip((0, 4, 12, 16), MIRRORED[name], strict=True):
        film[at + place : at + place + 4] = (element << 16).to_bytes(4, signed=True)
    mirrored = tmp_path / "mirrored.mp4"
    mirrored.write_bytes(film)
    image = next(MediaReader(level).pictures()).image()
    shown = {
        "left_right": image[:, ::-1],
        "up_down": image[::-1],
        "diagonal": image.swapaxes(0, 1),
        "other": image[::-1, ::-1].swapaxes(0, 1),
    }[name]
    assert (next(MediaReader(mirrored).pictures()).image() == shown).all()


def test_a_matrix_of_any_angle_turns_about_it() -> None:
    image = np.zeros((90, 120, 3), np.uint8)
    image[:45] = 255  # a horizon
    angle = np.radians(30)
    matrix = np.eye(3)
    matrix[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    shown = turned(image, np.round(matrix * (1 << 16)).astype(np.int32))
    height, width = shown.shape[:2]
    assert (height, width) == pytest.approx((138, 149), abs=1)
    # Clockwise on the screen: what was above lies at the upper right.
    assert shown[height // 2 - 20, width // 2 + 15].mean() == 255
    assert shown[height // 2 + 20, width // 2 - 15].mean() == 0


def test_interlaced_pictures_lose_their_comb_and_keep_their_height(make_media: MakeMedia) -> None:
    moving = (
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=160x120:r=50:d=1",
        "-vf",
        "scroll=h=0.1,tinterlace=interleave_top,setfield=tff",
    )
    media = MediaReader(
        make_media("interlaced.mpg", *moving, "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2")
    )
    picture = list(media.pictures())[5]
    combed = picture.frame.to_ndarray(format="bgr24").astype(int)
    image = picture.image().astype(int)
    assert image.shape == (120, 160, 3)

    def comb(rows: NDArray[np.int_]) -> float:
        """How much nearer the rows of one field are to one another than to those between them."""
        return float(np.abs(rows[1:-1:2] - (rows[0:-2:2] + rows[2::2]) / 2).mean())

    assert comb(image) < comb(combed) / 3
    assert (image[::2] == combed[::2]).all()


@pytest.mark.parametrize(("kind", "coding"), [("sound", b"sowt"), ("video", b"avc1")])
def test_a_track_that_nothing_decodes_gives_way_to_one_that_does(
    make_media: MakeMedia, tmp_path: Path, kind: str, coding: bytes
) -> None:
    """A phone's spatial sound: it has more channels, so it would be the one to play."""
    more = (
        "-f",
        "lavfi",
        "-i",
        "aevalsrc='0|0|0|0|0|0':s=48000:d=2",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=640x480:r=25:d=2",
    )
    played = (
        "-disposition:a:0",
        "0",
        "-disposition:v:0",
        "0",
        "-disposition:a:1",
        "default",
        "-disposition:v:1",
        "default",
    )
    maps = ("-map", "0", "-map", "1", "-map", "2", "-map", "3")
    whole = make_media("tracks.mov", *PICTURES, *TONE, *more, *maps, *H264, "-c:a:1", "pcm_s16le", *played)
    film = whole.read_bytes()
    at = film.rindex(coding)
    strange = tmp_path / "strange.mov"
    strange.write_bytes(film[:at] + b"zz?z" + film[at + 4 :])
    media = MediaReader(strange)
    (said,) = media.passed_over
    assert said.startswith(f"{strange}: its {kind} in stream ")
    assert said.endswith("cannot be decoded")
    if kind == "sound":
        assert np.abs(sound(media)[8000:24000]).max() == pytest.approx(0.5, abs=0.02)
    else:
        assert next(media.pictures()).image().shape == (120, 160, 3)
    assert media.missing_s == 0


def test_a_subtitle_that_outlasts_the_film_is_no_cut(make_media: MakeMedia, tmp_path: Path) -> None:
    titles = tmp_path / "long.srt"
    titles.write_text("1\n00:00:00,000 --> 00:00:20,000\nhello\n\n")
    for suffix, coding in (("mkv", "srt"), ("mp4", "mov_text")):
        media = MediaReader(make_media(f"titled.{suffix}", *PICTURES, *TONE, "-i", str(titles), *H264, "-c:s", coding))
        list(media.pictures())
        sound(media)
        assert media.duration_s == pytest.approx(2, abs=0.1)
        assert media.missing_s == 0
