"""Teach a text encoder of many languages to give the word vectors of the tuned English one. A map of its vectors
learns, on English sentences alone; what the encoder has alike in all languages, the map carries over.

Reimers & Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation", without
their parallel sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dhmd.features.packed_encoder import WordMap
from dhmd.features.token_vectors import TokenVectors
from training.progress import followed

STUDENT: Final = "multilingual-e5-small"
TESTED: Final = ("en", "de", "es", "fr", "it", "pt", "nl", "pl")
"""Languages in which what it reads was measured: see docs/languages.md."""
WIDE: Final = 768
"""Width inside the map's feed-forward layer."""
LONGEST: Final = 28
"""Words of a sentence that are read: more than a window holds."""
HELD_OUT: Final = 0.05
RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Plan:
    """rate: of learning, at most. whole: weight of the mean over a sentence beside that of each token."""

    epochs: int = 7
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.01
    whole: float = 2.0
    dropout: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Tokens of sentences, one after the other. states: (N, inputs) of the student, float16. wanted: (N, width), the
    mean of the teacher's vectors of the word. ends: (sentences + 1,) where each begins and ends."""

    states: NDArray[np.float16]
    wanted: NDArray[np.float16]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def batch(self, chosen: Iterable[int]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, inputs), (B, N, width), and the mask of the tokens (B, N)."""
        spans = [slice(self.ends[i], self.ends[i + 1]) for i in chosen]
        longest = max(span.stop - span.start for span in spans)
        states, wanted = (
            np.zeros((len(spans), longest, part.shape[1]), np.float32) for part in (self.states, self.wanted)
        )
        mask = np.zeros((len(spans), longest), np.bool_)
        for row, span in enumerate(spans):
            count = span.stop - span.start
            states[row, :count], wanted[row, :count] = self.states[span], self.wanted[span]
            mask[row, :count] = True
        return torch.from_numpy(states), torch.from_numpy(wanted), torch.from_numpy(mask)


def pairs(texts: Sequence[str], student: TokenVectors, teacher: TokenVectors) -> Pairs:
    """What both make of each sentence; some are read from their middle on, as in a window."""
    draw = np.random.default_rng(0)
    states: list[NDArray[np.float32]] = []
    wanted: list[NDArray[np.float32]] = []
    for text in followed(texts, "Reading", "sentences"):
        words = text.split()[:LONGEST]
        if draw.random() < 0.3 and len(words) > 4:
            words = words[draw.integers(1, len(words) - 2) :]
        said = " ".join(words)
        if not said:
            continue
        word_of = np.cumsum([character == " " for character in said])
        vectors, last = teacher.read([said])[0]
        counts = np.bincount(word_of[last], minlength=len(words))
        sums = np.zeros((len(words), vectors.shape[1]), np.float32)
        np.add.at(sums, word_of[last], vectors)
        own, own_last = student.read([said])[0]
        if len(own) and counts[word_of[own_last]].all():
            states.append(own)
            wanted.append((sums / np.maximum(counts, 1)[:, None])[word_of[own_last]])
    ends = np.cumsum([0, *map(len, states)])
    return Pairs(np.concatenate(states).astype(np.float16), np.concatenate(wanted).astype(np.float16), ends)


def distil(given: Pairs, plan: Plan) -> tuple[WordMap, list[dict[str, Any]]]:
    """Returns the map and the log: shares of the wanted vectors' variance that are not explained."""
    torch.manual_seed(plan.seed)
    training = int(len(given) * (1 - HELD_OUT))
    learned = _linear(given, int(given.ends[training]))
    variance = float(given.wanted.astype(np.float32).var(axis=0).sum())
    steps = plan.epochs * len(_batches(given, training, plan, 0))
    weights = [weight for weight in learned.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, plan.rate, weight_decay=plan.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.1)
    log: list[dict[str, Any]] = []
    for epoch in range(plan.epochs):
        learned.train()
        losses = []
        for chosen in followed(_batches(given, training, plan, epoch), f"Epoch {epoch + 1} of {plan.epochs}", "steps"):
            states, wanted, mask = given.batch(chosen)
            states = learned.mean + F.dropout(states - learned.mean, plan.dropout)
            each, whole = _errors(learned, (states, wanted, mask))
            optimiser.zero_grad()
            ((each + plan.whole * whole) / variance).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rates.step()
            losses.append(each.item() / variance)
        learned.eval()
        with torch.inference_mode():
            held = [
                _errors(learned, given.batch(range(begin, min(begin + plan.batch, len(given)))))[0].item() / variance
                for begin in range(training, len(given), plan.batch)
            ]
        log.append({"epoch": epoch + 1, "loss": float(np.mean(losses)), "validation": float(np.mean(held))})
    return learned, log


def _linear(given: Pairs, until: int) -> WordMap:
    """The map with its linear part fitted by ridge regression, and its correction at nothing."""
    states = given.states[:until].astype(np.float32)
    learned = WordMap(states.shape[1], given.wanted.shape[1], WIDE)
    mean, deviation = states.mean(axis=0), states.std(axis=0) + 1e-3
    inputs = np.concatenate([(states - mean) / deviation, np.ones((until, 1), np.float32)], axis=1)
    gram = (inputs.T @ inputs).astype(np.float64) + RIDGE * until * np.eye(inputs.shape[1])
    fitted = np.linalg.solve(gram, inputs.T @ given.wanted[:until].astype(np.float32)).astype(np.float32)
    with torch.no_grad():
        learned.mean.copy_(torch.from_numpy(mean))
        learned.deviation.copy_(torch.from_numpy(deviation))
        learned.linear.weight.copy_(torch.from_numpy(fitted[:-1].T.copy()))
        learned.linear.bias.copy_(torch.from_numpy(fitted[-1]))
        for last in (learned.attention_out, learned.contract):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return learned


def _errors(learned: WordMap, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean squared error of a token, and of the mean over a sentence."""
    states, wanted, mask = batch
    found = learned(states, mask)
    each = (found - wanted).square().sum(-1)[mask].mean()
    share = mask[..., None] / mask.sum(1)[:, None, None]
    return each, ((found - wanted) * share).sum(1).square().sum(-1).mean()


def _batches(given: Pairs, training: int, plan: Plan, epoch: int) -> list[NDArray[np.int64]]:
    """Sentences of like length together, in an order of the epoch's own."""
    draw = np.random.default_rng([plan.seed, epoch])
    order = draw.permutation(training)
    lengths = np.diff(given.ends)
    parts = [part[np.argsort(lengths[part], kind="stable")] for part in np.array_split(order, max(1, training // 1280))]
    batches = [part[begin : begin + plan.batch] for part in parts for begin in range(0, len(part), plan.batch)]
    return [batches[i] for i in draw.permutation(len(batches))]


def described(plan: Plan) -> dict[str, Any]:
    """The settings, for the report."""
    return {**asdict(plan), "student": STUDENT, "wide": WIDE, "ridge": RIDGE}
