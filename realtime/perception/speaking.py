"""Who speaks: whose mouth moves with the sound."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.features.landmarks import BLENDSHAPES
from dhmd.features.speech import VOICE_FRAME, VoiceActivity
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock

KEPT_S: Final = 20.0
PAUSE_S: Final = 0.4


@dataclass(frozen=True, slots=True)
class Mouth:
    """A mouth in one picture. openness: in [0, 1]."""

    openness: float


def mouth_of(landmarks: NDArray[np.float32], blendshapes: NDArray[np.float32]) -> Mouth:  # noqa: ARG001
    """The mouth of a face. landmarks: (478, 3), blendshapes: (52,), both as in Face."""
    return Mouth(float(blendshapes[BLENDSHAPES.index("jawOpen")]))


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of speech, seconds on the stream clock. person: None where nobody in sight speaks. overlapped: whether
    several speak at once."""

    start_s: float
    end_s: float
    person: int | None
    overlapped: bool = False


class Speakers:
    """Finds whose mouth moves with the sound: the only person in sight, else the one whose mouth moved most."""

    def __init__(self) -> None:
        self._mouths: deque[tuple[float, Mapping[int, Mouth]]] = deque()
        self._activity = VoiceActivity()
        self._left = np.zeros(0, np.float32)
        self._stretches: deque[tuple[float, float]] = deque()

    def see(self, t_s: float, mouths: Mapping[int, Mouth]) -> None:
        """Take in the mouths of a picture, by person."""
        self._mouths.append((t_s, mouths))
        while self._mouths[0][0] < t_s - KEPT_S:
            self._mouths.popleft()

    def hear(self, block: AudioBlock) -> None:
        """Take in sound."""
        begun_s = block.captured_s - len(self._left) / SAMPLE_RATE_HZ
        samples = np.concatenate([self._left, block.samples])
        whole = len(samples) // VOICE_FRAME * VOICE_FRAME
        self._left = samples[whole:]
        for frame in np.flatnonzero(self._activity.push(samples[:whole])):
            start_s = begun_s + float(frame) * VOICE_FRAME / SAMPLE_RATE_HZ
            end_s = start_s + VOICE_FRAME / SAMPLE_RATE_HZ
            if self._stretches and start_s - self._stretches[-1][1] < PAUSE_S:
                start_s = self._stretches.pop()[0]
            self._stretches.append((start_s, end_s))
        while self._stretches and self._stretches[0][1] < begun_s - KEPT_S:
            self._stretches.popleft()

    def speaker(self, t_s: float) -> int | None:
        """Return who speaks at a moment, as known by now."""
        return next((turn.person for turn in self.turns(-math.inf) if turn.start_s <= t_s <= turn.end_s), None)

    def turns(self, since_s: float) -> list[Turn]:
        """Return the turns that end after a moment, oldest first."""
        return [Turn(a, b, self._of(a, b)) for a, b in self._stretches if b > since_s]

    def _of(self, start_s: float, end_s: float) -> int | None:
        series: dict[int, list[float]] = {}
        for t_s, mouths in self._mouths:
            if start_s - 0.1 <= t_s <= end_s + 0.1:
                for person, mouth in mouths.items():
                    series.setdefault(person, []).append(mouth.openness)
        moved = {person: float(np.abs(np.diff(each)).sum()) for person, each in series.items()}
        return max(moved, key=lambda person: moved[person], default=None)
