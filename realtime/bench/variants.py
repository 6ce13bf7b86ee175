"""Clips as they may also come: played at another speed, in another light, over a telephone, compressed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dhmd.media.reader import MediaReader
from realtime.errors import DHMDLiveError

NOISE_DB: Final = 20.0
"""How far the noise lies below the mean level of the sound."""
LOSSLESS: Final = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le")


class VariantUnavailable(DHMDLiveError):
    """Raised where ffmpeg is missing, or cannot change a clip."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A change of a clip. video, audio: filters of ffmpeg, `{noise}` being the level of noise. tempo: its new speed."""

    name: str
    video: str = "null"
    audio: str = "anull"
    tempo: float = 1.0
    codecs: tuple[str, ...] = LOSSLESS

    def make(self, clip: Path, out: Path) -> None:
        """Write the changed clip, Matroska. Raises VariantUnavailable."""
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            raise VariantUnavailable("ffmpeg is not installed, and makes the changed clips; apt-get install ffmpeg")
        media = MediaReader(clip)
        command = [ffmpeg, "-y", "-loglevel", "error", "-i", str(clip)]
        if media.film is not None:
            command += ["-map", "0:v:0", "-vf", self.video]
        if media.soundtrack is not None:
            level = _level(media) * 10 ** (-NOISE_DB / 20) if "{noise}" in self.audio else 0.0
            command += ["-map", "0:a:0", "-af", self.audio.format(noise=f"{level:.6f}")]
        done = subprocess.run(
            [*command, *self.codecs, "-f", "matroska", str(out)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise VariantUnavailable(f"{clip}: ffmpeg cannot make it '{self.name}' ({reason})")


def _level(media: MediaReader) -> float:
    """Return the root mean square of the sound."""
    power, count = 0.0, 0
    for piece in media.sound():
        power += float(np.square(piece, dtype=np.float64).sum())
        count += len(piece)
    return float(np.sqrt(power / count)) if count else 0.0


def _tempo(speed: float) -> Variant:
    return Variant(f"speed {speed:g}", video=f"setpts=PTS/{speed:g}", audio=f"atempo={speed:g}", tempo=speed)


def _brightness(factor: float) -> Variant:
    return Variant(f"brightness x{factor:g}", video="lutrgb=" + ":".join(f"{c}=val*{factor:g}" for c in "rgb"))


VARIANTS: Final = (
    Variant("encoded again without loss"),
    _tempo(0.9),
    _tempo(1.1),
    _brightness(1.5),
    _brightness(0.5),
    # random(0) lies in [0, 1): times the root of 12, its deviation is 1.
    Variant("white noise, 20 dB below the sound", audio="aeval=exprs=val(ch)+{noise}*3.4641*(random(ch)-0.5):c=same"),
    Variant("telephone, 300 to 3400 Hz", audio="highpass=f=300:p=2,lowpass=f=3400:p=2,aresample=8000,aresample=16000"),
    Variant("sound 20 dB quieter", audio="volume=-20dB"),
    Variant("320x240", video="scale=w=320:h=240:force_original_aspect_ratio=decrease:force_divisible_by=2"),
    Variant(
        "strongly compressed",
        codecs=("-c:v", "libx264", "-crf", "40", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "24k"),
    ),
)
