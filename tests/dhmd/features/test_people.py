"""People keep their numbers through a film: real faces, found by the real landmarker."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.checkpoint import encoder_path, load
from dhmd.features.expression import Convolve, ExpressionNet, Seen
from dhmd.features.face import FaceExtractor, FaceObservation
from dhmd.features.landmarks import MOST_PEOPLE
from dhmd.modality import Modality
from realtime.capture.media import MediaFile
from tests import composites

HALFWAY = 0.5


@pytest.fixture(scope="module")
def network() -> ExpressionNet:
    return ExpressionNet.load(encoder_path(load("base").folder, Modality.VISION))


def observed(film: Path, network: ExpressionNet, people: int = 2) -> list[FaceObservation]:
    with FaceExtractor(network, people=people) as faces:
        frames = [frame for frame in MediaFile(film).frames() if faces.due(frame.captured_s)]
        return [faces.push(frame.image, frame.captured_s) for frame in frames]


def sides(observation: FaceObservation) -> dict[int, str]:
    """Where each person is."""
    middle = {one.person: (one.box[0] + one.box[2]) / 2 for one in observation.people}
    return {person: "left" if x < HALFWAY else "right" for person, x in middle.items()}


def at(observations: list[FaceObservation], t_s: float) -> FaceObservation:
    return min(observations, key=lambda one: abs(one.captured_s - t_s))


def test_those_who_pass_each_other_keep_their_numbers(shared: Path, tmp_path: Path, network: ExpressionNet) -> None:
    seen = observed(composites.crossing(tmp_path / "film.mp4", shared), network)
    before, after = sides(at(seen, 0.5)), sides(seen[-1])
    assert set(before) == {1, 2}
    assert after == {1: before[2], 2: before[1]}
    assert {one.tracked for one in seen[5:]} == {(1, 2)}


def test_one_hidden_for_a_moment_is_the_same_afterwards(shared: Path, tmp_path: Path, network: ExpressionNet) -> None:
    seen = observed(composites.hidden(tmp_path / "film.mp4", shared), network)
    before, behind, after = (sides(at(seen, t_s)) for t_s in (0.8, 1.4, 2.2))
    assert before == after
    assert set(before.values()) == {"left", "right"}
    assert set(behind.values()) == {"left"}
    assert all(set(one.tracked) == {1, 2} for one in seen[5:])


def test_who_comes_after_another_has_left_is_somebody_new(shared: Path, tmp_path: Path, network: ExpressionNet) -> None:
    seen = observed(composites.leaving(tmp_path / "film.mp4", shared), network)
    (stays,) = (person for person, side in sides(at(seen, 0.5)).items() if side == "left")
    assert sides(at(seen, 1.8)) == {stays: "left"}
    assert sides(seen[-1]) == {stays: "left", 3: "right"}
    assert seen[-1].tracked == (stays, 3)


def test_a_face_on_a_television_is_somebody_who_stays_there(
    shared: Path, tmp_path: Path, network: ExpressionNet
) -> None:
    seen = observed(composites.television(tmp_path / "film.mp4", shared), network)
    assert {one.tracked for one in seen[5:]} == {(1, 2)}
    assert len({str(sorted(sides(one).items())) for one in seen[5:]}) == 1


def test_crops_that_pass_together_say_what_each_says_alone(
    shared: Path, network: ExpressionNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of the same face twice, mirrored once, and of one too small to be read: one pass for all of it."""
    (clip,) = composites.grid(shared, composites.FIRST)
    face = next(iter(MediaFile(clip).frames())).image
    small = np.zeros_like(face)
    small[60:96, 60:105] = face[::8, ::8]
    picture: NDArray[np.uint8] = np.concatenate([face, face[:, ::-1], small], axis=1)
    passes: list[int] = []
    see = ExpressionNet.see

    def counted(self: ExpressionNet, crops: torch.Tensor, *convolve: Convolve | None) -> Seen:
        passes.append(len(crops))
        return see(self, crops, *convolve)

    monkeypatch.setattr(ExpressionNet, "see", counted)
    with FaceExtractor(network, people=3) as several:
        seen = [several.push(picture, i / 15) for i in range(4)][-1]
    with FaceExtractor(network) as one:
        alone = [one.push(picture, i / 15) for i in range(4)][-1]
    assert passes[1] == 2
    assert len(seen.people) == len({person.person for person in seen.people}) == 2
    assert (alone.people, alone.tracked) == ((), ())
    assert alone.box == pytest.approx(seen.box)
    assert np.allclose(alone.rows.values, seen.rows.values, atol=1e-4)


Picture = NDArray[np.uint8]


def heads(shared: Path, name: str, x: int, pictures: int) -> list[Picture]:
    """A talker's head, 180x240, in so many pictures."""
    (clip,) = composites.grid(shared, name)
    frames = itertools.islice(MediaFile(clip).frames(), 0, 2 * pictures, 2)
    return [frame.image[48:288, x : x + 180] for frame in frames]


def wall(faces: Sequence[Picture], columns: int) -> Picture:
    rows = [np.concatenate(faces[i : i + columns], axis=1) for i in range(0, len(faces), columns)]
    return np.ascontiguousarray(np.concatenate(rows))


def followed(pictures: Sequence[Picture], network: ExpressionNet, people: int) -> list[FaceObservation]:
    with FaceExtractor(network, people=people) as faces:
        return [faces.push(picture, number / 15) for number, picture in enumerate(pictures)]


def places(observation: FaceObservation) -> dict[int, tuple[int, int]]:
    """Where each person is, to a tenth of the picture."""
    return {
        one.person: (round(5 * (one.box[0] + one.box[2])), round(5 * (one.box[1] + one.box[3])))
        for one in observation.people
    }


def test_of_twenty_faces_as_many_are_followed_as_can_be_and_keep_their_numbers(
    shared: Path, network: ExpressionNet
) -> None:
    left, right = heads(shared, composites.FIRST, 80, 5), heads(shared, composites.SECOND, 100, 5)
    seen = followed([wall([one, other] * 10, 5) for one, other in zip(left, right, strict=True)], network, MOST_PEOPLE)
    assert [sorted(places(one)) for one in seen[-2:]] == [list(range(1, MOST_PEOPLE + 1))] * 2
    assert len(set(places(seen[-1]).values())) == MOST_PEOPLE
    assert places(seen[-1]) == places(seen[-2])


def test_the_same_face_twice_and_in_a_mirror_is_as_many_people_who_keep_their_places(
    shared: Path, network: ExpressionNet
) -> None:
    pictures = [wall([one, one, one[:, ::-1]], 3) for one in heads(shared, composites.FIRST, 80, 8)]
    seen = followed(pictures, network, 4)
    assert all(sorted(places(one)) == [1, 2, 3] for one in seen[3:])
    assert len({str(places(one)) for one in seen[3:]}) == 1


@pytest.mark.parametrize("side_px", [12, 20])
def test_a_face_of_a_few_pixels_is_nobody_who_is_read(shared: Path, network: ExpressionNet, side_px: int) -> None:
    near, far = heads(shared, composites.FIRST, 80, 8), heads(shared, composites.SECOND, 100, 8)
    pictures = []
    for one, other in zip(near, far, strict=True):
        beside = np.full_like(one, 90)
        small = cv2.resize(other, None, fx=side_px / 100, fy=side_px / 100, interpolation=cv2.INTER_AREA)
        beside[60 : 60 + small.shape[0], 60 : 60 + small.shape[1]] = small
        pictures.append(wall([one, beside], 2))
    seen = followed(pictures, network, 4)
    read = {one.person for observation in seen for one in observation.people if len(one.rows)}
    assert read == {1}
    assert all(places(one)[1] == places(seen[-1])[1] for one in seen[3:])
