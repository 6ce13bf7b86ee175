"""Numbers and markers that an outlet sends of an estimate, named as in the exported table."""

from __future__ import annotations

from dhmd.labels import CHANNELS, EMOTIONS
from realtime.messages.estimate import Estimate
from realtime.messages.stream import AnyEvent, EmotionChanged

UNITS = {
    **dict.fromkeys(EMOTIONS, "probability"),
    **dict.fromkeys(("sentiment", "low", "high"), "-3 to 3"),
    **dict.fromkeys(("valence", "arousal"), "-1 to 1"),
    **{f"{name}_present": "0 or 1" for name in CHANNELS.values()},
    **{f"{name}_influence": "0 to 1" for name in CHANNELS.values()},
}
"""Name of each number -> its unit, in the order of `numbers_of`."""


def numbers_of(estimate: Estimate) -> dict[str, float | None]:
    """Return the numbers in the order of UNITS; None where there is none, never a zero instead."""
    sentiment, emotions = estimate.sentiment, estimate.emotions
    parts = [getattr(estimate.modalities, m) for m in CHANNELS]
    values: list[float | None] = [
        *(emotions.values() if emotions else (None,) * len(EMOTIONS)),
        *((sentiment.value, sentiment.low, sentiment.high) if sentiment else (None,) * 3),
        estimate.valence,
        estimate.arousal,
        *(float(part.present) for part in parts),
        *(part.influence for part in parts),
    ]
    return dict(zip(UNITS, values, strict=True))


def marker_of(event: AnyEvent) -> str:
    """Return an event in one word, or two: `emotion happy`, `face_left`."""
    return f"emotion {event.emotion or 'none'}" if isinstance(event, EmotionChanged) else event.event
