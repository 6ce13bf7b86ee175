"""Makes the demo clip: `python -m realtime.demo.make_clip [--out FILE]`.

Picture: the official portrait of Eileen Collins (NASA, public domain), which ships in scikit-image, on the mesh of her
face. Voice: espeak-ng reads the script; it opens the jaw. Both follow the moods of the script. The same versions of the
tools make the same clip.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.assets.store import AssetUnavailable, fetch
from realtime.demo import CLIP, DURATION_S, SCRIPT, Segment
from realtime.demo.moods import MOODS, act
from realtime.demo.puppet import Image, Puppet
from realtime.errors import DHMDLiveError

WIDTH, HEIGHT, FRAME_RATE_HZ = 640, 480, 25
VOICE: Final = "en-us+f1"
FACE_CENTRE: Final = (225.5, 117.5)
"""Middle of the picture in pixels of the portrait."""
ENLARGEMENT: Final = 2.2
OVERSAMPLING: Final = 2
"""The puppet is drawn this much larger, so that the edges of lips and lids come out smooth."""


class ClipUnmakeable(DHMDLiveError):
    """Raised when a tool is missing, or the voice does not fit the script."""


def speak(segment: Segment) -> tuple[NDArray[np.float32], int]:
    """The voice of one segment without silence at its ends: (N,) float32 in [-1, 1], and its rate in Hz."""
    if shutil.which("espeak-ng") is None:
        raise ClipUnmakeable("espeak-ng is not installed: apt-get install espeak-ng")
    voice = MOODS[segment.mood].voice
    settings = ("-v", VOICE, "-s", str(voice.speed), "-p", str(voice.pitch), "-a", str(voice.loudness))
    spoken = subprocess.run(["espeak-ng", *settings, "--stdout", segment.text], check=True, capture_output=True)
    with wave.open(io.BytesIO(spoken.stdout)) as wav:
        rate_hz: int = wav.getframerate()
        # espeak-ng cannot know the length when it writes to a pipe, so the header promises too much.
        samples = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").astype(np.float32) / np.float32(32768)
    loud = np.flatnonzero(np.abs(samples) > 0.003)
    samples = samples[loud[0] : loud[-1] + 1]
    if len(samples) / rate_hz > segment.end_s - segment.start_s:
        raise ClipUnmakeable(
            f"the {segment.mood} segment takes {len(samples) / rate_hz:.2f} s to say, the script of realtime/demo "
            f"gives it {segment.end_s - segment.start_s:.2f} s: move its times"
        )
    return samples, rate_hz


def sound_track() -> tuple[NDArray[np.float32], int]:
    """All segments at their times: (N,) float32 in [-1, 1], and the rate in Hz."""
    voices = [speak(segment) for segment in SCRIPT]
    rate_hz = voices[0][1]
    track = np.zeros(round(DURATION_S * rate_hz), np.float32)
    for segment, (samples, _) in zip(SCRIPT, voices, strict=True):
        start = round(segment.start_s * rate_hz)
        track[start : start + len(samples)] = samples
    return track, rate_hz


def loudness(track: NDArray[np.float32], rate_hz: int, frames: int) -> NDArray[np.float64]:
    """(frames,) in [0, 1]: level of the voice at each frame, relative to the loud parts of its own segment."""
    times = (np.arange(frames) + 0.5) / FRAME_RATE_HZ
    half = round(0.03 * rate_hz)
    power = np.convolve(track.astype(np.float64) ** 2, np.ones(2 * half) / (2 * half), mode="same")
    level = np.sqrt(power.clip(0))[(times * rate_hz).astype(int)]
    for segment in SCRIPT:
        now = (times >= segment.start_s) & (times < segment.end_s)
        level[now] /= np.quantile(level[now], 0.95)
    smooth: NDArray[np.float64] = np.convolve(level.clip(0, 1), (0.25, 0.5, 0.25), mode="same")
    return smooth


def load_puppet() -> Puppet:
    """The portrait, enlarged, with the mesh that Face Landmarker finds in it."""
    try:
        import cv2
        import mediapipe
        from skimage import data
    except ImportError as error:
        raise ClipUnmakeable(
            f"the demo clip needs {error.name}: pip install scikit-image mediapipe==0.10.31 opencv-python-headless"
        ) from error
    from dhmd.features.landmarks import FaceLandmarks

    scale = ENLARGEMENT * OVERSAMPLING
    size = (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING)
    shift = np.array(size) / 2 - scale * np.array(FACE_CENTRE)
    astronaut: Image = data.astronaut()  # type: ignore[no-untyped-call]
    portrait = cv2.warpAffine(
        np.ascontiguousarray(astronaut[..., ::-1]),
        np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]),
        size,
        flags=cv2.INTER_LANCZOS4,
        borderMode=cv2.BORDER_REFLECT,
    ).astype(np.uint8, copy=False)
    with FaceLandmarks(fetch("face-landmarker") / "face_landmarker.task", "image") as finder:
        (face,) = finder.find(portrait, 0.0)
    connections = mediapipe.tasks.vision.FaceLandmarksConnections
    edges = np.array([(edge.start, edge.end) for edge in connections.FACE_LANDMARKS_TESSELATION], dtype=np.int32)
    triangles = edges.reshape(-1, 3, 2)[..., 0]  # three edges in a row go around one triangle
    oval = tuple(edge.start for edge in connections.FACE_LANDMARKS_FACE_OVAL)
    return Puppet(portrait, face.landmarks.astype(np.float64) * (size[0], size[1], size[0]), triangles, oval)


def make(out: Path) -> None:
    """Write the clip to `out`."""
    import av
    import cv2
    from rich.progress import track as with_progress

    track, rate_hz = sound_track()
    frames = round(DURATION_S * FRAME_RATE_HZ)
    levels = loudness(track, rate_hz, frames)
    puppet = load_puppet()
    with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE_HZ, options={"profile": "baseline", "crf": "21"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=rate_hz, layout="mono")
        audio.bit_rate = 64_000
        for index in with_progress(range(frames), description="Drawing the demo clip"):
            face, pose = act(index / FRAME_RATE_HZ, float(levels[index]))
            image = cv2.resize(puppet.render(face, pose), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            picture = av.VideoFrame.from_ndarray(image.astype(np.uint8, copy=False), format="bgr24")
            picture.pts, picture.time_base = index, Fraction(1, FRAME_RATE_HZ)
            container.mux(video.encode(picture))
            start, end = (round(i * rate_hz / FRAME_RATE_HZ) for i in (index, index + 1))
            sound = av.AudioFrame.from_ndarray((track[start:end] * 32767).astype(np.int16)[None], "s16", "mono")
            sound.sample_rate, sound.pts, sound.time_base = rate_hz, start, Fraction(1, rate_hz)
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m realtime.demo.make_clip", description="Make the demo clip.")
    parser.add_argument("--out", type=Path, default=CLIP, help=f"default: {CLIP.name} beside this script")
    arguments = parser.parse_args()
    try:
        make(arguments.out)
    except (AssetUnavailable, DHMDLiveError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, {DURATION_S} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
