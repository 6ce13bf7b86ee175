"""The paired bootstrap: against known answers, with several runs a side, and what a wrong table is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dhmd.labels import EMOTIONS
from training.cli import main
from training.data.items import Split
from training.errors import PredictionsInvalid
from training.evaluation.compare import compare, find_runs
from training.evaluation.predictions import PREDICTIONS, Said, measures, read_said
from training.evaluation.product import product


def classes(right: NDArray[Any], sure: float = 0.9, split: Split = Split.TEST) -> Said:
    """Four clips a speaker; those that are `right` get the probability `sure`, the others name the next class."""
    count = len(right)
    label = np.arange(count) % 7
    said = np.full((count, 7), (1 - sure) / 6)
    said[np.arange(count), np.where(right, label, (label + 1) % 7)] = sure
    speakers = tuple(f"{i // 4:02}" for i in range(count))
    return Said(
        tuple(map(str, range(count))), ("made",) * count, speakers, (split,) * count, label, said, "emotion", EMOTIONS
    )


def sentiment(said: NDArray[Any], label: NDArray[Any]) -> Said:
    count = len(label)
    names = tuple(map(str, range(count)))
    return Said(names, ("made",) * count, names, (Split.TEST,) * count, label, said)


def test_the_interval_over_clips_is_that_of_a_sign_test() -> None:
    # A is right on 60 clips where B is wrong, B on 20 where A is: the mean is .1, its error sqrt(.2 - .01) / 20.
    a, b = np.ones(400, np.bool_), np.ones(400, np.bool_)
    draw = np.random.default_rng(0).permutation(400)
    b[draw[:60]] = False
    a[draw[60:80]] = False
    one = compare([classes(a)], [classes(b)], Split.TEST).measures["accuracy"]
    assert one.a - one.b == pytest.approx(0.1)
    error = np.sqrt(0.2 - 0.01) / 20
    assert one.low["clips"] == pytest.approx(0.1 - 1.96 * error, abs=0.005)
    assert one.high["clips"] == pytest.approx(0.1 + 1.96 * error, abs=0.005)
    assert one.p["clips"] < 0.001


def test_what_differs_by_speaker_is_less_sure_over_speakers() -> None:
    speaker = np.arange(400) // 4
    a, b = speaker % 2 == 0, speaker % 2 == 1  # each is right about all clips of half of the speakers
    one = compare([classes(a)], [classes(b)], Split.TEST).measures["accuracy"]
    assert one.a == one.b == 0.5
    assert one.p["speakers"] > 0.8
    width = {by: one.high[by] - one.low[by] for by in ("clips", "speakers")}
    assert width["speakers"] == pytest.approx(2 * width["clips"], rel=0.1)  # four clips tell as much as one


def test_a_method_does_not_differ_from_itself_and_runs_are_averaged() -> None:
    right = np.random.default_rng(1).random(200) < 0.7
    same = compare([classes(right)], [classes(right)], Split.TEST).measures
    assert all(one.low["clips"] == one.high["clips"] == 0 and one.p["clips"] == 1 for one in same.values())
    both = compare([classes(right), classes(~right)], [classes(right)], Split.TEST)
    assert both.measures["accuracy"].a == pytest.approx(0.5)
    assert both.runs == (2, 1)


def test_measures_of_classes_and_of_sentiment() -> None:
    right = np.arange(70) < 35
    one = compare([classes(right)], [classes(right, 0.5)], Split.TEST).measures["NLL"]
    assert one.a == pytest.approx(-(np.log(0.9) + np.log(0.1 / 6)) / 2)
    assert one.b == pytest.approx(-(np.log(0.5) + np.log(0.5 / 6)) / 2)
    label = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    told = compare([sentiment(label, label)], [sentiment(-2 * label, label)], Split.TEST).measures
    assert {name: (round(each.a, 6), round(each.b, 6)) for name, each in told.items()} == {
        "MAE": (0, 3.6),
        "Acc2 without zeros": (1, 0),
        "Corr": (1, -1),
    }


def test_a_table_is_read_as_it_was_written_and_found_below_a_folder(tmp_path: Path) -> None:
    said = classes(np.arange(8) < 3)
    for seed in ("1", "2"):
        (tmp_path / "runs" / seed).mkdir(parents=True)
        (tmp_path / "runs" / seed / PREDICTIONS).write_text(said.text())
    read = read_said(tmp_path / "runs" / "1" / PREDICTIONS)
    assert (read.ids, read.speakers, read.splits) == (said.ids, said.speakers, said.splits)
    np.testing.assert_array_equal(read.label, said.label)
    np.testing.assert_allclose(read.said, said.said, rtol=1e-5)
    assert len(find_runs(str(tmp_path / "runs"))) == 2
    assert len(find_runs(str(tmp_path / "runs" / "[2]"))) == 1
    turned = tmp_path / "runs" / "1" / "folds" / "1"
    turned.mkdir(parents=True)
    (turned / PREDICTIONS).write_text(said.text())
    assert len(find_runs(str(tmp_path / "runs"))) == 2  # what cross-validated a run is no run of the method
    assert len(find_runs(str(turned))) == 1


def test_a_number_of_ones_own_has_no_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rating = replace(sentiment(np.array([1.0, 2, 5, 4]), np.array([1.0, 3, 5, 3])), head="rating")
    assert measures(rating) == {"mae": 0.5, "corr": pytest.approx(0.8944, abs=1e-4)}
    file = tmp_path / "predictions-rating.csv"
    file.write_text(rating.text())
    assert main(["compare", str(file), str(file), "--draws", "100"]) == 0
    assert "Acc2" not in capsys.readouterr().out
    assert main(["table", f"mine={file}"]) == 0
    assert capsys.readouterr().out.split() == ["runs", "mae", "corr", "mine", "1", "0.5000", "0.8944"]
    assert main(["table", str(tmp_path)]) == 1
    assert f"such as {file}" in capsys.readouterr().err


def test_the_command_prints_the_difference_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.arange(80) % 4 > 0
    for name, said in {"a": classes(right), "b": classes(~right), "short": classes(right[:40])}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / PREDICTIONS).write_text(said.text())
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / PREDICTIONS).write_text("id,x\n1,2\n")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--draws", "200"]) == 0
    assert "accuracy               0.7500   0.2500  +0.5000" in capsys.readouterr().out
    for other, told in {"short": "do not tell of the same", "c": "not a table of predictions", "d": "no pred"}.items():
        assert main(["compare", str(tmp_path / "a"), str(tmp_path / other)]) != 0
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_the_product_of_two_halves_knows_what_neither_does() -> None:
    draw = np.random.default_rng(0)
    label = np.tile(np.arange(7), 40)
    splits = (Split.VALIDATION,) * 140 + (Split.TEST,) * 140
    names = tuple(map(str, range(280)))

    def half(blind: tuple[int, ...]) -> Said:
        """Cannot tell these classes from each other."""
        said = np.full((280, 7), 0.02) + draw.random((280, 7)) * 0.01
        for i, own in enumerate(label):
            said[i, list(blind) if own in blind else own] += 0.3
        return Said(names, names, names, splits, label, said / said.sum(axis=1, keepdims=True), "emotion", EMOTIONS)

    parts = [half((0, 1, 2)), half((3, 4, 5, 6))]
    told = product(parts)
    assert all(compare([told], [part], Split.TEST, draws=100).measures["accuracy"].low["clips"] > 0 for part in parts)
    assert told.said.sum(axis=1) == pytest.approx(1)
    with pytest.raises(PredictionsInvalid, match="same utterances"):
        product([told, classes(np.ones(8, np.bool_))])
