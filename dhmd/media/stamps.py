"""Stamps of a file's packets as one line of time, whatever their writer did to them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import av

LONGEST_GAP_S: Final = 10.0
"""Stamps this far ahead of all that was read so far are a splice; nothing waits that long for its next picture, unless
its rate says so."""
BACK_S: Final = 0.5
"""Stamps of one stream that fall back by this much are a splice."""
GAP_PERIODS: Final = 3
"""Gaps of so many pictures are no splice, however few come a second."""
BACK_PERIODS: Final = 16
"""Pictures that are coded out of order lie less than that many apart: H.264 and HEVC keep at most 16 for it."""


@dataclass(frozen=True, slots=True)
class Splice:
    """A jump that was closed. at_s: on the timeline that results. jump_s: from where the stamps go on, to where."""

    at_s: float
    jump_s: float


class Stamps:
    """Moves the stamps of packets, given in the order of the file, so that what lies together there lies together in
    time. All passes over the same file move them alike.

    A stream goes on from its own last stamp, or from what was read last of any. One that does neither has jumped; all
    streams that make the same jump are moved by as much.

    periods_s: time from one packet of a stream to the next by its index, where it is known.
    splices: the jumps that were closed.
    """

    def __init__(self, periods_s: Mapping[int, float]) -> None:
        self.splices: list[Splice] = []
        self._periods_s = periods_s
        self._shifts_s: deque[float] = deque([0.0], maxlen=4)
        """The newest first."""
        self._shift_of: dict[int, float] = {}
        self._stamp_of: dict[int, float] = {}
        """Newest of each stream, as it stands in the file."""
        self._start_s = self._newest_s = math.nan

    def move(self, packet: av.Packet[av.stream.Stream]) -> None:
        """Rewrite the stamps of a packet where they are to be moved. One without is left as it is."""
        # That of decoding lags behind where FFmpeg has guessed it.
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or packet.time_base is None:
            return
        stamp_s = float(stamp * packet.time_base)
        shift_s = self._shift(packet.stream_index, stamp_s)
        self._shift_of[packet.stream_index] = shift_s
        self._stamp_of[packet.stream_index] = stamp_s
        self._start_s = min(stamp_s + shift_s, self._start_s)  # in this order, as min and max let nan go
        self._newest_s = max(stamp_s + shift_s, self._newest_s)
        if shift_s:
            ticks = round(shift_s / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _shift(self, stream: int, stamp_s: float) -> float:
        if math.isnan(self._newest_s):
            return 0.0
        period_s = self._periods_s.get(stream, 0.0)
        bound_s, back_s = max(LONGEST_GAP_S, GAP_PERIODS * period_s), max(BACK_S, BACK_PERIODS * period_s)
        shift_s, before_s = self._shift_of.get(stream, 0.0), self._stamp_of.get(stream)
        if before_s is None:
            earliest_s, latest_s = self._start_s - bound_s, self._newest_s + bound_s
        else:
            earliest_s, latest_s = before_s + shift_s - back_s, max(before_s + shift_s, self._newest_s) + bound_s
        for known_s in (shift_s, *self._shifts_s):
            if earliest_s <= stamp_s + known_s <= latest_s:
                return known_s
        # A stream that only begins now, far from the others, begins with them.
        at_s = self._start_s if before_s is None else self._newest_s
        self.splices.append(Splice(at_s, stamp_s + shift_s - at_s))
        self._shifts_s.appendleft(at_s - stamp_s)
        return at_s - stamp_s
