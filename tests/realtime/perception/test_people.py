"""Words and voice of people, by whose turn it was."""

from __future__ import annotations

import pytest

from dhmd.contract import Word
from realtime.perception.people import _said, _speaks, _turn_of
from realtime.perception.speaking import Turn

TURNS = (Turn(0.0, 1.0, 1), Turn(1.0, 2.0, 2, overlapped=True), Turn(2.0, 3.0, 2), Turn(4.0, 5.0, None))


@pytest.mark.parametrize(
    ("start_s", "end_s", "person", "overlapped"),
    [(0.2, 0.6, 1, False), (0.8, 1.6, 2, True), (1.7, 2.9, 2, False), (4.2, 4.6, None, False), (8.0, 9.0, None, False)],
)
def test_a_word_is_of_whose_turn_it_was_for_most_of_it(
    start_s: float, end_s: float, person: int | None, overlapped: bool
) -> None:
    """Where several spoke at once, it is the loudest one's, and marked."""
    said = _said(Word("so", start_s, end_s), _turn_of(TURNS, start_s, end_s))
    assert (said.person, said.overlapped) == (person, overlapped)


def test_a_voice_of_several_at_once_is_nobodys() -> None:
    whose = [next((n for n in (1, 2) if _speaks(_turn_of(TURNS, t, t), n)), None) for t in (0.5, 1.5, 2.5, 4.5)]
    assert whose == [1, None, 2, None]
