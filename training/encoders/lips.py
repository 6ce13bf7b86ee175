"""Train the lip network: read from the speech encoder what the lips of people who talk do.

The reading is linear and comes in closed form. A few seconds of each of a handful of talkers determine it, and it holds
for people and sentences that it has not met: the encoder tells the sounds of speech apart whoever speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.features.lips import AHEAD, CHUNK, CONTEXT, FRAME, LipNetwork
from dhmd.features.speech import VOICE_FRAME, LogMel, VoiceActivity
from dhmd.features.timeline import SAMPLE_RATE_HZ

COMPONENTS: Final = 100
RIDGE: Final = 4000.0
BESIDE_S: Final = 0.1
"""Before the first voice and after the last, what still counts as speech: lips begin earlier."""


@dataclass(frozen=True, slots=True)
class Talker:
    """A film of somebody who talks. sound: (S,) 16 kHz mono; times_s: (N,) of the pictures, on the clock of the sound;
    mouths: (N, 3), order of Mouth."""

    sound: NDArray[np.float32]
    times_s: NDArray[np.float64]
    mouths: NDArray[np.float32]


def train(talkers: Sequence[Talker]) -> LipNetwork:
    """The network, by ridge regression on the principal components of the talkers' speech."""
    network = LipNetwork.untrained()
    parts = [_speech(network, talker) for talker in talkers]
    heard, lips = (np.concatenate(part) for part in zip(*parts, strict=True))
    centre, spread = heard.mean(axis=0), heard.std(axis=0) + 1e-3
    u, s, v = np.linalg.svd((heard - centre) / spread, full_matrices=False)
    u, s, v = u[:, :COMPONENTS], s[:COMPONENTS], v[:COMPONENTS]
    weights = v.T @ ((s / (s**2 + RIDGE))[:, None] * (u.T @ lips)) / spread[:, None]
    with torch.no_grad():
        network.reading.weight.copy_(torch.from_numpy(weights.T))
        network.reading.bias.copy_(torch.from_numpy(-centre @ weights))
    return network


def _speech(network: LipNetwork, talker: Talker) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What is read of the frames in which somebody speaks (U, F), and the lips (U, 3) in deviations from their mean."""
    log_mel, chunk = LogMel(), CHUNK * FRAME
    before, after = (CONTEXT - AHEAD - CHUNK) * FRAME, AHEAD * FRAME
    sound = np.pad(talker.sound[: len(talker.sound) // chunk * chunk], (before, after))
    heard = []
    for start in range(0, len(talker.sound) // chunk * chunk, chunk):
        mel = torch.from_numpy(log_mel(sound[start : start + CONTEXT * FRAME]))[None]
        with torch.inference_mode():
            heard.append(network.listen(mel)[0].numpy())
    times_s = np.arange(len(heard) * CHUNK) * (FRAME / SAMPLE_RATE_HZ)
    voiced_s = np.flatnonzero(VoiceActivity().push(talker.sound)) * (VOICE_FRAME / SAMPLE_RATE_HZ)
    speaks = (times_s >= voiced_s[0] - BESIDE_S) & (times_s <= min(voiced_s[-1] + BESIDE_S, talker.times_s[-1]))
    lips = np.stack([np.interp(times_s, talker.times_s, number) for number in talker.mouths.T], axis=1)[speaks]
    return np.concatenate(heard)[speaks], (lips - lips.mean(axis=0)) / lips.std(axis=0)
