"""One clock for a session: every capture time, row and estimate is on it."""

from __future__ import annotations

import time


class SessionClock:
    """Seconds since the session's start, on a monotonic clock.

    The wall clock is read once, at the start (`epoch_unix`); when it is set or slewed later, neither session time nor
    the unix times derived from it move. Time that the machine spends suspended does not pass.
    """

    def __init__(self) -> None:
        self.epoch_unix = time.time()
        self._start = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._start

    def unix(self, t_s: float) -> float:
        """Unix seconds of session time `t_s`."""
        return self.epoch_unix + t_s

    def from_foreign(self, t_s: float, now_s: float) -> float:
        """Session time of an instant given on another clock (PortAudio's), of which `now_s` was just read."""
        return self.now() - (now_s - t_s)


class MediaClock(SessionClock):
    """A clock that its driver moves: a file handled at --pace max, where time is the file's own and starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch_unix = 0.0
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def advance(self, t_s: float) -> None:
        """Move to media time `t_s`; a time already passed changes nothing."""
        self._now_s = max(self._now_s, t_s)


class SampleClock:
    """Places a device's evenly spaced samples on the session clock.

    Each block of samples comes with a measured capture time, which jitters by milliseconds. Counting samples gives
    even spacing but drifts, as the device's crystal is not ours, and knows nothing of lost samples. So samples are
    counted, and the count is drawn slowly towards the measurements; only when a measurement is `gap_s` ahead
    (samples were lost, the device slept) does time jump there. Times never run backwards.
    """

    def __init__(self, rate_hz: float, *, gap_s: float = 0.1, gain: float = 0.02) -> None:
        self.rate_hz = rate_hz
        self.gap_s = gap_s
        self.gain = gain
        self._next_s: float | None = None

    def place(self, samples: int, measured_s: float) -> float:
        """Session time of the first of `samples` new samples, whose capture time was measured as `measured_s`."""
        duration_s = samples / self.rate_hz
        if self._next_s is None or measured_s - self._next_s > self.gap_s:
            first_s = measured_s
        else:
            # At most a twentieth of the block: a correction is never heard as a change of speed or order.
            limit_s = duration_s / 20
            first_s = self._next_s + min(limit_s, max(-limit_s, self.gain * (measured_s - self._next_s)))
        self._next_s = first_s + duration_s
        return first_s
