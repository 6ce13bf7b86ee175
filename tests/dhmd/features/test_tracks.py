from __future__ import annotations

import pytest

from dhmd.features.tracks import HANDOVER_S, Box, Tracks, largest


class Subject:
    """The one person who is read: tracks of which there is one."""

    def __init__(self, sightings: int = 1) -> None:
        self._tracks = Tracks(1, sightings)

    def among(self, boxes: list[Box], captured_s: float, pointed_at: int | None = None) -> int | None:
        return next(iter(self._tracks.among(boxes, captured_s, pointed_at).values()), None)


def square(x: float, y: float, side: float) -> Box:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def test_largest() -> None:
    assert largest([]) is None
    assert largest([square(10, 10, 4), square(90, 10, 6), square(50, 50, 5)]) == 1


def test_stays_with_the_first_while_another_grows() -> None:
    subject = Subject()
    chosen = [subject.among([square(100, 100, 80 - 2 * i), square(300, 100, 60 + 4 * i)], i / 15) for i in range(25)]
    assert chosen == [0] * 25


def test_follows_whatever_the_order_of_the_boxes() -> None:
    subject = Subject()
    assert subject.among([square(100, 100, 80), square(300, 100, 60)], 0.0) == 0
    assert subject.among([square(302, 100, 60), square(104, 100, 80)], 0.1) == 1


def test_a_quick_move_is_followed_a_leap_is_not() -> None:
    near, far = Subject(), Subject()
    for subject in (near, far):
        subject.among([square(100, 100, 80)], 0.0)
    assert near.among([square(100 + 46, 100, 80)], 0.1) == 0
    assert far.among([square(100 + 120, 100, 80)], 0.1) is None


def test_a_much_smaller_face_beside_it_is_somebody_else() -> None:
    subject = Subject()
    subject.among([square(100, 100, 80)], 0.0)
    assert subject.among([square(100, 100, 20)], 0.1) is None


def test_who_is_pointed_at_is_the_subject_from_then_on() -> None:
    subject, one, other = Subject(sightings=3), square(100, 100, 80), square(300, 100, 60)
    assert subject.among([one, other], 0.0, pointed_at=1) == 1
    assert subject.among([other, one], 0.1) == 0


@pytest.mark.parametrize("away_s", [HANDOVER_S - 0.1, HANDOVER_S + 0.1])
def test_nobody_takes_over_before_the_hand_over(away_s: float) -> None:
    subject, other = Subject(), square(300, 100, 200)
    subject.among([square(100, 100, 220), other], 0.0)
    assert subject.among([other], away_s) == (None if away_s < HANDOVER_S else 0)


def test_absence_counts_from_the_last_sight() -> None:
    subject, other = Subject(), square(300, 100, 200)
    subject.among([square(100, 100, 220), other], 0.0)
    assert subject.among([other], 0.9) is None
    assert subject.among([other, square(100, 100, 220)], 0.95) == 1
    assert subject.among([other], 1.9) is None
    assert subject.among([other], 1.96) == 0


def test_a_newcomer_counts_when_seen_again_and_again_in_one_place() -> None:
    subject, face = Subject(sightings=3), square(100, 100, 80)
    assert [subject.among([face], t / 15) for t in range(4)] == [None, None, 0, 0]


def test_glimpses_here_and_there_are_nobody() -> None:
    subject = Subject(sightings=3)
    glimpses = [[square(100, 100, 80)], [square(400, 300, 80)], [], [square(400, 300, 80)], [square(400, 300, 80)], []]
    assert [subject.among(boxes, t / 15) for t, boxes in enumerate(glimpses)] == [None] * 6


def test_time_running_backwards_starts_anew() -> None:
    subject = Subject()
    subject.among([square(100, 100, 80)], 60.0)
    assert subject.among([square(300, 100, 90)], 0.0) == 0
