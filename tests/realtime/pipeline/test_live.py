"""A machine too slow for the sound hears what is new, not what has long been said, and counts what it leaves out."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from realtime.capture.delivery import Delivery
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.pipeline.live import OVERTAKEN_S, _perceive

BLOCK_S = 0.1


def test_a_voice_slower_than_the_sound_lets_go_of_what_waits() -> None:
    """Stand-in for a starved machine: to look into one block takes it as long as two of them."""
    delivery, stop = Delivery(words=False), threading.Event()
    ages_s = list[float]()
    came = 0

    def capture() -> None:
        nonlocal came
        start_s = came * BLOCK_S
        delivery.sound.put(
            AudioBlock(np.zeros(round(BLOCK_S * SAMPLE_RATE_HZ), np.float32), start_s, start_s + BLOCK_S)
        )
        came += 1

    def hear(block: AudioBlock, *, overtaken: bool) -> None:
        if overtaken:
            return
        ages_s.append(delivery.voice.newest_s - block.end_s)
        capture()
        capture()
        if came > 200:
            stop.set()

    for _ in range(40):
        capture()
    perception = SimpleNamespace(hear=hear)
    workers = _perceive(cast("Any", SimpleNamespace(perception=perception)), delivery, cast("Any", None))
    workers["voice"](stop, lambda: None)
    assert ages_s
    assert max(ages_s) <= OVERTAKEN_S + BLOCK_S
    waiting = len(list(iter(delivery.voice.take, None)))
    assert delivery.dropped().audio == came - len(ages_s) - waiting > 0
