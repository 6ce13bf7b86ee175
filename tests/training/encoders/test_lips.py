"""What the lip network learns of the number of voices, from three talkers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dhmd.features.lips import LipNetwork
from dhmd.features.speech import LogMel
from dhmd.media.reader import MediaReader
from tests import composites
from training.encoders.lips import WINDOW, Voice, train_several


def test_several_voices_at_once_are_told_from_each_alone(shared: Path) -> None:
    clips = composites.grid(shared, composites.FIRST, composites.SECOND, composites.THIRD)
    sounds = [np.concatenate(list(MediaReader(clip).sound()))[8000:29000] for clip in clips]
    network = LipNetwork.untrained()
    train_several(network, [Voice(sound, str(number), "grid") for number, sound in enumerate(sounds)])

    def logit(sound: np.ndarray) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(LogMel()(sound[:WINDOW].astype(np.float32)))[None])[1])

    alone = max(logit(sound) for sound in sounds)
    together = min(logit(sounds[i] + sounds[i - 1]) for i in range(3))
    assert alone < 0 < together
