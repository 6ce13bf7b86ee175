from __future__ import annotations

from dataclasses import astuple, replace

from hypothesis import given
from hypothesis import strategies as st

from realtime.perception.rates import FULL, Rates, Wish
from realtime.pipeline.costs import SHARE, SLOWER, Costs, rates_kept, told

COSTS = st.builds(Costs, *[st.floats(0.0, 0.5)] * 4)
PROCESSORS = st.floats(0.05, 64.0)
WISHES = st.builds(Wish, st.none() | st.floats(3.0, 15.0), st.none() | st.floats(0.02, 5.0))
DEARER = Costs(0.027, 0.009, 0.06, 0.15)
"""Of two cores of an AMD EPYC."""


@given(COSTS, PROCESSORS, WISHES)
def test_what_fits_is_left_alone(costs: Costs, processors: float, wish: Wish) -> None:
    chosen = rates_kept(costs, processors, wish)
    assert (chosen == wish.of(FULL)) >= (costs.asked(wish.of(FULL)) <= SHARE * processors)
    assert costs.asked(chosen) <= SHARE * processors or chosen == wish.of(SLOWER[-1])


@given(COSTS, COSTS, PROCESSORS, WISHES)
def test_no_rate_is_higher_where_more_is_asked(costs: Costs, more: Costs, processors: float, wish: Wish) -> None:
    dearer = Costs(*(one + other for one, other in zip(astuple(costs), astuple(more), strict=True)))
    low, high = rates_kept(dearer, processors, wish), rates_kept(costs, processors, wish)
    assert low.pictures_hz <= high.pictures_hz
    assert low.hop_s >= high.hop_s
    assert low.words_s >= high.words_s


@given(COSTS, PROCESSORS, WISHES)
def test_what_was_asked_for_is_never_changed(costs: Costs, processors: float, wish: Wish) -> None:
    chosen = rates_kept(costs, processors, wish)
    assert wish.of(chosen) == chosen


def test_each_choice_asks_for_less_than_the_one_before() -> None:
    asked = [DEARER.asked(rates) for rates in SLOWER]
    assert asked == sorted(asked, reverse=True)
    assert SLOWER[0] == FULL
    assert rates_kept(DEARER, 1.0, Wish()) == FULL
    assert rates_kept(DEARER, 0.85, Wish()) == replace(FULL, words_s=1.28)
    assert rates_kept(DEARER, 0.1, Wish()) == SLOWER[-1]


def test_what_was_chosen_is_said_in_one_line() -> None:
    line = told(Rates(5.0, 0.2, 2.56), DEARER, 0.6, Wish())
    assert line == (
        "this machine keeps 5 estimates, 5 pictures a second, words every 2.6 s: 10 estimates, 15 pictures a second, "
        "words every 0.6 s would take 0.74 cores, more than 85% of the 0.60 that it lends "
        "(--hop and --pictures set them)"
    )
    silent = told(Rates(5.0, 0.2, 2.56), replace(DEARER, hypothesis_s=0.0), 0.6, Wish(hop_s=0.2))
    assert silent.startswith("this machine keeps 5 estimates, 5 pictures a second: 5 estimates, 15 pictures a second ")
