"""The modality with the largest influence is one without which the answer is another, wherever there is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmd.influence import influence

answers = st.lists(st.integers(1, 1000), min_size=7, max_size=7).map(lambda counts: np.array(counts) / sum(counts))


@given(answers, st.lists(answers, min_size=2, max_size=3))
def test_who_changes_the_answer_leads(whole: np.ndarray, without: list[np.ndarray]) -> None:
    one = influence(whole, without)
    assert one.shape == (len(without),)
    assert ((one >= 0) & (one <= 1)).all()
    best = np.sort(whole)[-2:]
    if best[0] < best[1]:
        changed = np.array(
            [other.argmax() != whole.argmax() and other.max() > other[whole.argmax()] for other in without]
        )
        assert changed[one.argmax()] or not changed.any()


def test_a_lead_that_is_lost_counts_half_and_one_that_grows_not_at_all() -> None:
    whole = [0.7, 0.2, 0.1]
    without = [[0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]
    assert influence(whole, without) == pytest.approx([0.2, 0.6, 0.0, 0.75])
    assert influence([whole, whole], [without[0], without[1]]) == pytest.approx([0.2, 0.6])
