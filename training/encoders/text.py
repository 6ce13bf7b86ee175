"""Tune the text encoder: a low-rank adapter learned on labelled sentences; the heads that taught it are left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.assets.store import fetch
from dhmd.features.low_rank import adapt
from dhmd.features.text import DEFAULT_ENCODER
from dhmd.labels import EMOTIONS
from training.data.items import Split, Utterance
from training.encoders.tuning import Group, Plan, tune
from training.evaluation.metrics import sentiment_metrics, weighted_f1
from training.progress import followed

RANK: Final = 16
ADAPTED: Final = ("self.query", "self.key", "self.value", "output.dense", "intermediate.dense")
PLAN: Final = Plan(epochs=4, batch=32, warm_up=100)
ADAPTER_RATE: Final = 1e-3
HEAD_RATE: Final = 2e-3
SMOOTHING: Final = 0.05
LONGEST: Final = 64
"""Tokens read of a sentence."""
READ: Final = 8000


@dataclass(frozen=True, slots=True)
class Sentences:
    """Labelled sentences of one corpus. emotion: (N,), -1 unknown; sentiment: (N,), NaN unknown.

    share: how often each is read in an epoch, on average.
    """

    texts: Sequence[str]
    emotion: NDArray[np.int64]
    sentiment: NDArray[np.float32]
    share: float = 1.0

    @property
    def of_emotion(self) -> bool:
        return bool((self.emotion >= 0).any())


def sentences(utterances: Sequence[Utterance], split: Split) -> dict[str, Sentences]:
    """The labelled texts of a split by corpus. Of each about READ are read an epoch, each sentence at most twice and at
    least every second time."""
    result = {}
    for corpus in dict.fromkeys(one.corpus for one in utterances):
        own = [one for one in utterances if one.corpus == corpus and one.split is split and one.text]
        if own:
            result[corpus] = Sentences(
                [" ".join((one.text or "").replace("\u2019", "'").split()) for one in own],
                np.array([-1 if one.emotion is None else EMOTIONS.index(one.emotion) for one in own], np.int64),
                np.array([np.nan if one.sentiment is None else one.sentiment for one in own], np.float32),
                float(np.clip(READ / len(own), 0.5, 2.0)),
            )
    return result


class TunedEncoder(nn.Module):
    """The encoder with its adapter, and a head for each corpus: what a label means differs between them."""

    def __init__(self, corpora: dict[str, int]) -> None:
        """corpora: numbers that the head of each gives."""
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        folder = fetch(DEFAULT_ENCODER)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.encoder: Any = AutoModel.from_pretrained(folder, local_files_only=True)
        self.adapter = adapt(self.encoder, ADAPTED, RANK)
        self.heads = nn.ModuleDict(
            {corpus: nn.Linear(self.encoder.config.hidden_size, outputs) for corpus, outputs in corpora.items()}
        )
        self.dropout = nn.Dropout(0.2)

    def forward(self, corpus: str, texts: Sequence[str]) -> Tensor:
        """(B, outputs of the corpus) from the mean of the token vectors."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training):
            vectors = self.encoder(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None].float()
        mask[:, 0] = 0  # the first token is no word
        out: Tensor = self.heads[corpus](self.dropout((vectors * mask).sum(1) / mask.sum(1).clamp(min=1)))
        return out


def train(
    training: dict[str, Sentences], validation: dict[str, Sentences], state: Path, plan: Plan = PLAN
) -> tuple[TunedEncoder, Any]:
    """Returns the encoder with its adapter beside its weights, and the log; see `tune` for `state`."""
    torch.manual_seed(plan.seed)
    encoder = TunedEncoder({name: len(EMOTIONS) if part.of_emotion else 1 for name, part in training.items()})
    steps = len(_batches(training, plan, 0))

    def epoch_losses(epoch: int) -> Iterator[Tensor]:
        draw = np.random.default_rng([plan.seed, epoch, 1])
        for corpus, chosen in followed(_batches(training, plan, epoch), f"Epoch {epoch + 1} of {plan.epochs}", "steps"):
            part = training[corpus]
            out = encoder(corpus, [as_heard(part.texts[i], draw) for i in chosen])
            if part.of_emotion:
                yield F.cross_entropy(out, torch.from_numpy(part.emotion[chosen]), label_smoothing=SMOOTHING)
            else:
                yield F.l1_loss(out[:, 0], torch.from_numpy(part.sentiment[chosen]))

    groups = [Group(encoder.adapter, ADAPTER_RATE, 0.01), Group(list(encoder.heads.parameters()), HEAD_RATE, 0.01)]
    log = tune(encoder, groups, plan, epoch_losses, steps, lambda: measures(encoder, validation), state)
    return encoder.eval(), log


def as_heard(text: str, draw: np.random.Generator) -> str:
    """The text as it is, or as a recogniser might give it: without punctuation, or with words missing."""
    chance = draw.random()
    if chance < 0.25:
        text = re.sub(r"[^\w\s']", "", text)
    elif chance < 0.4:
        text = re.sub(r"[!?\u2026\"]", "", text)
    words = text.split()
    if draw.random() < 0.15 and len(words) > 3:
        words = [word for word in words if draw.random() > 0.1]
    return " ".join(words) or "oh"


@torch.inference_mode()
def measures(encoder: TunedEncoder, parts: dict[str, Sentences]) -> dict[str, float]:
    """Weighted F1 of the emotions, or correlation of the sentiment, by corpus."""
    found: dict[str, float] = {}
    for corpus, part in parts.items():
        order = np.argsort([len(text) for text in part.texts], kind="stable")
        out = np.zeros((len(order), len(EMOTIONS) if part.of_emotion else 1))
        for chosen in np.array_split(order, -(-len(order) // 64)):
            out[chosen] = encoder(corpus, [part.texts[i] for i in chosen]).numpy()
        if part.of_emotion:
            found[corpus] = round(weighted_f1(part.emotion, out.argmax(axis=1), len(EMOTIONS)), 4)
        else:
            found[corpus] = round(sentiment_metrics(out[:, 0], part.sentiment)["corr"], 4)
    return found


def _batches(training: dict[str, Sentences], plan: Plan, epoch: int) -> list[tuple[str, NDArray[np.int64]]]:
    """Batches of one corpus each, of sentences of about the same length, in an order that the epoch fixes."""
    draw = np.random.default_rng([plan.seed, epoch])
    batches: list[tuple[str, NDArray[np.int64]]] = []
    for corpus, part in training.items():
        count = len(part.texts)
        whole = np.concatenate([draw.permutation(count) for _ in range(int(np.ceil(part.share)))])
        chosen = whole[: round(count * part.share)]
        length = np.array([len(part.texts[i]) for i in chosen]) + draw.uniform(0, 15, len(chosen))
        chosen = chosen[np.argsort(length)]
        batches += [(corpus, chosen[i : i + plan.batch]) for i in range(0, len(chosen), plan.batch)]
    return [batches[i] for i in draw.permutation(len(batches))]
