"""The checkpoint that ships: better than chance on every single modality, on people it has never met."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dhmd.checkpoint import Checkpoint, encoder_path, load, subset_name
from dhmd.contract import Rows
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import FaceExtractor, face_spec
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from training.data.compose import SUBSETS
from training.data.corpora import prepare
from training.data.items import Split, Utterance
from training.data.manifest import read_manifests
from training.evaluation.evaluate import measure
from training.features.extract import Extraction, extract
from training.features.store import FeatureStore

ITEMS = 42
"""Few, so that the test is quick. Guessing gets 6 of 42 right, and more than 15 in one of 8000 draws."""


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return load("base")


def thinned(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Of the test split, as many of every emotion, chosen by hash."""
    chosen: list[Utterance] = []
    for emotion in EMOTIONS:
        own = [one for one in utterances if (one.emotion, one.split) == (emotion, Split.TEST)]
        chosen += sorted(own, key=lambda one: sha256(one.id.encode()).digest())[: ITEMS // 7]
    return chosen


def test_it_is_whole(base: Checkpoint) -> None:
    assert set(base.features) == set(Modality)
    assert base.features[Modality.VISION] == face_spec(ExpressionNet.load(encoder_path(base.folder, Modality.VISION)))
    names = {subset_name(subset) for subset in SUBSETS}
    assert set(base.calibration.temperature) == set(base.calibration.sentiment_half_width) == names
    assert (base.folder / "model.safetensors").stat().st_size <= 8_000_000
    card = (base.folder / "README.md").read_text(encoding="utf-8")
    for corpus in ("RAVDESS", "EMO-DB", "FER2013", "CK+", "MELD", "GoEmotions", "CMU-MOSI", "composed", "prohibited"):
        assert corpus in card


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "meld"])
def test_voice_and_words_of_strangers(base: Checkpoint, shared: Path, corpus: str, tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "features.sqlite") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.data.files.probe", lambda *_: None)  # only the few that are chosen are read
        (manifest,) = read_manifests(prepare([corpus], shared / "corpora", tmp_path / "data"), store.files)
        examples, specs = extract(thinned(manifest.utterances), store, Extraction(base.folder, jobs=1))
    for modality, spec in base.features.items():
        spec.require(specs[modality])
    measured = measure(base, examples)
    assert measured["coverage"] > 0.9
    assert measured["emotion"]["unweighted_recall"] > 2.5 / 7


def test_sentiment_of_strangers(base: Checkpoint, shared: Path, tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "features.sqlite") as store:
        (manifest,) = read_manifests(prepare(["mosi"], shared / "corpora", tmp_path / "data"), store.files)
        tested = [one for one in manifest.utterances if one.split is Split.TEST]
        chosen = sorted(tested, key=lambda one: sha256(one.id.encode()).digest())[:100]
        examples, _ = extract(chosen, store, Extraction(base.folder, jobs=1))
    sentiment = measure(base, examples)["sentiment"]
    assert sentiment["corr"] > 0.5
    assert sentiment["acc2_non0"] > 0.65


def test_faces_of_strangers(base: Checkpoint, shared: Path, tmp_path: Path) -> None:
    rows = ["id,split,emotion,image"]
    with zipfile.ZipFile(shared / "corpora" / "fer2013.zip") as archive:
        tested = [name for name in archive.namelist() if re.fullmatch(r"test/\w+/\w+\.jpg", name)]
        for emotion in EMOTIONS:
            own = [name for name in tested if name.split("/")[1] == emotion]
            chosen = sorted(own, key=lambda name: sha256(name.encode()).digest())[:8]
            rows += [f"{name},test,{emotion},{archive.extract(name, tmp_path)}" for name in chosen]
    (tmp_path / "faces.csv").write_text("\n".join(rows) + "\n")
    with FeatureStore(tmp_path / "features.sqlite") as store:
        (manifest,) = read_manifests([tmp_path / "faces.csv"], store.files)
        examples, _ = extract(manifest.utterances, store, Extraction(base.folder, jobs=1))
    measured = measure(base, examples)
    assert measured["n"] == 56
    assert measured["coverage"] == 1.0
    assert measured["emotion"]["unweighted_recall"] > 2.5 / 7


CLIPS = {
    "mead_happy.mp4": "happy",
    "mead_sad.mp4": "sad",
    "mead_disgusted.mp4": "disgust",
    "single_face_smile.mp4": "happy",
}
SEEN_S = 3.0


def tops(base: Checkpoint, clip: Path) -> list[str]:
    """The likeliest emotion ten times a second of a clip's beginning, seen through the extractor that runs live."""
    spec, parts, end_s = base.features[Modality.VISION], [], 0.0
    network = ExpressionNet.load(encoder_path(base.folder, Modality.VISION))
    with FaceExtractor(network) as extractor, av.open(str(clip)) as media:
        for frame in media.decode(video=0):
            end_s = float(frame.time)
            if end_s > SEEN_S:
                break
            if extractor.due(end_s):
                parts.append(extractor.push(frame.to_ndarray(format="bgr24"), end_s).rows)
    rows = Rows.concatenate(parts, spec.width)
    cut = [spec.window(rows, float(t)) for t in np.arange(0.5, end_s, 0.1)]
    inputs = {m: torch.zeros(len(cut), s.steps, s.width) for m, s in base.features.items()}
    masks = {m: torch.zeros(len(cut), s.steps, dtype=torch.bool) for m, s in base.features.items()}
    inputs[Modality.VISION] = torch.from_numpy(np.stack([values for values, _ in cut]))
    masks[Modality.VISION] = torch.from_numpy(np.stack([mask for _, mask in cut]))
    with torch.inference_mode():
        emotions = base.model.split(base.model(inputs, masks).output)["emotion"]
    return [EMOTIONS[int(i)] for i in emotions.argmax(dim=1)]


def test_expressions_on_video_are_named_most_of_the_time(base: Checkpoint, shared: Path) -> None:
    shares = {}
    for name, expected in CLIPS.items():
        said = tops(base, shared / "clips" / name)
        shares[name] = said.count(expected) / len(said)
    assert sum(share > 0.5 for share in shares.values()) >= 2, shares
