"""The voice network learns to tell two kinds of voices, goes on after a cut, and its file does what it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dhmd.assets.store import fetch
from dhmd.features.speech import SPEECH_ASSET
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.voice_network import VoiceNetwork
from training.encoders import audio
from training.encoders.audio import Voices, beside, measures, recalls, train
from training.encoders.tuning import Plan

RATE = 16_000


def made(count: int, seed: int) -> Voices:
    """Low growls that are sad, high wails that are surprised."""
    draw = np.random.default_rng(seed)
    label = np.tile([2, 6], count // 2)
    sounds = []
    for one in label:
        pitch = draw.uniform(90, 120) if one == 2 else draw.uniform(300, 400)
        phase = 2 * np.pi * pitch * np.arange(RATE) / RATE
        sounds.append((0.2 * np.sin(phase) + 0.1 * np.sin(2 * phase)).astype(np.float32))
    return Voices(sounds, label.astype(np.int64), ["made"] * count)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(epochs=3, batch=8, warm_up=2)


def test_it_learns_and_its_file_says_the_same(tmp_path: Path, plan: Plan) -> None:
    network, log = train(made(32, 0), made(8, 1), tmp_path / "state.pt", plan)
    assert log[-1]["validation"] == {"made": 1.0}
    assert log[-1]["loss"] < log[0]["loss"]
    again = VoiceNetwork.with_learned(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin"), network.learned())
    mel = torch.randn(1, 80, 40)
    with torch.inference_mode():
        torch.testing.assert_close(again(mel).logits, network(mel).logits, atol=1e-3, rtol=1e-3)


def test_a_cut_run_goes_on_to_the_same_weights(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    voices, others, short = made(8, 0), made(2, 1), replace(plan, epochs=2)
    whole, log = train(voices, others, tmp_path / "whole.pt", short)

    def cut(network: VoiceNetwork, part: Voices) -> dict[str, float]:
        if cuts:
            raise KeyboardInterrupt
        cuts.append(1)
        return recalls(network, part)

    cuts: list[int] = []
    monkeypatch.setattr(audio, "recalls", cut)
    with pytest.raises(KeyboardInterrupt):
        train(voices, others, tmp_path / "cut.pt", short)
    monkeypatch.undo()
    resumed, resumed_log = train(voices, others, tmp_path / "cut.pt", short)
    assert resumed_log == log
    for name, value in whole.learned().items():
        torch.testing.assert_close(resumed.learned()[name], value)


def test_shorter_sounds_are_followed_by_silence() -> None:
    mel, count = beside([np.zeros((80, 6), np.float32), np.ones((80, 10), np.float32)])
    assert mel.shape == (2, 80, 10)
    assert count.tolist() == [3, 5]
    assert (mel[0, :, 6:] == -1).all()


def test_the_classes_of_a_corpus_are_drawn_alike_and_a_corpus_by_the_root_of_its_size() -> None:
    label = np.array([0] * 12 + [1] * 4 + [0, 2, 2, 2], np.int64)
    chances = Voices([np.zeros(1, np.float32)] * 20, label, ["large"] * 16 + ["small"] * 4).chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[:12].sum() == pytest.approx(chances[12:16].sum())
    assert chances[16] == pytest.approx(chances[17:].sum())
    assert chances[:16].sum() == pytest.approx(2 * chances[16:].sum())


def test_recall_counts_every_class_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Voices([np.zeros(1, np.float32)] * 4, np.array([0, 0, 0, 1]), ["made"] * 4)
    monkeypatch.setattr(audio, "named", lambda *_: np.array([0, 0, 0, 0]))
    network = VoiceNetwork(SpeechEncoder(mels=80, d=64, layers=1, longest=100))
    assert recalls(network, part) == {"made": 0.5}
    assert measures(network, part) == {"made": {"accuracy": 0.75, "recall": 0.5}}
