"""Late is not absent: how far perception has come, and what stands for now."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dhmd.checkpoint import load
from dhmd.contract import Rows
from dhmd.modality import Modality
from realtime.perception.attention import PATIENCE, Attention, Progress
from realtime.perception.window import SlidingWindow, WindowCut

FACE, VOICE = Modality.VISION, Modality.AUDIO


class Captured:
    """Samples up to a moment, the same in each modality."""

    until_s = 0.0

    def newest_s(self, modality: Modality) -> float:
        return self.until_s


class Moment:
    """A stream at a moment: pictures and sound are captured until now, and looked at until somewhat earlier."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.captured = Captured()
        self.progress = Progress()
        self.progress.follow(self.captured, lambda: self.now_s)
        self.window = SlidingWindow(load("base").features, torch.device("cpu"))

    def at(self, now_s: float) -> WindowCut:
        self.now_s = self.captured.until_s = now_s
        return self.window.cut(now_s, self.progress.at(now_s))

    def looked(self, until_s: float, *, found: bool) -> None:
        if found:
            width = load("base").features[FACE].width
            self.window.append(FACE, Rows(np.array([until_s]), np.ones((1, width), np.float32)))
        self.progress.looked(FACE, until_s)


def test_a_face_that_was_not_looked_for_in_time_stays_a_while_and_is_late_after_that() -> None:
    moment = Moment()
    moment.looked(1.0, found=True)
    assert FACE in moment.at(1.1).present
    for now_s in (1.6, 2.0, 2.9):
        cut = moment.at(now_s)
        assert FACE in cut.present
        assert FACE not in cut.late
    for now_s in (3.1, 60.0):
        cut = moment.at(now_s)
        assert FACE not in cut.present
        assert FACE in cut.late


def test_a_face_that_somebody_looked_for_in_vain_is_absent() -> None:
    moment = Moment()
    moment.looked(1.0, found=True)
    moment.looked(1.6, found=False)
    cut = moment.at(1.7)
    assert FACE not in cut.present | cut.late


def test_pictures_that_come_once_a_second_keep_the_face_present() -> None:
    moment = Moment()
    moment.looked(1.0, found=True)
    moment.captured.until_s = 1.0
    assert all(FACE in moment.window.cut(t, moment.progress.at(t)).present for t in (1.4, 1.7, 1.99))


def test_a_camera_that_delivers_nothing_is_not_late() -> None:
    moment = Moment()
    moment.looked(1.0, found=True)
    moment.captured.until_s = 1.0
    cut = moment.window.cut(10.0, moment.progress.at(10.0))
    assert FACE not in cut.present | cut.late


def test_the_same_attention_cuts_the_same_window_again() -> None:
    moment = Moment()
    moment.looked(1.0, found=True)
    cut = moment.at(2.2)
    again = moment.window.cut(2.2, Attention(cut.attention.as_of_s, cut.attention.late))
    assert again.present == cut.present == {FACE}
    assert torch.equal(again.inputs[FACE], cut.inputs[FACE])
    assert not moment.window.cut(2.2).present


@pytest.mark.parametrize("lag_s", [0.0, 0.3, 1.4])
def test_the_lag_is_the_age_of_what_was_looked_at_while_newer_waits(lag_s: float) -> None:
    moment = Moment()
    moment.progress.looked(VOICE, 5.0 - lag_s)
    moment.at(5.0)
    assert moment.progress.lag_s(VOICE) == pytest.approx(lag_s)


def test_nothing_is_late_where_all_is_looked_at_as_it_comes() -> None:
    progress = Progress()
    progress.looked(FACE, 1.0)
    assert progress.at(100.0) == Attention()
    assert progress.lag_s(FACE) == 0.0


def test_who_is_patient_longest_is_called_behind_before_it_is_late() -> None:
    assert all(one.usual_s <= one.behind_s < one.longest_s for one in PATIENCE.values())
