"""Features of utterances: the same rows as live, kept, and only made where they are missing."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dhmd.contract import Rows
from dhmd.errors import MediaUnreadable
from dhmd.features.face import WIDTH, FaceExtractor
from dhmd.features.voice import HOP
from dhmd.modality import Modality
from realtime.capture.media import MediaFile
from training.data import media
from training.data.items import Example, Split, Utterance
from training.errors import EncodersMissing, ManifestInvalid
from training.features import extract as extraction
from training.features import spread
from training.features.extract import STORE, Extraction, extract, kept
from training.features.extractors import ENCODERS, LazyExtractors
from training.features.pieces import Recipe, recipe_of, typed_words, voiced
from training.features.store import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with FeatureStore(tmp_path / "features.sqlite") as opened:
        yield opened


def utterance(name: str, **fields: Any) -> Utterance:
    return Utterance(f"my/{name}", "my", Split.TRAIN, f"my/{name}", "happy", **fields)


def one(store: FeatureStore, **fields: Any) -> Example:
    (example,) = extract([utterance("1", **fields)], store, Extraction(jobs=1))[0]
    return example


def test_how_each_modality_comes_about() -> None:
    film, sound, still = Path("a.mp4"), Path("a.wav"), Path("a.png")
    words = typed_words("well done", "key")
    recipes = {
        ("film", "film voice", "heard"): {"video": film},
        ("film", "film voice", "spoken"): {"video": film, "text": "well done"},
        ("film", "film voice", "typed"): {"video": film, "words": words},
        ("film", "voice", "heard"): {"video": film, "audio": sound},
        (None, "voice", None): {"audio": sound},
        ("still", None, "typed"): {"image": still, "text": "well done"},
        ("still", "voice", "spoken"): {"image": still, "audio": sound, "text": "well done"},
    }
    for expected, fields in recipes.items():
        found = [recipe_of(utterance("1", **fields), m) for m in (Modality.VISION, Modality.AUDIO, Modality.TEXT)]
        assert found == [None if name is None else Recipe(name) for name in expected]


def test_typed_words_are_timed_as_if_spoken() -> None:
    words = typed_words("I\u2019m  fine, thanks", "key")
    assert [word.text for word in words] == ["I'm", "fine,", "thanks"]
    assert words == typed_words("I\u2019m fine, thanks", "key")
    assert 0.6 < words[-1].end_s < 1.6
    assert typed_words("", "key") == ()


def test_a_film_gives_the_rows_of_a_live_run(shared: Path, store: FeatureStore) -> None:
    clip = shared / "clips" / "grid_swwp2s.mpg"
    example = one(store, video=clip, end_s=2.0)
    extractors, live_media = LazyExtractors(ENCODERS), MediaFile(clip)
    with FaceExtractor(extractors.expression) as face:
        parts = [
            face.push(frame.image, frame.captured_s).rows
            for frame in live_media.frames()
            if frame.captured_s < 2.0 and face.due(frame.captured_s)
        ]
    same(example.rows[Modality.VISION], Rows.concatenate(parts, WIDTH))
    voice = extractors.voice()
    blocks = [voice.push(block.samples, block.captured_s) for block in live_media.blocks() if block.end_s <= 2.0]
    live = Rows.concatenate(blocks, voice.spec.width)
    heard = example.rows[Modality.AUDIO]
    same(Rows(heard.times_s[: len(live)], heard.values[: len(live)]), live)
    # Only the last hop, which live would not have finished, is one more.
    assert len(heard) - len(live) <= HOP // 1280


def same(kept: Rows, made: Rows) -> None:
    np.testing.assert_allclose(kept.times_s, made.times_s, atol=1e-9)
    np.testing.assert_array_equal(kept.values, made.values.astype(np.float16).astype(np.float32))


def test_a_part_of_a_film_counts_its_time_from_its_start(shared: Path, store: FeatureStore) -> None:
    clip = shared / "clips" / "mead_sad_1080p_speech.mp4"
    example = one(store, video=clip, start_s=1.0, end_s=2.5, text="her dark suit in greasy wash water")
    for m in Modality:
        times = example.rows[m].times_s
        assert 0.0 < times[0] < 0.8
        assert 1.0 < times[-1] <= 1.5 + HOP / 16_000


def test_words_are_timed_by_the_sound_that_says_them(shared: Path, store: FeatureStore) -> None:
    clip = shared / "clips" / "grid_sbia1a.mpg"
    said = one(store, video=clip, text="set blue in a one again").rows[Modality.TEXT]
    heard = one(store, video=clip).rows[Modality.TEXT]
    assert len(said) == 6
    assert said.times_s[-1] == pytest.approx(heard.times_s[-1], abs=0.3)
    assert said.times_s[0] == pytest.approx(heard.times_s[0], abs=0.3)


def test_words_of_a_stranger_end_with_the_voice(shared: Path, store: FeatureStore) -> None:
    clip = shared / "clips" / "grid_sbia1a.mpg"
    text = "I never thought that anybody would remember my birthday, and now look at all of you standing there"
    rows = one(store, audio=clip, text=text).rows
    samples, _ = media.sound(clip)
    assert rows[Modality.TEXT].times_s[-1] == pytest.approx(voiced(samples)[-1][1], abs=0.1)
    assert np.ptp(rows[Modality.TEXT].times_s) <= 5.0


def test_long_speech_is_cut_at_its_pauses(say: Callable[[str], np.ndarray]) -> None:
    spoken, pause = say("I am so happy to see you today"), np.zeros(16_000, np.float32)
    stretches = voiced(np.concatenate([pause, *[spoken, pause[:4000]] * 15, pause, spoken, pause]))
    assert len(stretches) >= 3
    assert all(0 < end_s - start_s <= 20.0 for start_s, end_s in stretches)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(stretches))
    assert voiced(np.zeros(16_000, np.float32)) == []


def test_a_small_image_without_a_face_is_a_crop_and_a_large_one_nothing(tmp_path: Path, store: FeatureStore) -> None:
    for side in (48, 112, 113):
        cv2.imwrite(str(tmp_path / f"{side}.png"), np.full((side, side, 3), 77, np.uint8))
    images = [utterance(str(side), image=tmp_path / f"{side}.png") for side in (48, 112, 113)]
    examples, _ = extract(images, store, Extraction(jobs=1))
    assert [Modality.VISION in example.rows for example in examples] == [True, True, False]
    rows = examples[0].rows[Modality.VISION]
    assert rows.values.shape == (4, WIDTH)
    assert not rows.values[:, :55].any()
    assert not rows.times_s.any()


def test_a_cut_extraction_goes_on_where_it_was(
    tmp_path: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [utterance(str(i), text=f"this is sentence {i}") for i in range(6)]
    make, made = spread.PieceMaker.__call__, []

    def cut(self: spread.PieceMaker, piece: spread.Piece) -> spread.Made:
        made.append(piece.key)
        if len(made) == 4:
            raise KeyboardInterrupt
        return make(self, piece)

    monkeypatch.setattr(spread.PieceMaker, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        extract(texts, store, Extraction(jobs=1))
    extract(texts, store, Extraction(jobs=1))
    assert len(made) == 7
    assert len(set(made)) == 6
    monkeypatch.setattr(extraction, "make", lambda pieces, *_: iter(pieces and pytest.fail("extracted again")))
    examples, _ = extract(texts, store, Extraction(jobs=8))
    assert [example.utterance for example in examples] == texts


def test_files_that_break_off_are_told_after_the_others_are_done(
    tmp_path: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 48), np.uint8))
    both = [utterance("a", image=tmp_path / "a.png"), utterance("b", text="fine")]

    def broken(*_: object) -> None:
        raise MediaUnreadable("a.png: breaks off")

    with monkeypatch.context() as patch:
        patch.setattr("training.features.pieces.read_image", broken)
        with pytest.raises(ManifestInvalid, match=r"my/a: a.png: breaks off; .*--skip-bad"):
            extract(both, store, Extraction(jobs=1))
        examples, _ = extract(both, store, Extraction(jobs=1, skip_bad=True))
    assert [example.utterance.id for example in examples] == ["my/b"]


def test_missing_encoders_are_named(tmp_path: Path) -> None:
    with pytest.raises(EncodersMissing, match=r"text.safetensors is not there: .*encoder text .*--encoders"):
        LazyExtractors(tmp_path)


PARALLEL = """
import subprocess, sys
from pathlib import Path
from training.features import spread
from training.data.items import Split, Utterance
from training.features.store import FeatureStore
from training.features.extract import Extraction, extract

texts = [Utterance(f"my/{i}", "my", Split.TRAIN, "g", "happy", text=f"this is sentence {i}") for i in range(12)]
spread.WORTH_S = 0.0
first = spread.make
def made(*arguments):
    for i, one in enumerate(first(*arguments)):
        if i == 0:
            print(subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout, flush=True)
        yield one
import training.features.extract
training.features.extract.make = made
with FeatureStore(Path(sys.argv[1])) as store:
    extract(texts, store, Extraction(jobs=2))
"""


@pytest.mark.timeout(600)
def test_many_processes_make_the_same_rows_and_listen_to_nobody_else(tmp_path: Path) -> None:
    """Ray's own starts take most of this test."""
    pytest.importorskip("ray")
    if shutil.which("ss") is None:
        pytest.skip("needs ss; sudo apt install iproute2")
    done = subprocess.run(
        [sys.executable, "-c", PARALLEL, tmp_path / "many.sqlite"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ray" not in done.stderr.lower()
    listening = [line.split()[3] for line in done.stdout.splitlines() if "ray" in line or "gcs" in line]
    assert listening
    assert all(address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:", "[::1]:")) for address in listening)
    texts = [Utterance(f"my/{i}", "my", Split.TRAIN, "g", "happy", text=f"this is sentence {i}") for i in range(12)]
    with FeatureStore(tmp_path / "many.sqlite") as many, FeatureStore(tmp_path / "one.sqlite") as alone:
        apart, together = (extract(texts, store, Extraction(jobs=1))[0] for store in (many, alone))
    for a, b in zip(apart, together, strict=True):
        np.testing.assert_allclose(a.rows[Modality.TEXT].values, b.rows[Modality.TEXT].values, atol=1e-2)


@pytest.fixture
def ray_cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Ray cluster of one machine, started as its administrator would; the surroundings of a program that is on it."""
    if os.environ.get("DHMD_RAY") != "1":
        pytest.skip("starts a Ray cluster, which takes a minute; DHMD_RAY=1 asks for it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not pytest's folder: the path of a socket may be no longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "RAY_TMPDIR": folder}
        asked = ["--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
        command = [Path(sys.executable).with_name("ray"), "start", *asked, "--include-dashboard=false"]
        told = tmp_path / "ray.txt"
        with told.open("wb") as said:
            head = subprocess.Popen(
                [*command, "--disable-usage-stats"], stdout=said, stderr=said, env=surroundings, start_new_session=True
            )
        try:
            while "Ray runtime started" not in told.read_text():
                assert head.poll() is None, told.read_text()
                time.sleep(0.1)
            yield surroundings
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            head.wait()
            with suppress(ProcessLookupError):  # what the head left behind
                os.killpg(head.pid, signal.SIGKILL)


@pytest.mark.timeout(600)
def test_a_cluster_makes_the_same_rows(ray_cluster: dict[str, str], tmp_path: Path) -> None:
    """However little there is to do, all of it is done there."""
    manifest = tmp_path / "my.csv"
    manifest.write_text("id,split,emotion,text\n1,train,happy,well done\n2,train,sad,oh no\n")
    for cache, *where in (("cluster", "--address", "auto"), ("here", "--jobs", "1")):
        command = [sys.executable, "-m", "training", "extract", manifest, "--cache", tmp_path / cache, *where]
        done = subprocess.run(command, env=ray_cluster, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "2 utterances have their features" in done.stdout
    texts = [utterance(str(i), text=text) for i, text in ((1, "well done"), (2, "oh no"))]
    rows = []
    for cache in ("cluster", "here"):
        with FeatureStore(tmp_path / cache / STORE) as store:
            made = kept(texts, store, ENCODERS)
        assert len(made) == len(texts)
        rows.append([example.rows[Modality.TEXT].values for example in made])
    for there, here in zip(*rows, strict=True):
        np.testing.assert_allclose(there, here, atol=1e-2)
