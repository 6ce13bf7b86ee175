"""Train the lip network: read from the speech encoder what the lips of people who talk do, and whether several talk.

The reading of the lips is linear and comes in closed form. A few seconds of each of a handful of talkers determine it,
and it holds for people and sentences that it has not met: the encoder tells the sounds of speech apart whoever speaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
WINDOW: Final = CONTEXT * FRAME
"""Samples of a window in which several voices are heard, or one."""
EVERY: Final = 2 * CHUNK * FRAME
SHARE: Final = 0.6
"""Of a window, in which both are to be heard, or one, to be learned from."""
LEVELS_DB: Final = (0, 0, 6, 6, 12)
"""By how much the second voice is softer."""
DECAY: Final = 0.1
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
        network.lips.weight.copy_(torch.from_numpy(weights.T))
        network.lips.bias.copy_(torch.from_numpy(-centre @ weights))
    return network


@dataclass(frozen=True, slots=True)
class Voice:
    """Somebody who talks alone. sound: (S,) 16 kHz mono, from its first voice on. Mixed are those of one corpus, whose
    rooms and microphones do not tell them apart from one voice."""

    sound: NDArray[np.float32]
    speaker: str
    corpus: str


def train_several(network: LipNetwork, voices: Sequence[Voice], seed: int = 1) -> None:
    """Teach a network to tell several voices at once from one, by logistic regression on mixtures of pairs."""
    random = np.random.default_rng(seed)
    heard, labels = [], []
    for voice in voices:
        others = [one for one in voices if one.corpus == voice.corpus and one.speaker != voice.speaker]
        mixed = [(others[random.integers(len(others))], LEVELS_DB[random.integers(len(LEVELS_DB))]) for _ in range(2)]
        for sound, speaks in (_alone(voice), *(_mixture(voice, other, db) for other, db in mixed)):
            noise = random.standard_normal(len(sound)) * 10 ** (random.uniform(-75, -45) / 20)
            loud = sound * 10 ** (random.uniform(-20, 0) / 20) + noise
            for start, label in _windows(speaks):
                heard.append(_pooled(network, loud[start : start + WINDOW].astype(np.float32)))
                labels.append(label)
    weight, bias = separated(np.stack(heard).astype(np.float64), np.array(labels, np.float64))
    with torch.no_grad():
        network.several.weight.copy_(torch.from_numpy(weight)[None])
        network.several.bias.fill_(bias)


def voiced(sound: NDArray[np.float32]) -> NDArray[np.bool_]:
    return VoiceActivity().push(sound[: len(sound) // VOICE_FRAME * VOICE_FRAME])


def _alone(voice: Voice) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """The sound, and how many speak in each VOICE_FRAME of it."""
    return voice.sound, voiced(voice.sound).astype(int)


def _mixture(voice: Voice, other: Voice, softer_db: float) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    length = min(len(voice.sound), len(other.sound)) // VOICE_FRAME * VOICE_FRAME
    sounds = [one.sound[:length] for one in (voice, other)]
    spoken = [voiced(sound) for sound in sounds]
    levels = [
        np.sqrt(np.mean(np.square(sound[np.repeat(there, VOICE_FRAME)])) + 1e-12) if there.any() else 1.0
        for sound, there in zip(sounds, spoken, strict=True)
    ]
    second = sounds[1] * (levels[0] / levels[1] * 10 ** (-softer_db / 20))
    return (sounds[0] + second).astype(np.float32), spoken[0].astype(int) + spoken[1]


def _windows(speaks: NDArray[np.int_]) -> Iterator[tuple[int, bool]]:
    """First samples of the windows to learn from, and whether several are heard in them."""
    frames = WINDOW // VOICE_FRAME
    for start in range(0, len(speaks) * VOICE_FRAME - WINDOW + 1, EVERY):
        inside = speaks[start // VOICE_FRAME :][:frames]
        if np.mean(inside > 1) >= SHARE:
            yield start, True
        elif np.mean(inside == 1) >= SHARE and not np.any(inside > 1):
            yield start, False


def _pooled(network: LipNetwork, sound: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        pooled: NDArray[np.float32] = network.pooled(network.states(torch.from_numpy(LogMel()(sound))[None]))[0].numpy()
    return pooled


def separated(
    heard: NDArray[np.float64], labels: NDArray[np.float64], decay: float = DECAY
) -> tuple[NDArray[np.float64], float]:
    """Weights and bias of a logistic regression in which both labels count the same."""
    centre, spread = heard.mean(axis=0), heard.std(axis=0) + 1e-3
    inputs, wanted = torch.from_numpy((heard - centre) / spread), torch.from_numpy(labels)
    weight = torch.zeros(inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")
    balance = (1 - wanted).sum() / wanted.sum()

    def loss() -> torch.Tensor:
        search.zero_grad()
        missed = torch.nn.functional.binary_cross_entropy_with_logits(
            inputs @ weight + bias, wanted, pos_weight=balance
        )
        total: torch.Tensor = missed + decay * weight.square().sum() / 2
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    scaled = weight.detach().numpy() / spread
    return scaled, float(bias.detach()) - float(centre @ scaled)


def _speech(network: LipNetwork, talker: Talker) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What is read of the frames in which somebody speaks (U, F), and the lips (U, 3) in deviations from their mean."""
    log_mel, chunk = LogMel(), CHUNK * FRAME
    before, after = (CONTEXT - AHEAD - CHUNK) * FRAME, AHEAD * FRAME
    sound = np.pad(talker.sound[: len(talker.sound) // chunk * chunk], (before, after))
    heard = []
    for start in range(0, len(talker.sound) // chunk * chunk, chunk):
        mel = torch.from_numpy(log_mel(sound[start : start + CONTEXT * FRAME]))[None]
        with torch.inference_mode():
            heard.append(network.beside(network.states(mel))[0].numpy())
    times_s = np.arange(len(heard) * CHUNK) * (FRAME / SAMPLE_RATE_HZ)
    voiced_s = np.flatnonzero(VoiceActivity().push(talker.sound)) * (VOICE_FRAME / SAMPLE_RATE_HZ)
    speaks = (times_s >= voiced_s[0] - BESIDE_S) & (times_s <= min(voiced_s[-1] + BESIDE_S, talker.times_s[-1]))
    lips = np.stack([np.interp(times_s, talker.times_s, number) for number in talker.mouths.T], axis=1)[speaks]
    return np.concatenate(heard)[speaks], (lips - lips.mean(axis=0)) / lips.std(axis=0)
