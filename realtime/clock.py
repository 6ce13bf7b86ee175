"""One clock for a session: every capture time, row and estimate is on it."""

from __future__ import annotations

import sys
import time
from collections import deque


def running_s() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps where the system has one."""
    if sys.platform != "win32":
        now_s = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    else:
        now_s = time.monotonic()
    return now_s


class StreamClock:
    """Seconds since the session's start, on a monotonic clock.

    The wall clock is read once, at the start (`epoch_unix`); when it is set or slewed later, neither stream time nor
    the unix times derived from it move. Time that the machine sleeps passes: unix times are right after it, too.
    """

    def __init__(self) -> None:
        self.epoch_unix = time.time()
        self._start = running_s()

    def now(self) -> float:
        return running_s() - self._start

    def unix(self, t_s: float) -> float:
        """Unix seconds of stream time `t_s`."""
        return self.epoch_unix + t_s

    def from_foreign(self, t_s: float, now_s: float) -> float:
        """Stream time of an instant given on another clock (PortAudio's), of which `now_s` was just read."""
        return self.now() - (now_s - t_s)


class MediaClock(StreamClock):
    """A clock that its driver moves: a file handled at --pace max, where time is the file's own."""

    def __init__(self, epoch_unix: float = 0.0) -> None:
        super().__init__()
        self.epoch_unix = epoch_unix
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def advance(self, t_s: float) -> None:
        """Move to media time `t_s`; a time already passed changes nothing."""
        self._now_s = max(self._now_s, t_s)


class PeerClock:
    """Another machine's clock, known by asking it for the time again and again.

    As in NTP's clock filter (RFC 5905, section 10): of the newest exchanges the one with the shortest round trip was
    held up least and counts. Its offset is right to within half of that round trip.
    """

    def __init__(self, kept: int = 8) -> None:
        self._exchanges: deque[tuple[float, float]] = deque(maxlen=kept)

    def exchange(self, asked_s: float, theirs_s: float, answered_s: float) -> None:
        """Take in an answer: `theirs_s` on the other clock, asked for and received at these times on ours."""
        self._exchanges.append((answered_s - asked_s, (asked_s + answered_s) / 2 - theirs_s))

    @property
    def known(self) -> bool:
        return bool(self._exchanges)

    @property
    def rtt_s(self) -> float:
        return min(self._exchanges)[0]

    @property
    def offset_s(self) -> float:
        """Our time less theirs."""
        return min(self._exchanges)[1]

    def ours(self, theirs_s: float) -> float:
        """Our time of an instant on the other clock."""
        return theirs_s + self.offset_s


class SampleClock:
    """Places a device's evenly spaced samples on the stream clock.

    Each block comes with a measured capture time, which is right or late: threads wait to run. Counting samples gives
    even spacing, but drifts, as the device's crystal is not ours, and knows nothing of lost samples. So samples are
    counted, and the count is drawn slowly towards the least late measurement of the last WINDOW_S. Only when even
    that is more than GAP_S ahead were samples lost, and time jumps there. Times never run backwards.
    """

    WINDOW_S, GAP_S, GAIN = 1.0, 0.1, 0.05

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self._counted = 0
        self._offset_s: float | None = None
        self._measured: deque[tuple[float, float]] = deque()

    def place(self, samples: int, measured_s: float) -> float:
        """Stream time of the first of `samples` new samples, whose capture time was measured as `measured_s`."""
        position_s = self._counted / self.rate_hz
        self._counted += samples
        self._measured.append((position_s, measured_s - position_s))
        settled = position_s - self._measured[0][0] >= self.WINDOW_S
        while position_s - self._measured[0][0] > self.WINDOW_S:
            self._measured.popleft()
        least_late_s = min(offset_s for _, offset_s in self._measured)
        if self._offset_s is None:
            self._offset_s = least_late_s
        error_s = least_late_s - self._offset_s
        if settled and error_s > self.GAP_S:
            self._offset_s = least_late_s
        else:
            # At most a twentieth of the block: a correction is never heard as a change of speed or order.
            limit_s = samples / self.rate_hz / 20
            self._offset_s += min(limit_s, max(-limit_s, self.GAIN * error_s))
        return position_s + self._offset_s
