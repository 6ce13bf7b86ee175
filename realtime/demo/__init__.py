"""The clip that `dhmd-live demo` plays: a portrait in the public domain brought to life, with a synthetic voice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLIP: Final = Path(__file__).with_name("demo.mp4")
"""640x480 at 25 frames a second with mono sound; made by `python -m realtime.demo.make_clip`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Text said in one mood, between `start_s` and `end_s` seconds of the clip. Between two there is silence."""

    mood: str
    text: str
    start_s: float
    end_s: float


SCRIPT: Final = (
    Segment("neutral", "Hello. I will tell you about my day.", 0.7, 3.4),
    Segment("happy", "What wonderful news! We won the prize, and I am so happy!", 5.3, 9.2),
    Segment("surprise", "Oh! Wait, what is that? I never expected this!", 13.0, 17.2),
    Segment("angry", "Stop it! This is unfair, and I am very angry!", 19.6, 22.9),
    Segment("sad", "Now my old friend is leaving, and I feel so sad.", 25.2, 29.1),
)
"""What is said when; moods are names of `dhmd.labels.EMOTIONS`. Pauses are long enough that the words of one mood soon
leave the window of the next."""

DURATION_S: Final = 31.2
