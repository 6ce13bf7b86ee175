"""Lips, seen and heard: how those of a face move, how those of whoever is heard must be moving, and whether several are
heard at once.

Shapes: U frames of 20 ms, counted from the start of the sound.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dhmd.assets.store import fetch
from dhmd.features.speech import ENCODER_HOP, SPEECH_ASSET, LogMel, VoiceActivity
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.weights import fill, load_single

FRAME: Final = ENCODER_HOP
"""Samples between two frames."""
CHUNK: Final = 8
"""Frames that are made at once, always the same ones of a stream: they must not depend on the sizes of blocks."""
AHEAD: Final = 8
"""Frames after its own that a frame is made of."""
CONTEXT: Final = 48
"""Frames that the encoder hears at each run."""
LAYERS: Final = 2
"""Layers of the speech encoder that are read, from the first on."""
REACH: Final = 4
"""Frames before and after its own that are read for a frame, those two and its own."""
WEIGHTS: Final = Path(__file__).parents[1] / "pretrained" / "lips.safetensors"

_FOREHEAD, _CHIN, _NOSE = 10, 152, 1
_EYES = (33, 263)
_CORNERS = (61, 291)
_INNER_LIPS = ((13, 14), (82, 87), (312, 317))


class Mouth(NamedTuple):
    """What of a face tells of speech, as fractions of the face's height (opening, jaw) and of the eyes' distance
    (width): neither the size of the face nor the shape of the picture matters."""

    opening: float
    width: float
    jaw: float


def mouth_of(landmarks: NDArray[np.float32]) -> Mouth:
    """The mouth of a face. landmarks: (478, 3), as of `Face`."""

    def between(a: int, b: int) -> float:
        return float(np.linalg.norm(landmarks[a] - landmarks[b]))

    height = max(between(_FOREHEAD, _CHIN), 1e-6)
    opening = sum(between(*pair) for pair in _INNER_LIPS) / len(_INNER_LIPS)
    return Mouth(opening / height, between(*_CORNERS) / max(between(*_EYES), 1e-6), between(_NOSE, _CHIN) / height)


class LipNetwork(nn.Module):
    """Lips that make a sound, and whether several voices do: the lower layers of the speech encoder, which tell sounds
    of speech apart whoever speaks, read linearly. What is learned is the two readings alone."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        encoder.keep(LAYERS)
        self.encoder = encoder
        states = LAYERS * encoder.width
        self.lips = nn.Linear(3 * states, len(Mouth._fields))
        self.several = nn.Linear(2 * states, 1)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """mel: (B, 80, 2 CONTEXT) log-mel frames of 10 ms.

        Returns lips (B, CHUNK, 3), order of Mouth, each in deviations from its mean, of those frames that AHEAD others
        follow; and (B,) how likely several are heard at once in all of it, as a logit.
        """
        states = self.states(mel)
        return self.lips(self.beside(states)), self.several(self.pooled(states))[:, 0]

    @property
    def readings(self) -> nn.ModuleDict:
        """What is learned."""
        return nn.ModuleDict({"lips": self.lips, "several": self.several})

    def states(self, mel: Tensor) -> Tensor:
        """What is made of the sound, (B, CONTEXT, states of all layers)."""
        loudest = mel.amax(dim=(1, 2), keepdim=True)  # how far the microphone stands off says nothing
        return torch.cat(self.encoder(mel + (1 - loudest))[1:], dim=-1)

    @staticmethod
    def pooled(states: Tensor) -> Tensor:
        """What is read for the number of voices, (B, 2 x states): mean and deviation of each."""
        return torch.cat([states.mean(dim=1), states.std(dim=1)], dim=-1)

    @staticmethod
    def beside(states: Tensor) -> Tensor:
        """What is read for the lips, (B, CHUNK, 3 x states)."""
        smooth = (states[:, :-2] + 2 * states[:, 1:-1] + states[:, 2:]) / 4  # frame u of it is that of u + 1
        first = CONTEXT - AHEAD - CHUNK - 1
        return torch.cat([smooth[:, first + d : first + d + CHUNK] for d in (-REACH, 0, REACH)], dim=-1)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Self:
        """The trained network, in evaluation mode. Raises WeightsInvalid, AssetUnavailable."""
        network = cls.untrained()
        fill(network.readings, load_single(path), path)
        return network

    @classmethod
    def untrained(cls) -> Self:
        """The speech encoder as it is, and readings that know nothing."""
        return cls(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin")).eval()


class Heard(NamedTuple):
    """What some samples complete: lips (U, 3), order of Mouth; several (U / CHUNK,), the logit that more than one voice
    is heard in the CONTEXT frames that end AHEAD frames after those of the chunk; voice (V,), of every VOICE_FRAME
    samples. All count from the first sample; lips and several come AHEAD frames later. U is a multiple of CHUNK."""

    lips: NDArray[np.float32]
    several: NDArray[np.float32]
    voice: NDArray[np.bool_]


class HeardLips:
    """Lips of whoever is heard, whether anybody is, and whether several are, in one continuous sound. The network rests
    in silence."""

    def __init__(self, network: LipNetwork) -> None:
        self._network = network
        self._log_mel = LogMel()
        self._activity = VoiceActivity()
        self.reset()

    def reset(self) -> None:
        """Forget the sound: the next sample is the first of another one."""
        self._activity.reset()
        self._past = np.zeros(CONTEXT * FRAME, np.float32)
        self._pending = np.zeros(0, np.float32)
        self._voiced = [False] * (1 + AHEAD // CHUNK)
        self._early = AHEAD // CHUNK

    def due(self, count: int) -> bool:
        """Returns whether so many samples more complete a chunk, which takes some computing."""
        return len(self._pending) + count >= CHUNK * FRAME

    def push(self, samples: NDArray[np.float32]) -> Heard:
        """What these samples complete."""
        pending = np.concatenate([self._pending, samples])
        made, voice = [np.empty((0, len(Mouth._fields)), np.float32)], [np.empty(0, np.bool_)]
        several: list[float] = []
        while len(pending) >= CHUNK * FRAME:
            chunk, pending = pending[: CHUNK * FRAME], pending[CHUNK * FRAME :]
            voice.append(self._activity.push(chunk))
            self._voiced = [*self._voiced[1:], bool(voice[-1].any())]
            self._past = np.concatenate([self._past[len(chunk) :], chunk])
            if self._early:  # frames from before the sound
                self._early -= 1
            else:
                lips, logit = self._listened() if any(self._voiced) else _SILENCE
                made.append(lips)
                several.append(logit)
        self._pending = pending
        return Heard(np.concatenate(made), np.array(several, np.float32), np.concatenate(voice))

    def _listened(self) -> tuple[NDArray[np.float32], float]:
        with torch.inference_mode():
            lips, several = self._network(torch.from_numpy(self._log_mel(self._past))[None])
        return lips[0].numpy(), float(several)


_SILENCE: Final = np.zeros((CHUNK, len(Mouth._fields)), np.float32), -math.inf
