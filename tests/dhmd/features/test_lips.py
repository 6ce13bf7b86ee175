from __future__ import annotations

import numpy as np
import pytest

from dhmd.features.lips import AHEAD, CHUNK, FRAME, HeardLips, LipNetwork, mouth_of
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.weights import WeightsInvalid
from dhmd.media.reader import MediaReader
from realtime.demo import CLIP


def test_a_mouth_is_the_same_in_any_size_and_shape_of_picture():
    landmarks = np.random.default_rng(0).random((478, 3), np.float32)
    assert np.allclose(mouth_of(landmarks), mouth_of(landmarks * 0.3 + 0.2), rtol=1e-4)


def test_lips_do_not_depend_on_blocks_and_rest_in_silence():
    network = LipNetwork.load()
    voice = np.concatenate(list(MediaReader(CLIP).sound(3.5)))[: 3 * SAMPLE_RATE_HZ]
    whole, several, spoken = HeardLips(network).push(voice)
    streamed = HeardLips(network)
    parts = [streamed.push(voice[i : i + 700]) for i in range(0, len(voice), 700)]
    assert np.array_equal(whole, np.concatenate([part.lips for part in parts]))
    assert np.array_equal(several, np.concatenate([part.several for part in parts]))
    assert np.array_equal(spoken, np.concatenate([part.voice for part in parts]))
    assert len(whole) == len(voice) // (CHUNK * FRAME) * CHUNK - AHEAD
    assert spoken.any()
    assert whole.std(axis=0).min() > 0.2
    silent = HeardLips(network).push(np.zeros(SAMPLE_RATE_HZ, np.float32))
    assert not silent.lips.any()
    assert np.all(silent.several == -np.inf)


def test_weights_that_are_missing_are_named(tmp_path):
    with pytest.raises(WeightsInvalid, match="missing"):
        LipNetwork.load(tmp_path / "lips.safetensors")
