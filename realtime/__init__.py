"""Everything live: capture, transcript, window, engine, publishing.

from realtime import recognise, subscribe
for estimate in recognise("talk.mp4"):
    print(estimate.top, estimate.valence)
async for estimate in subscribe("mqtt://localhost", stream="hall"):
    print(estimate.top, estimate.valence)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.messages.estimate import Estimate
    from realtime.messages.stream import Compact, Event, Metrics, People, Transcript
    from realtime.mqtt.client import subscribe
    from realtime.programs.recognise import recognise, recognising

# Read by OpenCV when it is loaded: 64 megapixels, beside every check of our own. Else a picture may take gigabytes.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 2**20))

_LATE = {
    "recognise": "realtime.programs.recognise",
    "recognising": "realtime.programs.recognise",
    "subscribe": "realtime.mqtt.client",
    "Estimate": "realtime.messages.estimate",
    "Compact": "realtime.messages.stream",
    "Event": "realtime.messages.stream",
    "Metrics": "realtime.messages.stream",
    "People": "realtime.messages.stream",
    "Transcript": "realtime.messages.stream",
}
"""Imported when first asked for: who runs a part of the live path does not wait for what takes one in."""

__all__ = ["Compact", "Estimate", "Event", "Metrics", "People", "Transcript", "recognise", "recognising", "subscribe"]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
