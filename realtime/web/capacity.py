"""Number of streams this machine can follow at once, measured on a moment of a talking face before anybody comes."""

from __future__ import annotations

import time
from typing import Final

from dhmd.machine import processors
from realtime.capture.media import MediaFile
from realtime.capture.samples import VideoFrame
from realtime.demo import CLIP
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.recognition.attribution import Attribution
from realtime.recognition.engine import Engine

MEASURED_S: Final = 2.0
PICTURES_HZ: Final = 5.0
"""The least at which faces are looked at; sound and words may not wait."""
SHARE: Final = 0.9
"""Of the processor that streams may take: the rest is for the page's server."""


def cost_of_a_stream(extractors: StreamExtractors, engine: Engine, hop_s: float) -> float:
    """Return processor seconds a second, at the least, of one person who is seen and talks without pause."""
    perception, attribution = Perception(extractors, engine.device), Attribution()
    begun_s = time.process_time()
    due_s, picture_s = hop_s, 0.0
    for sample in MediaFile(str(CLIP)).samples():
        if sample.captured_s > MEASURED_S:
            break
        while due_s <= sample.captured_s:
            cut = perception.perceive(due_s).cut
            attribution.measure(engine, cut, engine.infer(cut))
            due_s += hop_s
        if isinstance(sample, VideoFrame):
            if sample.captured_s >= picture_s:
                perception.see(sample)
                picture_s += 1 / PICTURES_HZ
        else:
            perception.hear(sample)
            perception.listen([sample])
    return (time.process_time() - begun_s) / MEASURED_S


def streams_at_once(extractors: StreamExtractors, engine: Engine, hop_s: float) -> int:
    """Return how many streams fit; at least one."""
    return max(1, int(processors() * SHARE / cost_of_a_stream(extractors, engine, hop_s)))
