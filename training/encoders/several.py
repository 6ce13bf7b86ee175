"""Train the reading that tells several voices at once from one: by logistic regression on streams made of voices.

One speaks, two take turns, or two speak at once; in rooms, and beside noise and music.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.features.several import SPAN, SeveralVoices
from dhmd.features.speech import ENCODER_HOP, VOICE_FRAME, LogMel
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.voice import CONTEXT, HOP
from dhmd.features.voice_network import VoiceNetwork
from training.encoders.lips import LEVELS_DB, SHARE, Voice, separated, voiced

STREAMS: Final = 350
LENGTH: Final = 224 * VOICE_FRAME
"""Samples of a stream: 7.2 s."""
PAUSES: Final = (2, 5, 10, 20)
"""Frames of voice activity between two utterances of a speaker."""
SHORTEST: Final = 60
"""Likewise of a stretch in which both speak."""
ONE, TURNS, ROOM, BESIDE = 0.35, 0.5, 0.3, 0.4
"""Chances: of one voice alone; of that or of turns; of a room; of noise or music."""
READ: Final = 5
"""Windows that are read of a pass, one a hop; so many hops lie between two passes."""

Sound = NDArray[np.float64]


def train(network: VoiceNetwork, voices: Sequence[Voice], streams: int = STREAMS, seed: int = 1) -> SeveralVoices:
    """The reading. network: with the speech encoder as it is."""
    random = np.random.default_rng(seed)
    by_speaker: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for voice in voices:
        by_speaker.setdefault((voice.corpus, voice.speaker), []).append(voice.sound)
    heard, labels = [], []
    for number in range(streams):
        speakers = sorted(by_speaker)
        corpora = sorted({corpus for corpus, _ in speakers})
        own = [by_speaker[one] for one in speakers if one[0] == corpora[number % len(corpora)]]
        for pooled, label in _read(network, *_stream(own, random)):
            heard.append(pooled)
            labels.append(label)
    weight, bias = separated(np.stack(heard).astype(np.float64), np.array(labels, np.float64))
    reading = SeveralVoices()
    with torch.no_grad():
        reading.reading.weight.copy_(torch.from_numpy(weight)[None])
        reading.reading.bias.fill_(bias)
    return reading.eval()


def _read(
    network: VoiceNetwork, sound: NDArray[np.float32], speaks: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.float32], bool]]:
    """What is read of windows, and whether two are heard in them. speaks: (2, frames of VOICE_FRAME)."""
    log_mel, span = LogMel(), SPAN * ENCODER_HOP
    for end in range(READ * HOP, len(sound) + 1, READ * HOP):
        mel = torch.from_numpy(log_mel(sound[max(0, end - CONTEXT) : end]))[None]
        with torch.inference_mode():
            states, _ = network.listen(mel)
            for back in range(READ):
                last = end - back * HOP
                inside = speaks[:, max(0, last - span) // VOICE_FRAME : last // VOICE_FRAME]
                both, one = np.mean(inside.all(axis=0)), np.mean(inside[0] ^ inside[1])
                before = states[:, : states.shape[1] - back * HOP // ENCODER_HOP]
                if before.shape[1] >= SPAN and (both >= SHARE or (one >= SHARE and not both)):
                    yield SeveralVoices.pooled(before)[0].numpy(), bool(both)


def _stream(
    speakers: Sequence[Sequence[NDArray[np.float32]]], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A sound, and which of two speaks in each frame of VOICE_FRAME, (2, frames). speakers: the sounds of each."""
    first, second = random.permutation(len(speakers))[:2]
    (one, speaks), (other, also) = _said(speakers[first], random), _said(speakers[second], random)
    frames, chance = len(speaks), random.random()
    begins, ends = frames, frames
    if chance > TURNS:
        begins = int(random.integers(0, frames // 2))
        ends = int(random.integers(min(begins + SHORTEST, frames), frames + 1))
        other *= 10 ** (-random.choice(LEVELS_DB) / 20)
    elif chance > ONE:
        begins = int(random.integers(SHORTEST // 2, frames - SHORTEST))
        one[begins * VOICE_FRAME :], speaks[begins:] = 0, False
        other *= 10 ** (random.uniform(-6, 6) / 20)
    for part in (slice(0, begins), slice(ends, frames)):
        also[part] = False
        other[part.start * VOICE_FRAME : part.stop * VOICE_FRAME] = 0
    if random.random() < ROOM:
        one, other = _in_room(one, random), _in_room(other, random)
    sound = one + other
    if random.random() < BESIDE:
        beside = _noise(random) if random.random() < 0.5 else _music(random)
        sound += beside * 10 ** (-random.uniform(5, 25) / 20)
    sound = sound * 10 ** (random.uniform(-45, -15) / 20)
    sound += random.standard_normal(LENGTH) * 10 ** (random.uniform(-80, -55) / 20)
    return sound.astype(np.float32), np.stack([speaks, also])


def _said(sounds: Sequence[NDArray[np.float32]], random: np.random.Generator) -> tuple[Sound, NDArray[np.bool_]]:
    """What a speaker says with pauses, of level 1, and where they do."""
    parts: list[Sound] = []
    while sum(map(len, parts)) < LENGTH:
        sound = sounds[int(random.integers(len(sounds)))]
        sound = sound[: len(sound) // VOICE_FRAME * VOICE_FRAME].astype(np.float64)
        there = np.repeat(voiced(sound.astype(np.float32)), VOICE_FRAME)
        level = np.sqrt(np.mean(np.square(sound[there])) + 1e-12) if there.any() else 1.0
        parts += [sound / level, np.zeros(int(random.choice(PAUSES)) * VOICE_FRAME)]
    said = np.concatenate(parts)[:LENGTH]
    return said, voiced((said / 20).astype(np.float32))


def _in_room(sound: Sound, random: np.random.Generator) -> Sound:
    """The sound with an echo that dies away."""
    length = int(random.uniform(0.15, 0.7) * SAMPLE_RATE_HZ)
    echo = random.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    echo *= random.uniform(0.3, 1.2) / np.linalg.norm(echo[1:])
    echo[0] = 1
    size = len(sound) + length
    both = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echo, size), size)
    return np.asarray(both[: len(sound)])


def _noise(random: np.random.Generator) -> Sound:
    """Noise that falls with frequency, more or less, and comes and goes."""
    spectrum = np.fft.rfft(random.standard_normal(LENGTH))
    frequency = np.fft.rfftfreq(LENGTH, 1 / SAMPLE_RATE_HZ)
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 30) ** random.uniform(0, 1.2), LENGTH)
    wave = np.sin(2 * np.pi * random.uniform(0.3, 4) * np.arange(LENGTH) / SAMPLE_RATE_HZ)
    noise *= 1 + random.choice((0, 0.8)) * wave
    return np.asarray(noise / noise.std())


def _music(random: np.random.Generator) -> Sound:
    """Chords, a melody above them, and a beat."""
    music = np.zeros(LENGTH)
    beat = int(SAMPLE_RATE_HZ * 60 / random.uniform(70, 150))
    scale = np.array((0, 2, 3, 5, 7, 8, 10) if random.random() < 0.5 else (0, 2, 4, 5, 7, 9, 11))
    root, dull, dies = random.uniform(90, 220), random.uniform(0.4, 1.6), random.uniform(0.3, 6)

    def note(start: int, degree: int, length: int, octave: int = 0) -> None:
        pitch = root * 2 ** ((scale[degree % len(scale)] + 12 * (degree // len(scale) + octave)) / 12)
        time_s = np.arange(min(length, LENGTH - start)) / SAMPLE_RATE_HZ
        tones = (np.sin(2 * np.pi * pitch * k * time_s) / k**dull for k in range(1, 12) if pitch * k < 7500)
        music[start : start + length] += sum(tones) * np.minimum(time_s / 0.01, 1) * np.exp(-dies * time_s)

    for start in range(0, LENGTH, beat):
        chord = int(random.choice((0, 3, 4, 5)))
        for third in (0, 2, 4):
            note(start, chord + third, 3 * beat)
        note(start, int(random.integers(len(scale))), beat // 2, 1)
        tap = music[start : start + 2000]
        tap += 2 * random.standard_normal(len(tap)) * np.exp(-np.arange(len(tap)) / 400)
    return np.asarray(music / music.std())
