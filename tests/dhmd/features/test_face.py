"""The extractor on a real face: the public-domain portrait that comes with scikit-image."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dhmd.assets.store import sha256_of
from dhmd.checkpoint import load
from dhmd.contract import ContractMismatch, Rows
from dhmd.errors import LibraryMissing
from dhmd.features.covered import CoveredMouth
from dhmd.features.expression import ExpressionNet, aligned_crop
from dhmd.features.face import SIGHTINGS, WIDTH, FaceExtractor, FaceObservation
from dhmd.features.finder import SMALLEST_TILE, tiles
from dhmd.features.landmarks import BLENDSHAPES, MAX_FACES, _without_startup_chatter, head_pose
from dhmd.labels import EMOTIONS
from dhmd.media.reader import MediaReader
from dhmd.modality import Modality

Image = NDArray[np.uint8]
LEFT, RIGHT = 0.25, 0.75


@pytest.fixture(scope="module")
def network() -> ExpressionNet:
    torch.manual_seed(0)
    return ExpressionNet().eval()


@pytest.fixture
def extractor(network: ExpressionNet) -> Iterator[FaceExtractor]:
    with FaceExtractor(network) as extractor:
        yield extractor


@pytest.fixture(scope="module")
def portrait() -> Image:
    """(512, 512, 3) BGR: a smiling woman."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


@pytest.fixture(scope="module")
def head(portrait: Image) -> Image:
    """(170, 170, 3): the head alone."""
    return portrait[35:205, 140:310]


def scene(*heads: tuple[Image, float, int]) -> Image:
    """(320, 640, 3) grey picture with heads: (picture, x of the centre as a fraction of the width, side in pixels)."""
    import cv2

    canvas = np.full((320, 640, 3), 110, np.uint8)
    for picture, x, side in heads:
        left, top = round(x * 640 - side / 2), 160 - side // 2
        canvas[top : top + side, left : left + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return canvas


def subject_x(observation: FaceObservation) -> float | None:
    """Centre of the subject, as a fraction of the width."""
    return None if observation.box is None else (observation.box[0] + observation.box[2]) / 2


def settled(extractor: FaceExtractor, image: Image, captured_s: float) -> FaceObservation:
    """What is observed once the picture was in sight long enough for a newcomer to count."""
    for i in range(SIGHTINGS - 1):
        assert extractor.push(image, captured_s + (i + 1 - SIGHTINGS) / 15).box is None
    return extractor.push(image, captured_s)


def test_contract(extractor: FaceExtractor, network: ExpressionNet) -> None:
    spec = extractor.spec
    assert (spec.rate_hz, spec.window_s, spec.steps, spec.absent_after_s) == (15.0, 5.0, 75, 0.5)
    assert spec.width == WIDTH == 52 + 3 + 64 + 7
    assert spec.weights == {
        "face_landmarker.task": sha256_of("face-landmarker", "face_landmarker.task"),
        "vision.safetensors": network.sha256(),
    }


def test_another_network_is_another_contract(extractor: FaceExtractor) -> None:
    torch.manual_seed(99)
    with FaceExtractor(ExpressionNet()) as other, pytest.raises(ContractMismatch, match=r"vision\.safetensors"):
        extractor.spec.require(other.spec)


def test_row_of_a_smiling_face(extractor: FaceExtractor, network: ExpressionNet, portrait: Image) -> None:
    seen = settled(extractor, portrait, 2.5)
    assert seen.faces == 1
    assert seen.rows.times_s.tolist() == [2.5]
    assert seen.rows.values.shape == (1, WIDTH)
    assert seen.rows.values.dtype == np.float32
    assert list(seen.blendshapes) == list(BLENDSHAPES)
    assert seen.blendshapes["mouthSmileLeft"] > 0.7
    assert seen.blendshapes["eyeBlinkLeft"] < 0.3
    assert seen.landmarks is not None
    assert seen.emotions is not None
    assert seen.emotions.sum() == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        embedding, logits = network.perceive(torch.from_numpy(aligned_crop(portrait, seen.landmarks))[None])
    np.testing.assert_allclose(seen.rows.values[0, 55:119], embedding[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(seen.rows.values[0, 119:], logits[0].numpy(), atol=1e-5)


def test_box_lies_on_the_face(extractor: FaceExtractor, portrait: Image) -> None:
    box = settled(extractor, portrait, 0.0).box
    assert box is not None
    np.testing.assert_allclose(np.array(box) * 512, [168, 55, 282, 195], atol=25)


@pytest.mark.parametrize("grey", [0, 128])
def test_no_face_no_row(extractor: FaceExtractor, grey: int) -> None:
    seen = extractor.push(np.full((480, 640, 3), grey, np.uint8), 0.0)
    assert (len(seen.rows), seen.faces, seen.box, seen.landmarks, seen.emotions) == (0, 0, None, None, None)
    assert seen.blendshapes == {}


def test_pose_follows_the_head(network: ExpressionNet, portrait: Image) -> None:
    import cv2

    def pose(image: Image) -> NDArray[np.float32]:
        with FaceExtractor(network, "image") as extractor:
            (row,) = extractor.push(image, 0.0).rows.values
        return row[52:55]

    roll = pose(portrait)[2]
    turn = cv2.getRotationMatrix2D((225, 125), 25, 1)  # counter-clockwise
    turned = pose(np.asarray(cv2.warpAffine(portrait, turn, (512, 512)), np.uint8))
    assert turned[2] - roll == pytest.approx(np.deg2rad(25), abs=0.08)
    mirrored = pose(np.ascontiguousarray(np.asarray(cv2.warpAffine(portrait, turn, (512, 512)), np.uint8)[:, ::-1]))
    np.testing.assert_allclose(mirrored, [-turned[0], turned[1], -turned[2]], atol=0.08)


@pytest.mark.parametrize("expected", [(0.5, 0.0, 0.0), (0.0, -0.4, 0.0), (0.0, 0.0, 0.3), (-0.6, 0.3, -0.5)])
def test_pose_of_a_known_rotation(expected: tuple[float, float, float]) -> None:
    """Tilted first, then lifted, then turned; in the matrix's axes lifting is a negative turn about x."""
    yaw, pitch, roll = expected
    matrix = np.eye(4, dtype=np.float32)
    turned = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    lifted = [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    tilted = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    matrix[:3, :3] = np.array(turned) @ np.array(lifted) @ np.array(tilted)
    np.testing.assert_allclose(head_pose(matrix), expected, atol=1e-6)


def test_several_faces_are_counted(extractor: FaceExtractor, head: Image) -> None:
    mirrored = head[:, ::-1]
    seen = settled(extractor, scene((head, 0.15, 180), (mirrored, 0.5, 220), (head, 0.85, 180)), 0.0)
    assert seen.faces == 3
    assert subject_x(seen) == pytest.approx(0.5, abs=0.06)
    assert len(seen.rows) == 1
    assert MAX_FACES >= 3


def test_the_subject_stays_when_another_face_becomes_the_larger(extractor: FaceExtractor, head: Image) -> None:
    mirrored = head[:, ::-1]
    settled(extractor, scene((head, LEFT, 280), (mirrored, RIGHT, 180)), -0.1)
    for i in range(16):
        image = scene((head, LEFT, 280 - 8 * i), (mirrored, RIGHT, 180 + 8 * i))
        seen = extractor.push(image, i / 15)
        assert seen.faces == 2
        assert subject_x(seen) == pytest.approx(LEFT, abs=0.05)


def test_nobody_stands_in_for_the_subject_until_it_is_gone_for_a_second(extractor: FaceExtractor, head: Image) -> None:
    both = scene((head, LEFT, 280), (head[:, ::-1], RIGHT, 200))
    other = scene((head[:, ::-1], RIGHT, 200))
    assert subject_x(settled(extractor, both, 0.0)) == pytest.approx(LEFT, abs=0.05)
    for i in range(1, 15):
        seen = extractor.push(other, i / 15)
        assert (seen.faces, len(seen.rows), seen.box) == (1, 0, None)
    assert subject_x(settled(extractor, other, 17 / 15)) == pytest.approx(RIGHT, abs=0.05)
    # The first one is back: it is the other's turn now.
    assert subject_x(extractor.push(both, 18 / 15)) == pytest.approx(RIGHT, abs=0.05)


def test_who_is_pointed_at_is_read_and_the_others_are_told(extractor: FaceExtractor, head: Image) -> None:
    both = scene((head, LEFT, 280), (head[:, ::-1], RIGHT, 200))
    first = settled(extractor, both, 0.0)
    extractor.choose(RIGHT, 0.5)
    seen = extractor.push(both, 1 / 15)
    assert subject_x(seen) == pytest.approx(RIGHT, abs=0.05)
    assert [(box[0] + box[2]) / 2 for box in seen.others] == pytest.approx([subject_x(first)], abs=0.05)
    extractor.choose(0.5, 0.02)  # there is nobody
    assert subject_x(extractor.push(both, 2 / 15)) == pytest.approx(RIGHT, abs=0.05)


def test_the_subject_comes_back_within_a_second(extractor: FaceExtractor, head: Image) -> None:
    mirrored = head[:, ::-1]
    settled(extractor, scene((head, LEFT, 280), (mirrored, RIGHT, 200)), 0.0)
    assert subject_x(extractor.push(scene((mirrored, RIGHT, 200)), 0.6)) is None
    back = extractor.push(scene((head, LEFT, 220), (mirrored, RIGHT, 280)), 0.8)
    assert subject_x(back) == pytest.approx(LEFT, abs=0.05)


def far(head: Image, eyes_px: float, x: int, y: int) -> Image:
    """(1080, 1920, 3) picture of noise with a head; its eyes are so far apart, and it begins at x, y."""
    import cv2

    random = np.random.default_rng(0)
    coarse = random.normal(110, 25, (27, 48, 3)).clip(0, 255).astype(np.uint8)
    picture = np.asarray(cv2.resize(coarse, (1920, 1080)), np.uint8)
    small = cv2.resize(head, None, fx=eyes_px / EYES_PX, fy=eyes_px / EYES_PX, interpolation=cv2.INTER_AREA)
    picture[y : y + small.shape[0], x : x + small.shape[1]] = small
    return picture


EYES_PX = 41.5
"""Between the eyes of the head."""


@pytest.mark.parametrize(("eyes_px", "x", "y"), [(24.0, 1500, 800), (60.0, 130, 500), (90.0, 700, 40)])
def test_a_far_face_is_found_followed_and_read(
    extractor: FaceExtractor, head: Image, eyes_px: float, x: int, y: int
) -> None:
    seen = [extractor.push(far(head, eyes_px, x + i // 2, y), i / 15) for i in range(60)]
    first = next(i for i, one in enumerate(seen) if one.box is not None)
    assert first < 50
    assert all(len(one.rows) == 1 and one.faces == 1 for one in seen[first:])
    box = seen[-1].box
    assert box is not None
    scale = eyes_px / EYES_PX
    found = np.array(box) * (1920, 1080, 1920, 1080)
    np.testing.assert_allclose(found, np.array([39, 35, 131, 142]) * scale + [x + 29, y] * 2, atol=7 * scale)
    assert seen[-1].blendshapes["mouthSmileLeft"] > 0.6


def test_a_face_with_too_few_pixels_is_seen_and_not_read(extractor: FaceExtractor, head: Image) -> None:
    image = far(head, 10.5, 300, 200)
    looks = (extractor.push(image, i / 15) for i in range(300))
    seen = next(one for one in looks if one.faces and (one.too_far or len(one.rows)))
    assert seen.too_far
    assert seen.faces == 1
    assert not len(seen.rows)


def test_who_comes_near_goes_before_a_face_far_away(extractor: FaceExtractor, head: Image) -> None:
    import cv2

    picture = far(head, 26.0, 1600, 700)
    for i in range(60):
        seen = extractor.push(picture, i / 15)
    assert seen.box is not None
    assert seen.box[0] > 0.8
    picture[100:900, 100:900] = cv2.resize(head, (800, 800))
    for i in range(60, 100):
        seen = extractor.push(picture, i / 15)
    assert seen.box is not None
    assert seen.box[0] < 0.4


def test_nobody_is_found_where_there_is_nobody(extractor: FaceExtractor) -> None:
    random = np.random.default_rng(1)
    picture = random.normal(110, 40, (1080, 1920, 3)).clip(0, 255).astype(np.uint8)
    picture[:, 700:1300] = np.linspace(0, 255, 600)[None, :, None]
    assert not any(extractor.push(picture, i / 15).faces for i in range(75))


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (640, 480), (160, 120), (1080, 1920), (3840, 2160)])
def test_tiles_cover_the_picture_and_lie_within_it(width: int, height: int) -> None:
    looked_at = np.zeros((height, width), bool)
    for x, y, side in itertools.islice(tiles(width, height), 2000):
        assert x >= 0
        assert y >= 0
        assert x + side <= max(width, side)
        looked_at[y : y + side, x : x + side] = True
    assert looked_at.all() or max(width, height) <= SMALLEST_TILE


@pytest.mark.parametrize("name", ["one_fps.mkv", "still.png"])
def test_a_face_in_pictures_that_stand_is_there_all_the_while(
    make_media: Callable[..., Path], extractor: FaceExtractor, portrait: Image, tmp_path: Path, name: str
) -> None:
    """From the third look at it on."""
    import cv2

    still = tmp_path / "face.png"
    cv2.imwrite(str(still), portrait)
    film = ("-loop", "1", "-framerate", "1", "-t", "5", "-i", str(still), "-c:v", "libx264")
    path = still if name == "still.png" else make_media(name, *film)
    rows = [extractor.push(picture.image(), picture.time_s).rows for picture in MediaReader(path).pictures()]
    times_s = Rows.concatenate(rows, WIDTH).times_s
    present = [bool((extractor.spec.place(times_s, end_s) >= 0).any()) for end_s in np.arange(0.6, 5.0, 0.1)]
    assert all(present)


def test_stills_are_unrelated(network: ExpressionNet, head: Image) -> None:
    mirrored = head[:, ::-1]
    with FaceExtractor(network, "image") as extractor:
        assert subject_x(extractor.push(scene((head, LEFT, 280), (mirrored, RIGHT, 180)), 0.0)) == pytest.approx(
            LEFT, abs=0.05
        )
        assert subject_x(extractor.push(scene((head, LEFT, 180), (mirrored, RIGHT, 280)), 0.0)) == pytest.approx(
            RIGHT, abs=0.05
        )


def test_same_pictures_same_rows(network: ExpressionNet, head: Image) -> None:
    pictures = [scene((head, LEFT + 0.01 * i, 240), (head[:, ::-1], RIGHT, 180 + 6 * i)) for i in range(8)]

    def rows() -> bytes:
        with FaceExtractor(network) as extractor:
            return b"".join(extractor.push(image, i / 15).rows.values.tobytes() for i, image in enumerate(pictures))

    first = rows()
    assert len(first) == (8 - SIGHTINGS + 1) * WIDTH * 4
    assert first == rows()


def test_equal_and_rewinding_times(extractor: FaceExtractor, head: Image) -> None:
    left, right = scene((head, LEFT, 240)), scene((head, RIGHT, 240))
    assert len(settled(extractor, left, 10.0).rows) == 1
    assert [len(extractor.push(left, t).rows) for t in (10.0, 10.0, 10.0004)] == [1, 1, 1]
    # A file that starts over: whoever is there is the subject, as soon as it counts.
    again = settled(extractor, right, SIGHTINGS / 15)
    assert again.rows.times_s.tolist() == [SIGHTINGS / 15]
    assert subject_x(again) == pytest.approx(RIGHT, abs=0.05)


@pytest.mark.parametrize(
    ("fps", "most", "kept"),
    [(15, 15.0, 15), (25, 15.0, 15), (30, 15.0, 15), (60, 15.0, 15), (10, 15.0, 10), (30, 7.5, 8), (25, 5.0, 5)],
)
def test_no_more_pictures_a_second_are_due_than_the_grid_has_cells(
    extractor: FaceExtractor, fps: int, most: float, kept: int
) -> None:
    nothing = np.zeros((32, 32, 3), np.uint8)
    due = 0
    for i in range(fps):
        if extractor.due(i / fps, most):
            extractor.push(nothing, i / fps)
            assert not extractor.due(i / fps, most)
            due += 1
    assert due == kept


def test_a_huge_picture_gives_the_same_face(network: ExpressionNet, portrait: Image) -> None:
    import cv2

    huge = np.asarray(cv2.resize(portrait, (3000, 3000), interpolation=cv2.INTER_CUBIC), np.uint8)
    with FaceExtractor(network, "image") as extractor:
        small, large = extractor.push(portrait, 0.0), extractor.push(huge, 0.0)
    assert small.landmarks is not None
    assert large.landmarks is not None
    np.testing.assert_allclose(large.landmarks[:, :2], small.landmarks[:, :2], atol=0.01)


def test_clips_are_read_as_they_are_named(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shipped network alone, frame by frame; the whole model does better than this."""
    import cv2

    # OpenCV reads it once in a process, when it opens its first file: without it FFmpeg talks on stderr ever after.
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")

    network = ExpressionNet.load(Path(__file__).parents[3] / "dhmd" / "pretrained" / "base" / "vision.safetensors")
    named = {"mead_happy": "happy", "mead_sad": "sad", "mead_disgusted": "disgust", "single_face_smile": "happy"}
    share = {}
    for clip, emotion in named.items():
        capture = cv2.VideoCapture(str(shared / "clips" / f"{clip}.mp4"))
        seen = []
        with FaceExtractor(network) as extractor:
            for i in itertools.count():
                more, image = capture.read()
                if not more or len(seen) == 45:
                    break
                captured_s = i / capture.get(cv2.CAP_PROP_FPS)
                if extractor.due(captured_s):
                    seen.append(extractor.push(np.asarray(image, np.uint8), captured_s))
        tops = [EMOTIONS[one.emotions.argmax()] for one in seen if one.emotions is not None]
        assert len(tops) >= 0.95 * (len(seen) - SIGHTINGS + 1) > 30
        share[clip] = tops.count(emotion) / len(tops)
    # Disgust is what it cannot do (docs/accuracy.md): most of FER+'s taggers saw it in next to no face.
    assert all(right > 0.5 for clip, right in share.items() if clip != "mead_disgusted"), share


def test_start_is_silent_in_a_process_of_its_own() -> None:
    code = """
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import FaceExtractor
import numpy as np
with FaceExtractor(ExpressionNet()) as extractor:
    print(extractor.push(np.zeros((48, 64, 3), np.uint8), 0.0).faces)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_silence_lets_errors_through(capfd: pytest.CaptureFixture[str]) -> None:
    with _without_startup_chatter():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        os.write(2, b"E0000 00:00:1.0 1 graph.cc:1] out of memory\n")
        os.write(2, b"W0000 00:00:1.0 1 other.cc:1] a warning of another kind\n")
    assert capfd.readouterr().err.splitlines() == [
        "E0000 00:00:1.0 1 graph.cc:1] out of memory",
        "W0000 00:00:1.0 1 other.cc:1] a warning of another kind",
    ]


def test_a_missing_library_is_named_with_its_remedy(network: ExpressionNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(LibraryMissing, match=r"need mediapipe: pip install mediapipe==0\.10\.31 opencv"):
        FaceExtractor(network)


@pytest.mark.parametrize("memory", [True, False])
def test_a_machine_without_a_folder_for_temporary_files_sees_faces(
    network: ExpressionNet, head: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with FaceExtractor(network, "image") as extractor:
        assert extractor.push(scene((head, LEFT, 280)), 0.0).faces == 1


def test_a_covered_mouth_is_told_and_no_other_cover(head: Image) -> None:
    """Of the network from which it was learned; an eye is covered, then the mouth by a mask."""
    with FaceExtractor(ExpressionNet.load(load("base").encoder(Modality.VISION))) as extractor:
        import cv2

        def told(cover: Callable[[Image, Image], None], start_s: float) -> bool:
            image = scene((head, LEFT, 280))
            points = [extractor.push(image, start_s + i / 15) for i in range(5)][-1].landmarks
            assert points is not None
            places = (points[:, :2] * (image.shape[1], image.shape[0])).round().astype(np.int32)
            cover(image, places)
            return [extractor.push(image, start_s + 1 + i / 15) for i in range(12)][-1].covered

        def sunglasses(image: Image, places: NDArray[np.int32]) -> None:
            for eye in (159, 386):
                cv2.circle(image, places[eye].tolist(), 22, (20, 20, 20), -1)

        def mask(image: Image, places: NDArray[np.int32]) -> None:
            jaw = [93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 195]
            cv2.fillPoly(image, [places[jaw]], (200, 190, 180))

        assert [told(cover, 3.0 * i) for i, cover in enumerate((lambda *_: None, sunglasses, mask))] == [
            False,
            False,
            True,
        ]


def test_a_network_that_the_reading_was_not_learned_of_tells_no_cover(network: ExpressionNet) -> None:
    assert CoveredMouth.of(ExpressionNet.load(load("base").encoder(Modality.VISION)).sha256()) is not None
    assert CoveredMouth.of(network.sha256()) is None
