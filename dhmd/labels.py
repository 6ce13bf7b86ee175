"""The seven emotion classes, their place on the valence-arousal plane, and what people call the modalities."""

from __future__ import annotations

from typing import Final

from dhmd.modality import Modality

EMOTIONS: Final = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
"""Order of the emotion head's outputs."""

CIRCUMPLEX: Final[dict[str, tuple[float, float]]] = {
    "neutral": (0.0, 0.0),
    "happy": (0.9, 0.4),
    "sad": (-0.8, -0.5),
    "angry": (-0.7, 0.7),
    "fear": (-0.6, 0.8),
    "disgust": (-0.7, 0.3),
    "surprise": (0.2, 0.8),
}
"""Valence and arousal of each class in [-1, 1]: a rounded reading of the circumplex model of affect
(Russell 1980, Journal of Personality and Social Psychology 39(6)). A convention, not a measurement."""

CHANNELS: Final = {Modality.VISION: "face", Modality.AUDIO: "voice", Modality.TEXT: "words"}
"""The modalities as they are named to people."""
