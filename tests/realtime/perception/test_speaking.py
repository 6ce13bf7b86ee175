"""Who is speaking: with lips that are made to fit a voice, and with films of people who talk side by side."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.features.landmarks import FaceLandmarks
from dhmd.features.lips import FRAME, HeardLips, LipNetwork
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.reader import MediaReader
from realtime.capture.samples import AudioBlock
from realtime.demo import CLIP
from realtime.perception.people import turn_at
from realtime.perception.speaking import KEPT_S, Mouth, Speakers, mouth_of
from tests import composites

RATE_HZ = 15.0
BLOCK = 800


@pytest.fixture(scope="module")
def network() -> LipNetwork:
    return LipNetwork.load()


@pytest.fixture(scope="module")
def voice() -> NDArray[np.float32]:
    """The first nine seconds of the demo clip."""
    return np.concatenate(list(MediaReader(CLIP).sound(9.5)))[: 9 * SAMPLE_RATE_HZ]


@pytest.fixture(scope="module")
def lips(network: LipNetwork, voice: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the voice's own lips do, (U, 3)."""
    return HeardLips(network).push(np.pad(voice, (0, SAMPLE_RATE_HZ)))[0]


def mouth_at(lips: NDArray[np.float32], t_s: float) -> Mouth:
    number = min(max(t_s, 0) * SAMPLE_RATE_HZ / FRAME, len(lips) - 1)
    opening, width, jaw = (float(np.interp(number, np.arange(len(lips)), one)) for one in lips.T)
    return Mouth(0.08 + 0.02 * opening, 0.55 + 0.03 * width, 0.5 + 0.012 * jaw)


def shown(
    speakers: Speakers,
    voice: NDArray[np.float32],
    pictures: Sequence[tuple[float, Mapping[int, Mouth]]],
    block: int = BLOCK,
    begin_s: float = 0.0,
) -> None:
    """Play sound, and pictures that come 60 ms late."""
    blocks = [
        (begin_s + (start + block) / SAMPLE_RATE_HZ, AudioBlock(voice[start : start + block], t_s, t_s))
        for start in range(0, len(voice), block)
        for t_s in [begin_s + start / SAMPLE_RATE_HZ]
    ]
    late = [(t_s + 0.06, (t_s, mouths)) for t_s, mouths in pictures]
    for _, what in sorted([*blocks, *late], key=lambda one: one[0]):
        if isinstance(what, AudioBlock):
            speakers.hear(speakers.listen(what))
        else:
            speakers.see(*what)


def times(length_s: float, begin_s: float = 0.0) -> Iterator[float]:
    return itertools.takewhile(lambda t_s: t_s < begin_s + length_s, (begin_s + k / RATE_HZ for k in itertools.count()))


def given(speakers: Speakers) -> dict[int | None, float]:
    """Seconds of voice by speaker."""
    seconds: dict[int | None, float] = {}
    for turn in speakers.turns(-1.0):
        seconds[turn.person] = seconds.get(turn.person, 0.0) + turn.end_s - turn.start_s
    return seconds


def share(speakers: Speakers, person: int | None) -> float:
    seconds = given(speakers)
    return seconds.get(person, 0.0) / sum(seconds.values())


@pytest.mark.parametrize("behind_s", [-0.08, 0.0, 0.08])
def test_speaks_whose_lips_are_those_of_the_voice(network, voice, lips, behind_s):
    speakers = Speakers(network)
    backwards = lips[::-1].copy()
    pictures = [
        (t_s, {1: mouth_at(lips, t_s - behind_s), 2: mouth_at(backwards, t_s), 3: mouth_at(lips, 0.0)})
        for t_s in times(9.0)
    ]
    shown(speakers, voice, pictures)
    assert share(speakers, 1) > 0.95


def test_nobody_speaks_when_no_mouth_moves_with_the_voice(network, voice, lips):
    speakers = Speakers(network)
    chews = [Mouth(0.08 + 0.03 * float(np.sin(8 * t_s)), 0.55, 0.5) for t_s in times(9.0)]
    pictures = [
        (t_s, {1: mouth_at(lips[::-1], t_s), 2: mouth_at(lips, 0.0), 3: chew})
        for t_s, chew in zip(times(9.0), chews, strict=True)
    ]
    shown(speakers, voice, pictures)
    assert share(speakers, None) > 0.95


def test_the_speaker_changes_with_the_lips(network, voice, lips):
    speakers = Speakers(network)
    pictures = [
        (t_s, {speaking: mouth_at(lips, t_s), 3 - speaking: mouth_at(lips, 0.0)})
        for t_s in times(9.0)
        for speaking in [1 if t_s < 4.0 else 2]
    ]
    shown(speakers, voice, pictures)
    turns = [turn for turn in speakers.turns(0.0) if turn.person is not None]
    assert {turn.person for turn in turns if turn.end_s < 3.5} == {1}
    assert {turn.person for turn in turns if turn.start_s > 4.5} == {2}
    middle_s = (turns[0].start_s + turns[0].end_s) / 2
    speaking = turn_at(turns, middle_s)
    assert speaking is not None
    assert speaking.person == 1


def test_without_pictures_or_people_voice_is_nobodys(network, voice):
    for pictures in ([], [(t_s, {}) for t_s in times(9.0)]):
        speakers = Speakers(network)
        shown(speakers, voice, pictures)
        assert set(given(speakers)) == {None}


def test_in_silence_there_are_no_turns(network, lips):
    speakers = Speakers(network)
    shown(speakers, np.zeros(4 * SAMPLE_RATE_HZ, np.float32), [(t_s, {1: mouth_at(lips, t_s)}) for t_s in times(4.0)])
    assert speakers.turns(-1.0) == []
    assert turn_at(speakers.turns(-1.0), 3.9) is None


def test_what_is_decided_does_not_depend_on_blocks(network, voice, lips):
    pictures = [(t_s, {1: mouth_at(lips, t_s), 2: mouth_at(lips[::-1], t_s)}) for t_s in times(9.0)]
    found = []
    for block in (BLOCK, 320, 4096):
        speakers = Speakers(network)
        shown(speakers, voice[: len(voice) // 4096 * 4096], pictures, block)
        found.append([turn for turn in speakers.turns(0.0) if turn.end_s < 7.0])
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_a_gap_in_the_sound_begins_anew_and_little_is_kept(network, voice, lips):
    speakers = Speakers(network)
    for begin_s in (0.0, 50.0, 100.0):
        pictures = [(t_s, {int(begin_s): mouth_at(lips, t_s - begin_s)}) for t_s in times(9.0, begin_s)]
        shown(speakers, voice, pictures, begin_s=begin_s)
    assert {turn.person for turn in speakers.turns(0.0)} >= {50, 100}
    assert list(speakers._mouths) == [100]
    assert len(speakers._decided) <= KEPT_S / 0.08


def side_by_side(path: Path, clips: Sequence[Path], heard: Path) -> Path:
    """A film of people who talk side by side, with the sound of one clip."""
    inputs = [word for clip in (*clips, heard) for word in ("-i", str(clip))]
    pictures = "".join(f"[{i}:v]scale=-2:288,fps=25[v{i}];" for i in range(len(clips)))
    joined = "".join(f"[v{i}]" for i in range(len(clips)))
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex"),
            f"{pictures}{joined}hstack=inputs={len(clips)}:shortest=1[v]",
            *("-map", "[v]", "-map", f"{len(clips)}:a", "-t", "3", "-c:v", "libx264", "-preset", "ultrafast"),
            *("-crf", "18", "-c:a", "aac", str(path)),
        ],
        check=True,
        timeout=120,
    )
    return path


def watched(network: LipNetwork, film: Path) -> Speakers:
    """Who was found to speak in a film; people are numbered from the left."""
    pictures = []
    with FaceLandmarks(fetch("face-landmarker") / "face_landmarker.task", people=3) as landmarks:
        for picture in itertools.islice(MediaReader(film).pictures(), 0, None, 2):
            faces = sorted(landmarks.find(picture.image(), picture.time_s), key=lambda face: face.box[0])
            pictures.append((picture.time_s, {number: mouth_of(face.landmarks) for number, face in enumerate(faces)}))
    speakers = Speakers(network)
    shown(speakers, np.pad(np.concatenate(list(MediaReader(film).sound())), (0, SAMPLE_RATE_HZ)), pictures)
    return speakers


@pytest.mark.parametrize("speaks", [0, None])
def test_of_two_who_talk_in_a_film_the_one_who_is_heard_speaks(network, shared, tmp_path, speaks):
    """Both move their lips all the time; the third is heard and not seen."""
    clips = [shared / "clips" / f"grid_{name}.mpg" for name in ("lrwp9a", "swwp2s")]
    heard = shared / "clips" / "mead_sad_1080p_speech.mp4" if speaks is None else clips[speaks]
    film = side_by_side(tmp_path / "film.mp4", clips, heard)
    speakers = watched(network, film)
    assert share(speakers, speaks) > 0.95
    assert at_once(speakers) == 0


def test_of_three_the_one_who_is_heard_speaks(network, shared, tmp_path):
    """The second talks as well, the third is happy, without a sound."""
    smiling = shared / "clips" / "mead_happy.mp4"
    clips = [*composites.grid(shared, composites.FIRST, composites.SECOND), smiling]
    speakers = watched(network, side_by_side(tmp_path / "film.mp4", clips, clips[0]))
    assert set(speakers._mouths) == {0, 1, 2}
    assert share(speakers, 0) > 0.95


def at_once(speakers: Speakers) -> float:
    """Of all voice, the part in which several speak."""
    turns = speakers.turns(-1.0)
    return sum((turn.end_s - turn.start_s) * turn.overlapped for turn in turns) / sum(
        turn.end_s - turn.start_s for turn in turns
    )


def test_two_who_talk_in_a_film_at_once_are_told_from_one_beside_a_radio(network, shared, tmp_path):
    """Both are heard, the second 6 dB softer; beside a portrait, that one is a voice from elsewhere."""
    film = composites.at_once(tmp_path / "both.mp4", shared)
    speakers = watched(network, film)
    assert at_once(speakers) > 0.6
    speak = {turn.person for turn in speakers.turns(-1.0) if turn.overlapped}
    assert speak
    assert at_once(watched(network, composites.at_once(tmp_path / "radio.mp4", shared, portrait=True))) == 0


def test_a_portrait_on_a_wall_does_not_speak(network, shared, tmp_path):
    """Nor does the still picture beside it, whose voice is heard."""
    clips = composites.grid(shared, composites.FIRST, composites.SECOND)
    graph = f"[0:v]{composites.STILL}[a];[1:v]{composites.STILL}[b];[a][b]hstack[v]"
    film = composites.film(tmp_path / "film.mp4", clips, graph, "-map", "0:a", length_s=3)
    speakers = watched(network, film)
    assert set(speakers._mouths) == {0, 1}
    assert set(given(speakers)) == {None}


@pytest.mark.parametrize(("heard", "speaks"), [(composites.FIRST, 0), (composites.SECOND, 1)])
def test_of_a_person_and_a_television_speaks_whose_lips_agree(network, shared, tmp_path, heard, speaks):
    """Both move their lips; the sound is the person's, or that of the face on the television."""
    speakers = watched(network, composites.television(tmp_path / "film.mp4", shared, heard))
    assert set(speakers._mouths) == {0, 1}
    assert share(speakers, speaks) > 0.95
