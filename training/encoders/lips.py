"""Train the lip network: what the lips of a voice do, from films of few people who talk and from speech without pictures.

A linear map from two layers of the speech encoder to the lips of the talkers needs seconds of them, and holds for
people and sentences it has not met. What it says of much speech in several languages is what the small network learns,
from bands of the sound alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.features.lips import AHEAD, BANDS, FRAME, PAST, LipNetwork, Mouth, levelled, log_bands
from dhmd.features.speech import SPEECH_ASSET, VOICE_FRAME, LogMel, VoiceActivity
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.timeline import SAMPLE_RATE_HZ

LAYERS: Final = 2
COMPONENTS: Final = 100
RIDGE: Final = 4000.0
EPOCHS: Final = 16
BATCH: Final = 32
RATE: Final = 6e-3
SEGMENT: Final = 128
NOISE_DB: Final = (8.0, 35.0)

_FRAME_S: Final = FRAME / SAMPLE_RATE_HZ
_LEAD: Final = 10  # frames of silence before the speech that the encoder hears
_REACH: Final = 4  # frames before and after its own that the linear map reads
_SILENT: Final = -1.0


@dataclass(frozen=True, slots=True)
class Talker:
    """A film of somebody who talks. sound: 16 kHz mono; times_s (N,): of the pictures, on the clock of the sound;
    mouths (N, 3): order of Mouth."""

    sound: NDArray[np.float32]
    times_s: NDArray[np.float64]
    mouths: NDArray[np.float32]


class Teacher:
    """Lips read from the speech encoder, by a linear map that few talkers determine."""

    def __init__(self, sounds: Sequence[NDArray[np.float32]]) -> None:
        self._encoder = SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin")
        self._encoder.keep(LAYERS)
        self._log_mel = LogMel()
        self.states = [self._listen(sound) for sound in sounds]
        everything = np.concatenate(self.states)
        self._centre, self._spread = everything.mean(axis=0), everything.std(axis=0) + 1e-3

    def learn(self, talkers: Sequence[Talker]) -> NDArray[np.float32]:
        """The map (F, 3) by ridge regression on the principal components of the talkers' speech."""
        inputs, targets = [], []
        for talker in talkers:
            read = self.read(self._listen(talker.sound))
            times_s = np.arange(len(read)) * _FRAME_S
            said = _said(talker.sound, times_s) & (times_s <= talker.times_s[-1])
            lips = np.stack([np.interp(times_s, talker.times_s, one) for one in talker.mouths.T], axis=1)[said]
            inputs.append(read[said])
            targets.append((lips - lips.mean(axis=0)) / lips.std(axis=0))
        u, s, v = np.linalg.svd(np.concatenate(inputs), full_matrices=False)
        u, s, v = u[:, :COMPONENTS], s[:COMPONENTS], v[:COMPONENTS]
        weights: NDArray[np.float32] = v.T @ ((s / (s**2 + RIDGE))[:, None] * (u.T @ np.concatenate(targets)))
        return weights

    def read(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the map reads, (U, F): standardised states, smoothed, with those shortly before and after."""
        state = (states - self._centre) / self._spread
        padded = np.pad(state, ((1, 1), (0, 0)), mode="edge")
        state = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        return np.concatenate([np.roll(state, shift, axis=0) for shift in (_REACH, 0, -_REACH)], axis=1)

    def _listen(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = torch.from_numpy(self._log_mel(np.pad(sound, (_LEAD * FRAME, 0))))[None]
        with torch.inference_mode():
            states = self._encoder(mel + (1 - mel.amax()))
        both: NDArray[np.float32] = torch.cat(states[1:], dim=-1)[0, _LEAD:].numpy()
        return both


def train(talkers: Sequence[Talker], sounds: Sequence[NDArray[np.float32]], seed: int = 0) -> LipNetwork:
    """The network, from talkers and from much speech of others. sounds: (N,) float32 16 kHz each, peak below 1."""
    teacher = Teacher(sounds)
    weights = teacher.learn(talkers)
    return distil([teacher.read(states) @ weights for states in teacher.states], sounds, seed)


def distil(
    lips: Sequence[NDArray[np.float32]], sounds: Sequence[NDArray[np.float32]], seed: int = 0, epochs: int = EPOCHS
) -> LipNetwork:
    """A network that says of sounds what the teacher does, each of them as it is and once with noise."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    scale = np.concatenate(lips).std(axis=0)
    segments = [
        segment
        for sound, target in zip(sounds, lips, strict=True)
        for heard in (sound, _noisy(sound, generator))
        for segment in _segments(heard, target / scale)
    ]
    inputs, targets, counts = (torch.from_numpy(np.stack(part)) for part in zip(*segments, strict=True))
    network = LipNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    batches = len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * batches)
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs))[: batches * BATCH].reshape(batches, BATCH):
            error = (network(inputs[chosen]) - targets[chosen]).square() * counts[chosen]
            optimizer.zero_grad()
            (error.sum() / counts[chosen].sum()).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _segments(
    sound: NDArray[np.float32], lips: NDArray[np.float32]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
    """Inputs (BANDS, PAST + SEGMENT + AHEAD), targets (3, SEGMENT), and (1, SEGMENT) which of them count."""
    bands = log_bands(np.pad(sound, (200, 400)))[: len(lips)]
    loudest = np.array([bands[max(0, i - 150) : i + AHEAD + 1].max() for i in range(len(bands))])
    level = np.stack([levelled(frame, peak) for frame, peak in zip(bands, loudest, strict=True)])
    found = []
    for start in range(0, len(level) - SEGMENT // 2, SEGMENT):
        count = min(SEGMENT, len(level) - start)
        inputs = np.full((PAST + SEGMENT + AHEAD, BANDS), _SILENT, np.float32)
        first, last = max(0, start - PAST), min(len(level), start + SEGMENT + AHEAD)
        inputs[first - start + PAST : last - start + PAST] = level[first:last]
        targets = np.zeros((len(Mouth._fields), SEGMENT), np.float32)
        targets[:, :count] = lips[start : start + count].T
        counts = np.zeros((1, SEGMENT), np.float32)
        counts[0, :count] = level[start : start + count].max(axis=1) > _SILENT / 2
        found.append((inputs.T.copy(), targets, counts))
    return found


def _noisy(sound: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """With white or duller noise, through a brighter or darker microphone."""
    noise = generator.standard_normal(len(sound))
    if generator.random() < 0.6:
        noise = np.convolve(noise, np.ones(8), "same")
    level = np.sqrt(np.square(sound).mean() / np.square(noise).mean()) * 10 ** (-generator.uniform(*NOISE_DB) / 20)
    heard = sound + noise * level
    heard[1:] -= generator.uniform(-0.5, 0.5) * heard[:-1]
    return np.asarray(heard, np.float32)


def _said(sound: NDArray[np.float32], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which times lie between the first and the last voice, with a tenth of a second beside."""
    voiced = np.flatnonzero(VoiceActivity().push(sound)) * (VOICE_FRAME / SAMPLE_RATE_HZ)
    return (times_s >= max(voiced[0] - 0.1, _REACH * _FRAME_S)) & (times_s <= voiced[-1] + 0.1)
