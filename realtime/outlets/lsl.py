"""Lab streaming layer (labstreaminglayer.org): a stream of numbers and one of markers, for LabRecorder and the like."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from dhmd.errors import LibraryMissing, extra
from realtime.messages.estimate import Estimate, ExtraNumber, own_numbers
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

    What heads of the checkpoint's own say has a stream of its own. Samples carry the time of the window's end on LSL's
    clock; NaN is what there was none of. liblsl sends in threads of its own. Raises LibraryMissing.
    """

    def __init__(self, stream: str) -> None:
        pylsl = _pylsl()
        # Both clocks are steady; a wall clock that is set later moves neither them nor an estimate's time.
        self._offset_s = pylsl.local_clock() - time.time()
        self._events = Events()
        markers = pylsl.StreamInfo(f"{stream} events", "Markers", 1, IRREGULAR, "string", f"dhmd-{stream}-events")
        self._pylsl, self._stream = pylsl, stream
        self._numbers: Any = self._outlet("emotions", "Emotion", UNITS)
        self._markers: Any = pylsl.StreamOutlet(markers)
        self._own: Any = None
        self._own_names: list[str] = []

    def _outlet(self, name: str, kind: str, units: Mapping[str, str]) -> Any:
        """A stream of numbers on the network. units: of each channel by its label."""
        info = self._pylsl.StreamInfo(
            f"{self._stream} {name}", kind, len(units), IRREGULAR, "float32", f"dhmd-{self._stream}-{name}"
        )
        info.desc().append_child_value("manufacturer", "dhmd")
        channels = info.desc().append_child("channels")
        for label, unit in units.items():
            channels.append_child("channel").append_child_value("label", label).append_child_value("unit", unit)
        return self._pylsl.StreamOutlet(info)

    def _send_own(self, estimate: Estimate) -> None:
        """Send what heads of the checkpoint's own say. Whoever recognises knows them: their stream begins with the
        first estimate that has some, and anew with other heads."""
        numbers = own_numbers(estimate.extra)
        if numbers and [*numbers] != self._own_names:
            heads, self._own_names = estimate.extra, [*numbers]
            units = {name: one.unit for name, one in heads.items() if isinstance(one, ExtraNumber)}
            self._own = None  # off the network before its successor comes
            self._own = self._outlet("extra", "Extra", {name: units.get(name, "probability") for name in numbers})
        if self._own is not None:
            values = [numbers.get(name, math.nan) for name in self._own_names]
            self._own.push_sample(values, estimate.t + self._offset_s)

    def on_estimate(self, emission: Emitted) -> None:
        estimate = emission.estimate
        values = [math.nan if value is None else value for value in numbers_of(estimate).values()]
        self._numbers.push_sample(values, estimate.t + self._offset_s)
        self._send_own(estimate)
        for event in self._events.take(estimate):
            self._markers.push_sample([marker_of(event)], event.t + self._offset_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The last reference takes a stream off the network.
        self._numbers = self._markers = self._own = None


def _pylsl() -> Any:
    """Return the library. Raises LibraryMissing."""
    try:
        with extra("lsl", "--lsl"):
            import pylsl
    except (RuntimeError, OSError):
        raise LibraryMissing(
            "--lsl: pylsl has no liblsl for this system in its package; install it (conda install -c conda-forge "
            "liblsl, or a release of github.com/sccn/liblsl), and name the file in PYLSL_LIB if it is not found"
        ) from None
    if "LSLAPICFG" not in os.environ and not any(Path(path).expanduser().is_file() for path in CONFIGURED):
        pylsl.set_config_content(QUIET)
    return pylsl
