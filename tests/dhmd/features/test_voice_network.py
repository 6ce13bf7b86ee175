"""The voice network: shapes, padding, and what it learned as a file beside the speech model's own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dhmd.features.expression import ExpressionNet
from dhmd.features.low_rank import adapt
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.voice_network import ADAPTED, EMBEDDING_WIDTH, FRAME_WIDTH, LAYERS, VoiceNetwork
from dhmd.features.weights import WeightsInvalid, save_half


def encoder() -> SpeechEncoder:
    torch.manual_seed(1)
    return SpeechEncoder(mels=80, d=64, layers=2, longest=100)


@pytest.fixture
def network() -> VoiceNetwork:
    torch.manual_seed(0)
    return VoiceNetwork(encoder()).eval()


@torch.inference_mode()
def test_frames_and_an_embedding_of_them_all(network: VoiceNetwork) -> None:
    heard = network(torch.randn(3, 80, 40))
    assert heard.frames.shape == (3, 20, FRAME_WIDTH)
    assert heard.embedding.shape == (3, EMBEDDING_WIDTH)
    assert heard.logits.shape == (3, 7)


@torch.inference_mode()
def test_padding_takes_no_part_in_the_embedding(network: VoiceNetwork) -> None:
    mel = torch.randn(1, 80, 40)
    count = torch.tensor([20])
    quiet, loud = (torch.cat([mel, torch.full((1, 80, 20), level)], dim=2) for level in (0.0, 3.0))
    network.encoder.conv1.weight.zero_()  # the convolutions alone reach over the edge
    torch.testing.assert_close(network(quiet, count).embedding, network(loud, count).embedding)
    assert not torch.equal(network(quiet).frames, network(quiet, count).frames)


@torch.inference_mode()
def test_the_level_of_the_sound_says_nothing(network: VoiceNetwork) -> None:
    mel = torch.randn(2, 80, 40)
    for before, after in zip(network(mel), network(mel - 0.5), strict=True):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_frames_make_the_embedding_and_pauses_take_no_part(network: VoiceNetwork) -> None:
    mel = torch.rand(1, 80, 40)
    mel[..., 20:] -= 3
    states, statistics = network.listen(mel)
    loud = states[:, :10]
    expected = torch.cat([loud.mean(dim=1), (loud.var(dim=1, correction=0) + 1e-8).sqrt()], dim=1)
    torch.testing.assert_close(statistics, expected, atol=1e-5, rtol=1e-4)
    network.embed.weight[:, states.shape[-1] :] = 0
    heard = network(mel)
    torch.testing.assert_close(heard.frames[:, :10].mean(dim=1) + network.embed.bias, heard.embedding)


def test_layers_above_those_read_do_not_run() -> None:
    deep = SpeechEncoder(mels=80, d=64, layers=LAYERS + 2, longest=100)
    assert len(VoiceNetwork(deep).encoder.layers) == LAYERS


def test_what_it_learned_makes_it_again(network: VoiceNetwork, tmp_path: Path) -> None:
    for parameter in adapt(network.encoder, ADAPTED, rank=2):
        nn.init.normal_(parameter, std=0.2)
    learned = network.learned()
    assert not any(name.endswith("linear.weight") or "positions" in name for name in learned)
    again = VoiceNetwork.with_learned(encoder(), learned)
    mel = torch.randn(2, 80, 30)
    with torch.inference_mode():
        for before, after in zip(network.eval()(mel), again(mel), strict=True):
            torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    torch.manual_seed(5)
    other = VoiceNetwork.with_learned(encoder(), VoiceNetwork(encoder()).learned())
    assert again.learned_sha256 != other.learned_sha256
    assert len(again.learned_sha256) == 64


def test_weights_that_lack_something_are_refused(network: VoiceNetwork) -> None:
    learned = network.learned()
    del learned["embed.weight"]
    with pytest.raises(RuntimeError, match=r"embed\.weight"):
        VoiceNetwork.with_learned(encoder(), learned)


def test_a_file_of_another_network_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_half(path, {"a": torch.zeros(30)})
    for load in (VoiceNetwork.load, ExpressionNet.load):
        with pytest.raises(WeightsInvalid, match=r"other\.safetensors is of another network: .*; take one") as told:
            load(path)
        assert "\n" not in str(told.value)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsInvalid, match=r"none\.safetensors is missing"):
        VoiceNetwork.load(tmp_path / "none.safetensors")
    path = tmp_path / "cut.safetensors"
    save_half(path, {"a": torch.zeros(30)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsInvalid, match=r"cut\.safetensors is damaged"):
        VoiceNetwork.load(path)
