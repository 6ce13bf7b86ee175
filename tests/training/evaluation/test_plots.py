"""The figures show the model's own numbers, the right ones in the right place."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from dhmd.checkpoint import Calibration, Checkpoint, load, save, subset_name
from dhmd.contract import FeatureSpec
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, DHMDConfig, ModalityConfig
from training.cli import main
from training.data.compose import SUBSETS
from training.data.items import Example, Split
from training.evaluation import plots
from training.evaluation.evaluate import by_corpus, by_modalities, composed
from training.evaluation.metrics import reliability
from training.evaluation.observe import Observations, Space, by_emotion, observe
from training.evaluation.predict import batches, softmax
from training.features.extractors import copy_learned

ATOMS = 12
LOG = [
    {
        "epoch": epoch,
        "score": score,
        "losses": {"total": 10.0 / epoch, "task": 9.0 / epoch, "rec": 1.0 / epoch},
        "validation": {"text": score - 0.1, "text sentiment": score, "text+vision+audio": score + 0.1},
    }
    for epoch, score in ((1, 0.3), (2, 0.6), (3, 0.5))
]


def untrained(run: Path, specs: Mapping[Modality, FeatureSpec], encoders: Path, *, dictionary: bool) -> Checkpoint:
    """A checkpoint with weights by chance, as a run leaves it."""
    torch.manual_seed(0)
    modalities = {m: ModalityConfig(spec.width) for m, spec in specs.items()}
    config = DHMDConfig(modalities=modalities, d=8, attention_heads=2, layers=1, atoms=ATOMS, dictionary=dictionary)
    folder = run / "checkpoint"
    folder.mkdir()
    copy_learned(encoders, folder)
    names = [subset_name(subset) for subset in SUBSETS]
    calibration = Calibration(dict.fromkeys(names, 0.7), dict.fromkeys(names, 1.0))
    save(folder, name="made", model=DHMD(config), features=specs, calibration=calibration, training={}, card="")
    (run / "log.json").write_text(json.dumps(LOG))
    return load(folder)


@pytest.fixture(scope="module")
def checkpoint(
    specs: Mapping[Modality, FeatureSpec], untrained_encoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return untrained(tmp_path_factory.mktemp("run"), specs, untrained_encoders, dictionary=True)


@pytest.fixture(scope="module")
def examples(made: list[Example]) -> list[Example]:
    return [example for example in made if example.utterance.split is Split.TEST]


@pytest.fixture(scope="module")
def seen() -> Observations:
    """Made numbers: without surprise, and one atom of each space that never answers."""
    draw = np.random.default_rng(3)
    emotion = draw.permutation(np.repeat(np.arange(6), 20))
    edges = {space: draw.dirichlet(np.ones(6), len(emotion)) for space in Space}
    activations = {}
    for i, space in enumerate(Space):
        activations[space] = {m: draw.dirichlet(np.full(ATOMS, 0.2), len(emotion)) for m in Modality}
        for values in activations[space].values():
            values[:, 3 + i] = 0
    return Observations(emotion, edges, activations)


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    with plots.drawing():
        yield


def test_what_is_observed_is_what_the_model_does(checkpoint: Checkpoint, examples: list[Example]) -> None:
    windows = composed(checkpoint, examples)[::20]
    seen = observe(checkpoint.model, batches(windows))
    (batch,) = batches(windows[:5])
    with torch.inference_mode():
        out = checkpoint.model(batch.inputs, batch.masks)
    assert seen.emotion.tolist() == [window.emotion for window in windows]
    for space, branch in ((Space.HOMOGENEOUS, out.homogeneous), (Space.HETEROGENEOUS, out.heterogeneous)):
        np.testing.assert_allclose(seen.edges[space][:5], branch.edges, atol=1e-5)
        for m in Modality:
            np.testing.assert_allclose(seen.activations[space][m][:5], branch.match[m].activation, atol=1e-5)
            assert seen.activations[space][m].shape == (len(windows), ATOMS)


def test_means_are_of_one_emotion_each() -> None:
    values, emotion = np.array([[1.0], [3.0], [10.0], [99.0]]), np.array([2, 2, 0, -1])
    mean, deviation = by_emotion(values, emotion)
    np.testing.assert_array_equal(mean[:, 0], [10, np.nan, 2, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(deviation[[0, 2], 0], [0, 1])


def test_reliability_adds_up_to_the_calibration_error() -> None:
    draw = np.random.default_rng(0)
    probabilities, label = softmax(2 * draw.standard_normal((500, 7))), draw.integers(0, 7, 500)
    bins = reliability(probabilities, label)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    inside = [(sure >= i / 15) & (sure < (i + 1) / 15) for i in range(15)]
    gaps = [b.mean() * abs(sure[b].mean() - right[b].mean()) for b in inside if b.any()]
    assert bins.calibration_error == pytest.approx(sum(gaps))
    few = reliability(np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), np.array([0, 0, 1]), bins=4)
    np.testing.assert_allclose(few.share, [0, 0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(few.accuracy, [np.nan, np.nan, 1, 0.5])
    np.testing.assert_allclose(few.confidence, [np.nan, np.nan, 0.7, 0.85])


def test_edges_show_mean_and_deviation_of_each_emotion(seen: Observations) -> None:
    figure = plots.edges_figure(seen)
    for axes, space in zip(figure.axes, Space, strict=True):
        assert space in axes.get_title(loc="left")
        assert [bars.get_label() for bars in axes.containers] == list(EMOTIONS[:6])
        for c, (line, _, (segments,)) in enumerate(axes.containers):
            own = seen.edges[space][seen.emotion == c]
            assert np.round(line.get_xdata()).tolist() == list(range(6))
            np.testing.assert_allclose(line.get_ydata(), own.mean(axis=0))
            span = np.array([segment[:, 1] for segment in segments.get_segments()])
            np.testing.assert_allclose(span[:, 1] - span[:, 0], 2 * own.std(axis=0))
    ticks = [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]
    assert ticks == [f"{edge.source} → {edge.target}" for edge in EDGES]


def test_activations_show_every_answering_atom_once(seen: Observations) -> None:
    figure = plots.activations_figure(seen)
    for axes, space in zip(figure.axes, Space, strict=False):
        (image,) = axes.images
        drawn = np.asarray(image.get_array().filled(np.nan))
        expected = np.concatenate([by_emotion(seen.activations[space][m], seen.emotion)[0] for m in Modality])
        expected = expected[:, expected[0] > 0]
        assert drawn.shape == (3 * len(EMOTIONS), ATOMS - 1)
        by_first = drawn[:, drawn[0].argsort()], expected[:, expected[0].argsort()]
        np.testing.assert_array_equal(*by_first)
        assert (np.diff(np.nan_to_num(drawn).argmax(axis=0)) >= 0).all()
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(EMOTIONS) * 3
        assert [note.get_text() for note in axes.texts] == list(Modality)


def test_confusion_is_in_per_cent_of_the_label() -> None:
    counts = np.zeros((7, 7), np.int64)
    counts[0, 0], counts[0, 4], counts[5, 5] = 30, 10, 7
    figure = plots.confusion_figure({"a": counts, "b": np.eye(7, dtype=np.int64), "c": counts, "d": counts})
    axes = figure.axes[0]
    share = axes.images[0].get_array().filled(np.nan)
    assert share[0].tolist() == [75, 0, 0, 0, 25, 0, 0]
    assert share[5, 5] == 100
    assert np.isnan(share[1]).all()
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "75", (4, 0): "25", (5, 5): "100"}
    assert "47 windows, mean recall 88 %" in axes.get_title()
    assert [panel.axison for panel in figure.axes] == [True] * 4 + [False] * 2


def test_learning_curves_are_the_log_s() -> None:
    losses, validation = plots.learning_figure(LOG).axes
    for axes, kind in ((losses, "losses"), (validation, "validation")):
        curves = {line.get_label(): line for line in axes.lines}
        for name in LOG[0][kind]:
            line = curves["text sentiment (r)" if name == "text sentiment" else name]
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == [entry[kind][name] for entry in LOG]
        (kept,) = {line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]}
        assert kept == 2
    assert list({line.get_label(): line for line in validation.lines}["score"].get_ydata()) == [0.3, 0.6, 0.5]


def test_reliability_is_drawn_where_windows_are() -> None:
    bins = reliability(np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), np.array([0, 0, 1]), bins=4)
    (axes,) = plots.reliability_figure({"text+audio": bins}).axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], bins.share)
    assert [bar.get_x() for bar in axes.patches] == [0, 0.25, 0.5, 0.75]
    (accuracy,) = (line for line in axes.lines if line.get_label() == "accuracy")
    np.testing.assert_allclose(accuracy.get_xydata(), [[0.7, 1.0], [0.85, 0.5]])
    assert f"{bins.calibration_error:.3f}" in axes.get_title()


def test_no_two_emotions_look_alike() -> None:
    assert len(set(plots.COLOURS)) == len(plots.COLOURS) > len(EMOTIONS)
    assert len(set(plots.MARKERS)) == len(plots.MARKERS) == len(EMOTIONS)
    assert max(sum(to_rgb(colour)) for colour in plots.COLOURS) < 2.2  # all can be seen on white


def test_a_checkpoint_s_figures_agree_with_its_evaluation(
    checkpoint: Checkpoint, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    for name in ("confusion_figure", "reliability_figure"):
        draw = getattr(plots, name)
        monkeypatch.setattr(plots, name, lambda data, name=name, draw=draw: asked.update({name: data}) or draw(data))
    files = plots.plot(checkpoint, examples, LOG, tmp_path)

    stems = ["edges", "confusion", "reliability", "features", "activations", "learning"]
    assert [path.name for path in files] == [f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")]
    for path in files:
        if path.suffix == ".png":
            picture = cv2.imread(str(path))
            assert picture.shape[1] == 1200
            assert picture.std() > 10
        else:
            assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - our own file

    measured = by_corpus(checkpoint, examples)
    for m in Modality:
        confusion = measured[f"made-{m}"]["emotion"]["confusion"]
        assert asked["confusion_figure"][f"made-{m}, {m} alone"].tolist() == confusion
    composed_ones = by_modalities(checkpoint, examples)["by_modalities"]
    all_three = composed_ones[subset_name(Modality)]
    assert asked["confusion_figure"]["composed, all three"].tolist() == all_three["confusion"]
    assert list(asked["reliability_figure"]) == [*Modality, subset_name(Modality)]
    for name, bins in asked["reliability_figure"].items():
        assert bins.calibration_error == pytest.approx(composed_ones[name]["ece"])


def test_without_a_dictionary_its_figure_alone_is_left_out(
    specs: Mapping[Modality, FeatureSpec],
    untrained_encoders: Path,
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    folder = untrained(tmp_path, specs, untrained_encoders, dictionary=False).folder
    monkeypatch.setattr("training.cli.commands.test_examples", lambda checkpoint, args: examples)
    gc.collect()  # what earlier tests left to be collected warns now, and not while the figures are drawn
    recwarn.clear()
    assert main(["plot", "--checkpoint", str(folder), "--out", str(tmp_path / "figures")]) == 0
    said = capsys.readouterr()
    *files, last = said.out.splitlines()
    assert last == "no activations: the network of this checkpoint has no dictionaries"
    stems = ["edges", "confusion", "reliability", "features", "learning"]
    assert [Path(file).name for file in files] == [f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")]
    assert all(Path(file).is_file() for file in files)
    assert not said.err
    assert not recwarn.list


def test_the_same_figure_is_the_same_file(seen: Observations, tmp_path: Path) -> None:
    files = [plots._save(plots.edges_figure(seen), tmp_path / name, "edges") for name in "ab"]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_what_is_missing_is_named_before_any_work(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(run: Path) -> str:
        argv = ["plot", "--checkpoint", str(checkpoint.folder), "--run", str(run), "--data", str(tmp_path / "none")]
        assert main(argv) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "give the folder of a run with --run" in complaint(tmp_path)
    (tmp_path / "log.json").write_text("[]")
    assert "no epoch is finished" in complaint(tmp_path)
    (tmp_path / "log.json").write_text("{")
    assert "log.json" in complaint(tmp_path)
    assert "no corpus is in" in complaint(checkpoint.folder.parent)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "dhmd-train plot needs matplotlib; pip install 'dhmd[train]'" in complaint(checkpoint.folder.parent)
