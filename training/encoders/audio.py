"""Train the voice network on labelled voices: first what reads the layers of the speech encoder as it is, then, where
epochs are asked for, an adapter in the encoder together with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
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
from training.encoders.sounds import Sound, at_tempo, varied
from training.encoders.tuning import Group, Plan, tune
from training.features.spoken import spoken_part
from training.progress import followed

RANK: Final = 8
PLAN: Final = Plan(epochs=0, batch=32)
"""Of the adapter: none unless epochs are asked for, since six of them gained nothing with new speakers (mean recall of
the validation speakers 69.7 % against 72.7 % without)."""
ADAPTER_RATE: Final = 5e-4
NETWORK_RATE: Final = 2e-4
SMOOTHING: Final = 0.1

VARIATIONS: Final = 3
"""Of every voice, beside the voice itself, that the network reads before the encoder is adapted."""
READING: Final = Plan(epochs=12, batch=32)
READING_RATE: Final = 1e-3

_BUCKET: Final = 8
"""Batches whose voices are sorted by length among them, so that little is padded."""
_HEARD_AT_ONCE: Final = 16
_SILENT: Final = -1.0  # log-mel of silence, as the speech model scales it


@dataclass(frozen=True, slots=True)
class Voices:
    """Labelled voices of one split. label: index into EMOTIONS; corpus: which manifest each is from."""

    sounds: Sequence[Sound]
    label: NDArray[np.int64]
    corpus: Sequence[str]

    def chances(self) -> NDArray[np.float64]:
        """(N,) how often to draw each: the classes of a corpus alike, a corpus by the root of its size."""
        chance = np.zeros(len(self.label))
        corpora = np.array(self.corpus)
        for name in set(self.corpus):
            own = corpora == name
            classes, count = np.unique(self.label[own], return_counts=True)
            share = dict(zip(classes, 1 / (count * len(count)), strict=True))
            chance[own] = [share[label] * math.sqrt(own.sum()) for label in self.label[own]]
        return np.asarray(chance / chance.sum())


def voices(utterances: Sequence[Utterance], split: Split) -> Voices:
    """Decode the labelled sounds of a split."""
    chosen = [one for one in utterances if one.split is split and one.audio is not None and one.emotion is not None]
    sounds = [
        spoken_part(media.sound(one.audio, one.start_s, one.end_s)[0])
        for one in followed(chosen, f"Voices, {split}", "clips", hidden=not chosen)
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
    reading = [parameter for name, parameter in network.named_parameters() if not name.startswith("encoder.")]
    if not state.is_file():  # a cut run goes on from what it had learned by then
        _read_layers(network, reading, training, plan.seed)
    adapter = adapt(network.encoder, ADAPTED, RANK)
    log_mel = LogMel()
    chances = training.chances()
    steps = len(training.label) // plan.batch

    def epoch_losses(epoch: int) -> Iterator[Tensor]:
        draw = np.random.default_rng([plan.seed, epoch])
        order = draw.choice(len(chances), (steps, plan.batch), p=chances)
        for first in followed(range(0, steps, _BUCKET), f"Epoch {epoch + 1} of {plan.epochs}", "buckets"):
            chosen = order[first : first + _BUCKET].ravel()
            mels = [_masked(_variation(training.sounds[i], log_mel, draw), draw) for i in chosen.tolist()]
            by_length = np.argsort([mel.shape[1] for mel in mels], kind="stable").reshape(-1, plan.batch)
            for batch in draw.permutation(by_length):
                label = torch.from_numpy(training.label[chosen[batch]])
                logits = _logits(network, *beside([mels[i] for i in batch]))
                yield F.cross_entropy(logits, label, label_smoothing=SMOOTHING)

    groups = [Group(adapter, ADAPTER_RATE, 0.01), Group(reading, NETWORK_RATE, 0.05)]
    log = tune(network, groups, plan, epoch_losses, steps, lambda: recalls(network, validation), state)
    return network.eval(), log


def _read_layers(network: VoiceNetwork, reading: Sequence[torch.nn.Parameter], part: Voices, seed: int) -> None:
    """Train what reads the layers on statistics of the encoder as it is, which are computed once.

    An adapter that learns beside a network of chance would first learn to serve chance.
    """
    log_mel = LogMel()
    draw = np.random.default_rng([seed, READING.seed])
    heard = [_statistics(network, [log_mel(sound[-CONTEXT:]) for sound in part.sounds], "Voices")]
    for i in range(VARIATIONS):
        mels = [_variation(sound, log_mel, draw) for sound in part.sounds]
        heard.append(_statistics(network, mels, f"Variation {i + 1} of {VARIATIONS}"))
    statistics, label = torch.stack(heard), torch.from_numpy(part.label)
    network.standardise(statistics.flatten(0, 1))
    optimiser = torch.optim.AdamW(reading, weight_decay=0.05)
    chances = part.chances()
    steps = max(1, READING.epochs * len(chances) // READING.batch)
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = READING_RATE * READING.rate(step, steps)
        chosen = draw.choice(len(chances), READING.batch, p=chances)
        which = draw.integers(0, len(statistics), READING.batch)
        logits = network.read(statistics[which, chosen])[1]
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(logits, label[chosen], label_smoothing=SMOOTHING))
        optimiser.step()


@torch.no_grad()
def _statistics(network: VoiceNetwork, mels: Sequence[NDArray[np.float32]], what: str) -> Tensor:
    """(N, 2 S), what the network reads of each."""
    order = np.argsort([mel.shape[1] for mel in mels], kind="stable")
    found: dict[int, Tensor] = {}
    for first in followed(range(0, len(order), _HEARD_AT_ONCE), what, "batches"):
        chosen = order[first : first + _HEARD_AT_ONCE]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found |= zip(chosen.tolist(), network.listen(*beside([mels[i] for i in chosen]))[1].float(), strict=True)
    return torch.stack([found[i] for i in range(len(mels))])


@torch.inference_mode()
def named(network: VoiceNetwork, part: Voices) -> NDArray[np.int64]:
    """(N,) index into EMOTIONS of what each voice is called by its newest seconds."""
    log_mel = LogMel()
    order = np.argsort([len(sound) for sound in part.sounds], kind="stable")
    label = np.zeros(len(order), np.int64)
    for first in range(0, len(order), _HEARD_AT_ONCE):
        chosen = order[first : first + _HEARD_AT_ONCE]
        mels = [log_mel(part.sounds[i][-CONTEXT:]) for i in chosen]
        label[chosen] = _logits(network, *beside(mels)).argmax(dim=1).numpy()
    return label


def recalls(network: VoiceNetwork, part: Voices) -> dict[str, float]:
    """Share of the voices of a class that are named rightly, averaged over the classes of a corpus; by corpus."""
    return _by_corpus(named(network, part), part, balanced=True)


def measures(network: VoiceNetwork, part: Voices) -> dict[str, dict[str, float]]:
    """Share of voices named rightly, and the mean of that over the classes; by corpus."""
    label = named(network, part)
    plain, balanced = (_by_corpus(label, part, balanced=by_class) for by_class in (False, True))
    return {name: {"accuracy": plain[name], "recall": balanced[name]} for name in plain}


def _by_corpus(label: NDArray[np.int64], part: Voices, *, balanced: bool) -> dict[str, float]:
    corpora, found = np.array(part.corpus), {}
    for name in sorted(set(part.corpus)):
        own, right = part.label[corpora == name], (label == part.label)[corpora == name]
        per_class = [right[own == one].mean() for one in np.unique(own)]
        found[name] = round(float(np.mean(per_class) if balanced else right.mean()), 4)
    return found


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


def _variation(sound: Sound, log_mel: LogMel, draw: np.random.Generator) -> NDArray[np.float32]:
    """(80, T) as another take, microphone and room would give it, more than half of them at another tempo (12 %)."""
    mel = log_mel(varied(sound, draw))
    return at_tempo(mel, math.exp(draw.normal(0, 0.12))) if draw.random() < 0.6 else mel


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
