"""The measures against reference numbers, and where they are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.metrics import emotion_metrics, reliability, sentiment_metrics, sims_metrics

FIELD = {
    "Has0_acc_2": "acc2_has0",
    "Has0_F1_score": "f1_has0",
    "Non0_acc_2": "acc2_non0",
    "Non0_F1_score": "f1_non0",
    "Mult_acc_5": "acc5",
    "Mult_acc_7": "acc7",
    "MAE": "mae",
    "Corr": "corr",
}


def test_sentiment_metrics_match_the_reference(shared: Path) -> None:
    for case in json.loads((shared / "golden" / "mosi_metrics.json").read_text()):
        ours = sentiment_metrics(np.array(case["pred"], np.float32), np.array(case["label"], np.float32))
        assert {name: round(ours[FIELD[name]], 4) for name in case["metrics"]} == pytest.approx(
            case["metrics"], abs=1e-4
        )


def test_emotion_metrics_by_hand() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 2, 2, 2]]
    label = np.array([0, 0, 0, 2, 2, 1])
    ours = emotion_metrics(probabilities, label)
    assert ours["confusion"] == [[2, 1, 0], [0, 0, 1], [0, 0, 2]]
    assert ours["accuracy"] == pytest.approx(4 / 6)
    assert ours["unweighted_recall"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert ours["weighted_f1"] == pytest.approx((3 * 0.8 + 1 * 0 + 2 * 0.8) / 6)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    right = np.tile([0.7, 0.3], (10, 1))
    label = np.array([0] * 7 + [1] * 3)
    assert reliability(right, label).calibration_error == pytest.approx(0.0)
    assert reliability(right, np.zeros(10, np.int64)).calibration_error == pytest.approx(0.3)


def test_the_measures_of_ch_sims_by_hand() -> None:
    label = np.array([-0.8, -0.7, -0.2, 0.0, 0.1, 0.2, 1.0])
    predicted = np.array([-1.4, -0.6, -0.1, 0.2, 0.1, 0.0, 0.8])
    ours = sims_metrics(predicted, label)
    assert ours["mae"] == pytest.approx((0.2 + 0.1 + 0.1 + 0.2 + 0 + 0.2 + 0.2) / 7)
    assert ours["acc2"] == pytest.approx(5 / 7)
    assert ours["acc3"] == pytest.approx(5 / 7)
    assert ours["acc5"] == pytest.approx(4 / 7)
    # Below or at zero: 4 labels, 4 predictions, 3 hits; above: 3, 3 and 2.
    assert ours["f1"] == pytest.approx((4 * 3 / 4 + 3 * 2 / 3) / 7)
