"""Another machine's clock, known by asking: the quickest answer counts."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.clock import PeerClock


def test_the_offset_is_right_to_within_half_the_shortest_round_trip() -> None:
    chance = np.random.default_rng(5)
    clock, offset_s = PeerClock(), -1234.5
    assert not clock.known
    for asked_s in np.arange(0.0, 40.0, 2.0):
        there_s, back_s = chance.exponential(0.03, 2) + 0.001
        theirs_s = asked_s + there_s - offset_s
        clock.exchange(asked_s, theirs_s, asked_s + there_s + back_s)
    assert clock.known
    assert abs(clock.offset_s - offset_s) <= clock.rtt_s / 2
    assert clock.ours(100.0) == pytest.approx(100.0 + offset_s, abs=clock.rtt_s / 2)


def test_an_old_answer_is_forgotten_so_that_drift_is_followed() -> None:
    clock = PeerClock(kept=4)
    clock.exchange(0.0, 0.0, 0.001)
    for i in range(1, 5):
        clock.exchange(float(i), i - 0.5, i + 0.01)
    assert clock.offset_s == pytest.approx(0.505)
