"""Whether several voices are heard at once: read, linearly, from what the voice network computes anyway.

S: numbers of a frame in all layers that it reads. U: encoder frames of 20 ms.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from pathlib import Path
from typing import Final, Self

import torch
from torch import Tensor, nn

from dhmd.features.speech import ENCODER_HOP
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.weights import fill, load_single

STATES: Final = 3 * 384
"""Numbers of a frame that the voice network computes."""
SPAN: Final = 48
"""Newest frames of a pass that are read: 0.96 s."""
SPAN_S: Final = SPAN * ENCODER_HOP / SAMPLE_RATE_HZ
SEVERAL: Final = 2.0
"""Logit from which on several voices are heard."""
WEIGHTS: Final = Path(__file__).parents[1] / "pretrained" / "several.safetensors"
_NEAR_S: Final = 0.16
"""Of a stretch those passes tell whose middle is in it, or so far from it, at most."""
_KEPT: Final = 256
"""Passes that are remembered: 82 s of speech."""


class SeveralVoices(nn.Module):
    """A linear reading of the states of the speech encoder as it is; where it is adapted, they are others."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = nn.Linear(2 * STATES, 1)

    def forward(self, states: Tensor) -> Tensor:
        """How likely several voices are heard in the newest SPAN frames, as a logit, (B,). states: (B, U, S)."""
        logits: Tensor = self.reading(self.pooled(states))[:, 0]
        return logits

    @staticmethod
    def pooled(states: Tensor) -> Tensor:
        """What is read, (B, 2 S): mean and deviation of each state. states: (B, U, S), of which the newest count."""
        newest = states[:, -SPAN:]
        return torch.cat([newest.mean(dim=1), newest.std(dim=1)], dim=-1)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Self:
        """The trained reading, in evaluation mode. Raises WeightsInvalid."""
        reading = cls()
        fill(reading, load_single(path), path)
        return reading.eval()


class Overlaps:
    """When several voices were heard in one stream, as far as it is known. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def add(self, end_s: float, logit: float) -> None:
        """Take in what was read of the SPAN_S that end at `end_s`, stream clock."""
        with self._lock:
            self._passes.append((end_s, logit))

    def during(self, start_s: float, end_s: float, heard_s: float = math.inf) -> bool:
        """Tell whether several were heard from one moment to another. heard_s: leave out what ends after it."""
        first_s, last_s = start_s - _NEAR_S + SPAN_S / 2, min(end_s + _NEAR_S + SPAN_S / 2, heard_s)
        with self._lock:
            near = [logit for t_s, logit in self._passes if first_s <= t_s <= last_s]
        return bool(near) and sum(near) / len(near) > SEVERAL
