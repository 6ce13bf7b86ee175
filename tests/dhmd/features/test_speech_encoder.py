"""The speech model's encoder in torch: it says what CTranslate2 says, and padding changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.features.speech import SPEECH_ASSET, LogMel, SpeechModel
from dhmd.features.speech_encoder import SpeechEncoder, SpeechWeightsInvalid, read_ctranslate2

Sound = NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin")


@pytest.fixture(scope="module")
def mel(say: Callable[[str], Sound]) -> torch.Tensor:
    return torch.from_numpy(LogMel()(say("I am so happy to see you today")))[None]


@torch.inference_mode()
def test_as_ctranslate2_but_for_its_eight_bits(
    encoder: SpeechEncoder, mel: torch.Tensor, speech: SpeechModel, say: Callable[[str], Sound]
) -> None:
    expected = np.array(speech._encode(say("I am so happy to see you today")), np.float32)[0]
    found = encoder(mel)[-1][0].numpy()
    assert found.shape == expected.shape
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995


@torch.inference_mode()
def test_a_state_before_each_layer_and_the_last(encoder: SpeechEncoder, mel: torch.Tensor) -> None:
    states = encoder(mel)
    assert len(states) == len(encoder.layers) + 1 == 5
    assert {state.shape for state in states} == {(1, mel.shape[2] // 2, 384)}


@torch.inference_mode()
def test_what_lies_beyond_the_count_is_not_heard(encoder: SpeechEncoder, mel: torch.Tensor) -> None:
    count = mel.shape[2] // 2 - 10
    other = mel.clone()
    other[:, :, 2 * count + 4 :] = 1.0  # the convolutions reach over the edge by three frames of mel
    heard, beside = (encoder(each, torch.tensor([count]))[-1][:, :count] for each in (mel, other))
    torch.testing.assert_close(heard, beside, atol=1e-4, rtol=0)
    assert not torch.allclose(encoder(mel)[-1][:, :count], encoder(other)[-1][:, :count], atol=1e-2)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes((7).to_bytes(4, "little") + bytes(40))
    with pytest.raises(SpeechWeightsInvalid, match="binary version 7, this version reads 6"):
        read_ctranslate2(path)
