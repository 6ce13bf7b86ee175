"""The clip in the repository, seen and heard by the real models, and the script that makes it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.checkpoint import load
from dhmd.features.landmarks import BLENDSHAPES, FaceLandmarks
from dhmd.influence import influence
from dhmd.labels import EMOTIONS
from dhmd.session import Session
from realtime.capture.samples import SAMPLE_RATE_HZ
from realtime.demo import CLIP, DURATION_S, SCRIPT, Segment
from realtime.demo.make_clip import HEIGHT, WIDTH, ClipUnmakeable, load_puppet, main
from realtime.demo.moods import act
from realtime.recognition.engine import Engine
from realtime.session.rewound import Rewound

EVERY = 3
"""One frame in so many is looked at."""


@dataclass(frozen=True, slots=True)
class Seen:
    """times: (N,) seconds of the frames looked at. blendshapes: (N, 52), NaN where no face was found."""

    times: NDArray[np.float64]
    blendshapes: NDArray[np.float32]

    def mean(self, mood: str, *names: str) -> float:
        """Mean of blendshapes while the voice speaks in a mood."""
        segment = next(segment for segment in SCRIPT if segment.mood == mood)
        now = (self.times >= segment.start_s) & (self.times < segment.end_s)
        return float(np.nanmean(self.blendshapes[now][:, [BLENDSHAPES.index(name) for name in names]]))


@pytest.fixture(scope="module")
def seen() -> Seen:
    times, rows = [], []
    with FaceLandmarks(fetch("face-landmarker") / "face_landmarker.task") as finder, av.open(str(CLIP)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % EVERY == 0:
                faces = finder.find(frame.to_ndarray(format="bgr24"), frame.time)
                times.append(frame.time)
                rows.append(faces[0].blendshapes if faces else np.full(len(BLENDSHAPES), np.nan, np.float32))
    return Seen(np.array(times), np.array(rows))


@pytest.fixture(scope="module")
def heard() -> NDArray[np.float32]:
    """The sound of the clip: (N,) float32, 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
    with av.open(str(CLIP)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


def level(heard: NDArray[np.float32], start_s: float, end_s: float) -> float:
    """Root mean square between two times."""
    part = heard[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
    return float(np.sqrt(np.mean(part**2)))


def words(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())


def test_is_small_and_plays_everywhere() -> None:
    assert CLIP.stat().st_size <= 3_000_000
    with av.open(str(CLIP)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.profile) == ("h264", "Constrained Baseline")
        assert (video.width, video.height, video.pix_fmt) == (WIDTH, HEIGHT, "yuv420p") == (640, 480, "yuv420p")
        assert video.average_rate == Fraction(25)
        assert (audio.codec_context.name, audio.layout.name) == ("aac", "mono")
        for stream in (video, audio):
            assert stream.duration is not None
            assert stream.time_base is not None
            assert float(stream.duration * stream.time_base) == pytest.approx(DURATION_S, abs=0.1)


def test_script_runs_through_moods_with_pauses_between() -> None:
    moods = [segment.mood for segment in SCRIPT]
    assert set(moods) <= set(EMOTIONS)
    assert len(set(moods)) == len(moods) >= 4
    ends = [0.0, *(segment.end_s for segment in SCRIPT)]
    starts = [*(segment.start_s for segment in SCRIPT), DURATION_S]
    pauses = [start - end for start, end in zip(starts, ends, strict=True)]
    assert min(pauses) >= 0.5
    assert min(pauses[1:-1]) >= 0.9


@pytest.mark.parametrize("segment", SCRIPT, ids=lambda segment: segment.mood)
def test_voice_keeps_to_the_times_of_the_script(heard: NDArray[np.float32], segment: Segment) -> None:
    voice = level(heard, segment.start_s, segment.end_s)
    assert voice > 0.03
    assert level(heard, segment.start_s, segment.start_s + 0.3) > 0.1 * voice
    assert level(heard, segment.end_s - 0.3, segment.end_s) > 0.1 * voice
    assert level(heard, segment.end_s + 0.1, segment.end_s + 0.6) < 0.001
    assert level(heard, segment.start_s - 0.6, segment.start_s - 0.1) < 0.001


def test_a_face_is_found_in_nearly_every_frame(seen: Seen) -> None:
    assert len(seen.times) == pytest.approx(DURATION_S * 25 / EVERY, abs=1)
    assert np.mean(~np.isnan(seen.blendshapes[:, 0])) >= 0.95


@pytest.mark.parametrize(
    ("mood", "names", "margin"),
    [
        ("happy", ("mouthSmileLeft", "mouthSmileRight"), 0.5),
        ("sad", ("mouthFrownLeft", "mouthFrownRight"), 0.1),
        ("angry", ("browDownLeft", "browDownRight"), 0.03),
        ("surprise", ("browOuterUpLeft", "browOuterUpRight"), 0.3),
        ("surprise", ("browInnerUp",), 0.2),
        ("surprise", ("eyeWideLeft", "eyeWideRight"), 0.1),
    ],
)
def test_the_face_shows_its_mood_more_than_any_other(
    seen: Seen, mood: str, names: tuple[str, ...], margin: float
) -> None:
    others = [seen.mean(segment.mood, *names) for segment in SCRIPT if segment.mood != mood]
    assert seen.mean(mood, *names) > max(others) + margin


def test_a_sad_face_raises_its_inner_brows_and_a_neutral_one_shows_little(seen: Seen) -> None:
    assert seen.mean("sad", "browInnerUp") > seen.mean("neutral", "browInnerUp") + 0.3
    strong = ("mouthSmileLeft", "mouthFrownLeft", "browDownLeft", "browInnerUp", "eyeWideLeft", "jawOpen")
    assert max(seen.mean("neutral", name) for name in strong) < 0.15


@pytest.mark.parametrize("mood", ["neutral", "happy", "surprise", "angry", "sad"])
def test_the_jaw_follows_the_loudness_of_the_voice(seen: Seen, heard: NDArray[np.float32], mood: str) -> None:
    segment = next(segment for segment in SCRIPT if segment.mood == mood)
    now = (seen.times >= segment.start_s) & (seen.times < segment.end_s)
    loudness = [level(heard, t - 0.03, t + 0.07) for t in seen.times[now]]
    jaw = seen.blendshapes[now, BLENDSHAPES.index("jawOpen")]
    assert np.corrcoef(loudness, jaw)[0, 1] > 0.4


def test_the_words_are_recognised(heard: NDArray[np.float32]) -> None:
    from faster_whisper import WhisperModel

    model = WhisperModel(str(fetch("faster-whisper-tiny.en")), compute_type="int8")
    segments, _ = model.transcribe(heard, language="en")
    said = words(" ".join(segment.text for segment in SCRIPT))
    recognised = words(" ".join(segment.text for segment in segments))
    matches = SequenceMatcher(None, said, recognised, autojunk=False).get_matching_blocks()
    assert sum(match.size for match in matches) >= 0.9 * len(said)


def test_the_clip_is_what_the_script_makes_today() -> None:
    pytest.importorskip("skimage", reason="scikit-image brings the portrait")
    puppet = load_puppet()
    wanted = [(segment.end_s + 0.2) for segment in SCRIPT]  # silent, so the voice is not needed
    with av.open(str(CLIP)) as container:
        for frame in container.decode(video=0):
            if wanted and frame.time >= wanted[0]:
                wanted.pop(0)
                drawn = cv2.resize(puppet.render(*act(frame.time, 0.0)), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
                difference = np.abs(drawn.astype(float) - frame.to_ndarray(format="bgr24"))
                assert difference.mean() < 5
                assert difference[120:360, 200:440].mean() < 5
    assert not wanted


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the shipped model says of the whole clip: estimates.jsonl, and demo.mcap, its session."""
    folder = tmp_path_factory.mktemp("read")
    out = ("--estimates", str(folder / "estimates.jsonl"), "--record", str(folder / "demo.mcap"))
    command = ("run", "--source", str(CLIP), "--pace", "max", "--broker", "none", *out)
    subprocess.run([sys.executable, "-m", "realtime", *command], check=True, capture_output=True)
    return folder


def test_the_channel_of_the_largest_influence_is_the_one_without_which_the_answer_is_another(read: Path) -> None:
    """Wherever it is another without some channel: at the seams between two answers, not in every window."""
    checkpoint, device = load("base"), torch.device("cpu")
    engine = Engine(checkpoint, device)
    named = []
    for moment in itertools.islice(Rewound(Session.open(read / "demo.mcap"), checkpoint, device), 0, None, 3):
        cut = moment.cut
        if len(cut.present) > 1:
            without = [replace(cut, present=cut.present - {m}) for m in cut.present]
            said = [one.emotions for one in engine.infer_many([cut, *without]) if one is not None]
            whole, parts = np.array(said[0]), np.array(said[1:])
            changed = parts.argmax(axis=1) != whole.argmax()
            if changed.any():
                named.append(bool(changed[influence(whole, parts).argmax()]))
    assert len(named) > 30
    assert all(named)


def test_the_shipped_model_names_the_emotion_of_every_part_in_most_ticks(read: Path) -> None:
    """Once half a second of a part was heard, until its words have arrived."""
    ticks = [json.loads(line) for line in (read / "estimates.jsonl").read_text().splitlines()]
    share = {}
    for segment in SCRIPT:
        now = [tick["top"] for tick in ticks if segment.start_s + 0.5 <= tick["t"] < segment.end_s + 0.7]
        share[segment.mood] = now.count(segment.mood) / len(now)
    assert min(share.values()) > 0.5, share


def test_missing_tools_are_named_with_their_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("clip") / "clip.mp4"
    monkeypatch.setattr(sys, "argv", ["make_clip", "--out", str(out)])
    monkeypatch.setenv("PATH", str(out.parent))
    assert main() == 1
    printed = capsys.readouterr().err.splitlines()
    assert printed == ["espeak-ng is not installed: apt-get install espeak-ng"]
    assert not out.exists()

    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ClipUnmakeable, match="needs skimage: pip install scikit-image"):
        load_puppet()


def test_knowing_the_script_loads_nothing_heavy() -> None:
    program = (
        "import sys, realtime.demo; print(sorted({'numpy', 'cv2', 'av', 'mediapipe', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
