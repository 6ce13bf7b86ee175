"""The reading that tells several voices at once from one learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dhmd.checkpoint import load
from dhmd.features.voice import VoiceExtractor
from dhmd.features.voice_network import VoiceNetwork
from dhmd.media.reader import MediaReader
from dhmd.modality import Modality
from tests import composites
from training.encoders.lips import Voice
from training.encoders.several import train


def test_several_voices_at_once_are_told_from_each_alone(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = composites.grid(shared, composites.FIRST, composites.SECOND, composites.THIRD)
    sounds = [np.concatenate(list(MediaReader(clip).sound()))[8000:40000] for clip in clips]
    sounds = [np.float32(0.05) * sound / sound.std() for sound in sounds]
    network = VoiceNetwork.load(load("base").encoder(Modality.AUDIO))
    voices = [Voice(sound, str(number), "grid") for number, sound in enumerate(sounds)]
    reading = train(network, voices, streams=24)

    def logit(sound: NDArray[np.float32]) -> float:
        """In the mean of its passes."""
        extractor, logits = VoiceExtractor(network), list[float]()
        extractor._several = reading
        monkeypatch.setattr(extractor.overlaps, "add", lambda _, logit: logits.append(logit))
        extractor.push(sound, 0.0)
        return float(np.mean(logits))

    alone = max(logit(sound) for sound in sounds)
    together = min(logit(sounds[i] + sounds[i - 1]) for i in range(3))
    assert alone < 0 < together
