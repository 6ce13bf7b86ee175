"""Train the voice network: an adapter in the speech encoder, and what reads its layers, on labelled voices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from dhmd.assets.store import fetch
from dhmd.features.low_rank import adapt
from dhmd.features.speech import SPEECH_ASSET, LogMel
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.voice import CONTEXT
from dhmd.features.voice_network import ADAPTED, VoiceNetwork
from dhmd.labels import EMOTIONS
from training.data import media
from training.data.items import Split, Utterance
from training.encoders.sounds import Sound, spoken_part, varied
from training.encoders.tuning import Group, Plan, tune

RANK: Final = 8
PLAN: Final = Plan(epochs=20, batch=16)
ADAPTER_RATE: Final = 1e-3
NETWORK_RATE: Final = 1.5e-3
SMOOTHING: Final = 0.1

_SILENT: Final = -1.0  # log-mel of silence, as the speech model scales it


@dataclass(frozen=True, slots=True)
class Voices:
    """Labelled voices of one split. label: index into EMOTIONS; corpus: which manifest each is from."""

    sounds: Sequence[Sound]
    label: NDArray[np.int64]
    corpus: Sequence[str]


def voices(utterances: Sequence[Utterance], split: Split) -> Voices:
    """Decode the labelled sounds of a split."""
    chosen = [one for one in utterances if one.split is split and one.audio is not None and one.emotion is not None]
    sounds = [
        spoken_part(media.sound(one.audio, one.start_s, one.end_s)[0])
        for one in track(chosen, f"Voices, {split}", disable=not chosen)
        if one.audio is not None
    ]
    return Voices(
        sounds,
        np.array([EMOTIONS.index(one.emotion) for one in chosen if one.emotion is not None], np.int64),
        [one.corpus for one in chosen],
    )


def train(training: Voices, validation: Voices, state: Path, plan: Plan = PLAN) -> tuple[VoiceNetwork, Any]:
    """Returns the network, with its adapter beside the encoder's weights, and the log; see `tune` for `state`."""
    torch.manual_seed(plan.seed)
    network = VoiceNetwork(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin"))
    adapter = adapt(network.encoder, ADAPTED, RANK)
    own = [parameter for name, parameter in network.named_parameters() if not name.startswith("encoder.")]
    log_mel = LogMel()
    steps = len(training.label) // plan.batch

    def epoch_losses(epoch: int) -> Iterator[Tensor]:
        draw = np.random.default_rng([plan.seed, epoch])
        order = draw.permutation(len(training.label))[: steps * plan.batch].reshape(steps, plan.batch)
        for chosen in track(order, f"Epoch {epoch + 1} of {plan.epochs}"):
            mels = [_masked(log_mel(varied(training.sounds[i], draw)), draw) for i in chosen]
            logits = _logits(network, *beside(mels))
            yield F.cross_entropy(logits, torch.from_numpy(training.label[chosen]), label_smoothing=SMOOTHING)

    groups = [Group(adapter, ADAPTER_RATE, 0.01), Group(own, NETWORK_RATE, 0.05)]
    log = tune(network, groups, plan, epoch_losses, steps, lambda: accuracies(network, validation), state)
    return network.eval(), log


@torch.inference_mode()
def accuracies(network: VoiceNetwork, part: Voices) -> dict[str, float]:
    """Share of voices named rightly by their newest seconds, by corpus."""
    log_mel = LogMel()
    order = np.argsort([len(sound) for sound in part.sounds], kind="stable")
    right = np.zeros(len(order))
    for chosen in np.array_split(order, max(1, -(-len(order) // 16))):
        if len(chosen):
            mels = [log_mel(part.sounds[i][-CONTEXT:]) for i in chosen]
            right[chosen] = _logits(network, *beside(mels)).argmax(dim=1).numpy() == part.label[chosen]
    corpora = np.array(part.corpus)
    return {name: round(float(right[corpora == name].mean()), 4) for name in sorted(set(part.corpus))}


def beside(mels: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """(80, T) each -> (B, 80, longest T) with silence after the shorter ones, and (B,) encoder frames that count."""
    longest = max(mel.shape[1] for mel in mels)
    padded = [np.pad(mel, ((0, 0), (0, longest - mel.shape[1])), constant_values=_SILENT) for mel in mels]
    return torch.from_numpy(np.stack(padded)), torch.tensor([mel.shape[1] // 2 for mel in mels])


def _logits(network: VoiceNetwork, mel: Tensor, count: Tensor) -> Tensor:
    # Half precision where the processor is made for it; what the losses read is single.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits: Tensor = network(mel, count).logits
    return logits.float()


def _masked(mel: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """With two bands and a stretch of time flattened (Park et al. 2019, SpecAugment)."""
    flat, (bands, steps) = mel.mean(), mel.shape
    for _ in range(2):
        width = draw.integers(0, 12)
        begin = draw.integers(0, bands - width)
        mel[begin : begin + width] = flat
    width = min(draw.integers(0, 30), steps)
    begin = draw.integers(0, steps - width + 1)
    mel[:, begin : begin + width] = flat
    return mel
