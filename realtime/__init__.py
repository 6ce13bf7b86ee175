"""Everything live: capture, transcript, window, engine, publishing.

from realtime import subscribe
async for estimate in subscribe("mqtt://localhost", stream="hall"):
    print(estimate.top, estimate.valence)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.client import subscribe
    from realtime.estimate import Estimate
    from realtime.payloads import Compact, Event, Metrics, Transcript

_LATE = {
    "subscribe": "realtime.client",
    "Estimate": "realtime.estimate",
    "Compact": "realtime.payloads",
    "Event": "realtime.payloads",
    "Metrics": "realtime.payloads",
    "Transcript": "realtime.payloads",
}
"""Imported when first asked for: who runs a part of the live path does not wait for what takes one in."""

__all__ = ["Compact", "Estimate", "Event", "Metrics", "Transcript", "subscribe"]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
