"""Several voices at once: heard where there are, and not where one speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.checkpoint import load
from dhmd.features.low_rank import adapt
from dhmd.features.several import SPAN_S, SeveralVoices
from dhmd.features.speech import SPEECH_ASSET
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.voice import VoiceExtractor
from dhmd.features.voice_network import ADAPTED, VoiceNetwork
from dhmd.features.weights import WeightsInvalid
from dhmd.media.reader import MediaReader
from dhmd.modality import Modality
from tests import composites


@pytest.fixture(scope="module")
def network() -> VoiceNetwork:
    return VoiceNetwork.load(load("base").encoder(Modality.AUDIO))


@pytest.fixture(scope="module")
def talkers(shared: Path) -> list[NDArray[np.float32]]:
    """Three sentences of three talkers, equally loud."""
    clips = composites.grid(shared, composites.FIRST, composites.SECOND, composites.THIRD)
    sounds = [np.concatenate(list(MediaReader(clip).sound()))[8000:40000] for clip in clips]
    return [np.float32(0.05) * sound / sound.std() for sound in sounds]


def share(network: VoiceNetwork, sound: NDArray[np.float32]) -> float:
    """Of the tenths of a second in the middle of a sound, how many are told to be of several voices."""
    extractor = VoiceExtractor(network)
    extractor.push(sound, 0.0)
    starts_s = np.arange(SPAN_S / 2, len(sound) / SAMPLE_RATE_HZ - SPAN_S, 0.1)
    return float(np.mean([extractor.overlaps.during(start_s, start_s + 0.1) for start_s in starts_s]))


def test_two_voices_at_once_are_told_from_each_alone(network: VoiceNetwork, talkers: list[NDArray[np.float32]]) -> None:
    assert [share(network, sound) for sound in talkers] == [0.0] * 3
    assert min(share(network, talkers[i] + talkers[i - 1]) for i in range(3)) > 0.5


def test_an_adapted_encoder_is_not_read(network: VoiceNetwork, talkers: list[NDArray[np.float32]]) -> None:
    """Its states are others than those from which the reading was learned."""
    encoder = SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin")
    other = VoiceNetwork(encoder)
    adapter = adapt(other.encoder, ADAPTED, 2)
    adapter[1].data += 0.1
    learned = {**network.learned(), **other.learned()}
    loaded = VoiceNetwork.with_learned(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin"), learned)
    assert (network.adapted, loaded.adapted) == (False, True)
    assert share(loaded, talkers[0] + talkers[1]) == 0.0


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsInvalid, match="missing"):
        SeveralVoices.load(tmp_path / "several.safetensors")
