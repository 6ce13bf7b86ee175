from __future__ import annotations

import numpy as np
import pytest

from dhmd.features.tracks import HANDOVER_S, Box, Shape, Tracks, largest


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


def looks(*numbers: float) -> list[Shape]:
    """Proportions, told apart by a number each."""
    return [np.full(4, number) * (-1.0, 1.0, -1.0, 1.0) for number in numbers]


def test_numbers_count_up_and_are_never_given_again() -> None:
    tracks, one, other, third = Tracks(2), square(100, 100, 80), square(300, 100, 60), square(500, 100, 50)
    assert tracks.among([other, one, third], 0.0) == {1: 1, 2: 0}
    assert tracks.among([third, one], 0.5) == {1: 1}
    assert tracks.among([third, one], 1.1) == {1: 1, 3: 0}
    assert tracks.among([one], 0.0) == {4: 0}  # the film begins again


def test_two_who_pass_keep_their_motion() -> None:
    tracks = Tracks(2)
    for i in range(25):
        left, right = square(100 + 10 * i, 100, 80), square(340 - 10 * i, 100, 80)
        # While they lie on each other one face alone is found, now here and now there.
        boxes = [left, right] if abs(100 + 20 * i - 340) > 60 else [left if i % 2 else right]
        found = tracks.among(boxes, i / 15)
    assert found == {1: 0, 2: 1}


def test_where_places_say_nothing_looks_tell_who_is_who() -> None:
    tracks, here, there = Tracks(2), square(100, 100, 80), square(130, 100, 80)
    for i in range(3):
        tracks.among([square(100, 100, 80), square(400, 100, 70)], i / 15, shapes=looks(0.0, 0.06))
    for i in range(3, 12):
        tracks.among([square(100, 100, 80), square(400 - 30 * (i - 2), 100, 70)], i / 15, shapes=looks(0.0, 0.06))
    assert tracks.among([there, here], 12 / 15, shapes=looks(0.0, 0.06)) == {1: 0, 2: 1}


def test_one_of_several_comes_back_elsewhere() -> None:
    tracks, stays = Tracks(2, sightings=3), square(100, 100, 80)
    for i in range(6):
        tracks.among([stays, square(300, 100, 60)], i / 15, shapes=looks(0.0, 0.06))
    for i in range(6, 12):
        tracks.among([stays], i / 15, shapes=looks(0.0))
    back = [tracks.among([stays, square(500, 100, 60)], i / 15, shapes=looks(0.0, 0.065)) for i in range(12, 16)]
    assert back == [{1: 0}, {1: 0}, {1: 0, 2: 1}, {1: 0, 2: 1}]


def test_the_subject_is_the_largest_until_gone_and_then_the_largest_that_is_there() -> None:
    tracks, one, other, third = Tracks(3), square(100, 100, 80), square(300, 100, 60), square(500, 100, 70)
    tracks.among([one, other, third], 0.0)
    assert tracks.subject == 1
    tracks.among([other, third], 0.9)
    assert tracks.subject == 1
    tracks.among([other, third], 1.1)
    assert tracks.subject == 2  # numbered by size


def test_who_is_pointed_at_takes_the_place_of_the_subject_where_there_is_no_room() -> None:
    tracks, one, other, third = Tracks(2), square(100, 100, 80), square(300, 100, 60), square(500, 100, 40)
    tracks.among([one, other, third], 0.0)
    assert tracks.among([one, other, third], 0.1, pointed_at=1) == {1: 0, 2: 1}
    assert tracks.subject == 2
    assert tracks.among([one, other, third], 0.2, pointed_at=2) == {1: 0, 3: 2}
    assert tracks.subject == 3


def test_who_is_still_there_after_nobody_looked_for_a_while_is_the_same() -> None:
    tracks, one, other = Tracks(2), square(100, 100, 80), square(300, 100, 60)
    assert tracks.among([one, other], 0.0) == {1: 0, 2: 1}
    assert tracks.among([other, one], 1.5) == {1: 1, 2: 0}
    assert tracks.among([other], 2.9) == {2: 0}
    assert tracks.ids == (2,)
    assert tracks.among([other], 9.0) == {3: 0}
