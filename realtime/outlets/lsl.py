"""Lab streaming layer (labstreaminglayer.org): a stream of numbers and one of markers, for LabRecorder and the like."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any, Final, Self

from dhmd.errors import LibraryMissing
from realtime.outlets.numbers import UNITS, marker_of, numbers_of
from realtime.pipeline.outputs import Emitted
from realtime.recognition.events import Events

CONFIGURED: Final = ("lsl_api.cfg", "~/lsl_api/lsl_api.cfg", "/etc/lsl_api/lsl_api.cfg")
"""Where liblsl looks for the configuration of whoever uses it."""
QUIET: Final = "[log]\nlevel = -1\n"
"""Warnings alone."""
IRREGULAR: Final = 0.0
"""Rate in hertz. Readers lay out regular samples evenly, and a tick may be missed."""


class LslOutlet:
    """A sink that sends numbers and markers to whoever on the local network listens to the lab streaming layer.

    Samples carry the time of the window's end on LSL's clock; NaN is what there was none of. liblsl sends in threads of
    its own. Raises LibraryMissing.
    """

    def __init__(self, stream: str) -> None:
        pylsl = _pylsl()
        # Both clocks are steady; a wall clock that is set later moves neither them nor an estimate's time.
        self._offset_s = pylsl.local_clock() - time.time()
        self._events = Events()
        numbers = pylsl.StreamInfo(
            f"{stream} emotions", "Emotion", len(UNITS), IRREGULAR, "float32", f"dhmd-{stream}-emotions"
        )
        numbers.desc().append_child_value("manufacturer", "dhmd")
        channels = numbers.desc().append_child("channels")
        for name, unit in UNITS.items():
            channels.append_child("channel").append_child_value("label", name).append_child_value("unit", unit)
        markers = pylsl.StreamInfo(f"{stream} events", "Markers", 1, IRREGULAR, "string", f"dhmd-{stream}-events")
        self._numbers: Any = pylsl.StreamOutlet(numbers)
        self._markers: Any = pylsl.StreamOutlet(markers)

    def on_estimate(self, emission: Emitted) -> None:
        estimate = emission.estimate
        values = [math.nan if value is None else value for value in numbers_of(estimate).values()]
        self._numbers.push_sample(values, estimate.t + self._offset_s)
        for event in self._events.take(estimate):
            self._markers.push_sample([marker_of(event)], event.t + self._offset_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The last reference takes a stream off the network.
        self._numbers = self._markers = None


def _pylsl() -> Any:
    """Return the library. Raises LibraryMissing."""
    try:
        import pylsl
    except ModuleNotFoundError:
        raise LibraryMissing("--lsl needs pylsl; pip install 'dhmd[lsl]'") from None
    except (RuntimeError, OSError):
        raise LibraryMissing(
            "--lsl: pylsl has no liblsl for this system in its package; install it (conda install -c conda-forge "
            "liblsl, or a release of github.com/sccn/liblsl), and name the file in PYLSL_LIB if it is not found"
        ) from None
    if "LSLAPICFG" not in os.environ and not any(Path(path).expanduser().is_file() for path in CONFIGURED):
        pylsl.set_config_content(QUIET)
    return pylsl
