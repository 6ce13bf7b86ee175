"""Heads of one's own, as a user meets them: from columns of a manifest to the live estimate and Home Assistant."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from dhmd.checkpoint import load
from dhmd.modality import Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT, DHMDConfig, Head, ModalityConfig, Readout
from dhmd.prediction import Predictor
from realtime.messages.estimate import Estimate, ExtraClasses, ExtraNumber
from realtime.mqtt.discovery import announcement
from realtime.programs.run import run
from realtime.session.export.write import export
from realtime.settings import RunSettings
from training.cli import main
from training.learning.rehearsal import averaged, grown

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MOOD = Head("mood", "classification", 3, ("engaged", "bored", "contempt"))
RATING = Head("rating", "regression", 1, low=1, high=5, unit="points")
HEADS = """
heads:
  mood: {classes: [engaged, bored, contempt]}
  rating: {range: [1, 5], unit: points}
  valence: {range: [0, 10]}
"""
SENTENCES = {
    "engaged": "i want to know everything about this",
    "bored": "this goes on and on and nothing happens",
    "contempt": "what a ridiculous little man",
}


def test_a_network_that_grows_says_of_the_old_what_it_said() -> None:
    modalities = {m: ModalityConfig(width) for m, width in zip(Modality, (6, 4, 5), strict=True)}
    torch.manual_seed(0)
    model = DHMD(DHMDConfig(modalities, d=8, attention_heads=2, layers=1, atoms=12)).eval()
    bigger = grown(model, (MOOD, RATING)).eval()
    windows = [torch.randn(3, 7, width) for width in (6, 4, 5)]
    masks = [torch.rand(3, 7) > 0.3 for _ in windows]
    old, new = Readout(model)(*windows, *masks), Readout(bigger)(*windows, *masks)
    assert new.shape[1] == old.shape[1] + MOOD.size + RATING.size
    torch.testing.assert_close(new[:, : old.shape[1]], old)
    fast = Predictor(bigger, dict.fromkeys(Modality, 7))(*windows, *masks)
    torch.testing.assert_close(fast, new, atol=1e-4, rtol=0)
    half = averaged(bigger, {name: value + 1 for name, value in model.state_dict().items()}, 0.5)
    assert torch.equal(half.head.out.weight[8:], bigger.head.out.weight[8:])
    torch.testing.assert_close(half.head.out.weight[:8], bigger.head.out.weight[:8] + 0.5)
    assert [head.name for head in bigger.config.heads] == [SENTIMENT.name, EMOTION.name, "mood", "rating"]
    assert DHMDConfig.from_dict(json.loads(json.dumps(bigger.config.to_dict()))) == bigger.config


@pytest.mark.timeout(600)
def test_own_columns_become_own_heads_that_run_live(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("my.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "split", "text", "mood", "rating", "valence"))
        for i in range(60):
            mood, split = list(SENTENCES)[i % 3], ("train", "validation", "test")[i // 20]
            table.writerow((i, split, f"{SENTENCES[mood]} {i}", mood.upper(), 1 + i % 3, 5.0))
    Path("own.yaml").write_text((CONFIGS / "finetune.yaml").read_text() + HEADS)
    settings = (
        "optimisation.steps=12",
        "optimisation.learning_rate=0.005",
        "validation.per_class=1",
        "rehearsal.windows=4",
    )
    quick = ["--epochs", "2", *(word for setting in settings for word in ("--set", setting))]

    assert main(["extract", "my.csv", "--jobs", "1"]) == 0
    assert "mood, rating, valence may be labels of your own" in capsys.readouterr().err
    assert main(["fit", str(CONFIGS / "finetune.yaml"), "--manifest", "my.csv", "--run", "x"]) == 2
    assert "declared by `heads:` in the configuration" in capsys.readouterr().err
    assert main(["fit", "own.yaml", "--manifest", "my.csv", "--jobs", "1", *quick]) == 0
    checkpoint = load("runs/finetune")
    assert checkpoint.model.config.heads[2:] == (MOOD, RATING, Head("valence", "regression", 1, low=0, high=10))
    assert (
        Path("runs/finetune/predictions-mood.csv").read_text().startswith("id,corpus,speaker,split,mood,engaged,bored")
    )
    card = (checkpoint.folder / "README.md").read_text()
    assert "| mood |" in card
    assert "No test utterance is labelled with an emotion or a sentiment." in card
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", "runs/finetune", "--manifest", "my.csv"]) == 0
    told = json.loads(capsys.readouterr().out)["heads"]
    assert told["mood"]["n"] == told["rating"]["n"] == 20
    assert told["mood"]["accuracy"] > 0.6
    assert told["rating"]["mae"] < 2

    # No emotion is labelled, and nobody is heard or seen.
    assert main(["plot", "--checkpoint", "runs/finetune", "--manifest", "my.csv", "--out", "figures"]) == 0
    drawn = {path.stem for path in Path("figures").glob("*.png")}
    assert drawn >= {"edges", "features", "learning", "confusion-mood", "reliability-mood", "scatter-rating"}

    live = RunSettings(
        source=str(shared / "clips" / "single_face_smile.mp4"),
        pace="max",
        broker="none",
        checkpoint="runs/finetune",
        estimates="x.jsonl",
        record="x.mcap",
        duration=2.0,
    )
    run(live, Console(file=io.StringIO()))
    estimate = Estimate.model_validate_json(Path("x.jsonl").read_text().splitlines()[-1])
    mood, rating, valence = (estimate.extra[name] for name in ("mood", "rating", "valence"))
    assert isinstance(mood, ExtraClasses)
    assert list(mood.probabilities) == list(MOOD.classes)
    assert sum(mood.probabilities.values()) == pytest.approx(1)
    assert isinstance(rating, ExtraNumber)
    assert (rating.range, rating.unit) == ((1, 5), "points")
    assert 1 <= rating.low <= rating.value <= rating.high <= 5
    assert isinstance(valence, ExtraNumber)
    assert estimate.valence == pytest.approx(valence.value / 5 - 1, abs=1e-3)  # measured, in place of the derived one

    components = announcement("hall", estimate.extra).components
    assert components["extra_mood"].options == MOOD.classes
    assert components["extra_rating"].unit_of_measurement == "points"
    with export(Path("x.mcap"), "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = [float(row["extra_rating"]) for row in rows if row["extra_rating"]]
    assert seen[-1] == pytest.approx(rating.value, abs=1e-3)
    assert np.isclose(sum(float(rows[-1][f"extra_mood_{name}"]) for name in MOOD.classes), 1, atol=1e-3)
    assert "Also, by this checkpoint" in export(Path("x.mcap"), "html").read_text()


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        ("  text: {classes: [a, b]}", "'text' is no name of a head"),
        ("  Mood: {classes: [a, b]}", "'Mood' is no name of a head"),
        ("  mood: {classes: [a]}", "expected two or more"),
        ("  mood: {unit: points}", "expected `classes: [one, other]` or `range: [lowest, highest]`"),
        ("  mood: {range: [5, 1]}", "expected the lowest and the highest number"),
    ],
)
def test_what_is_no_head_is_refused_in_one_line(
    heads: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"name: own\nstart: base\nheads:\n{heads}\n")
    assert main(["fit", str(config), "--manifest", "x.csv"]) == 2
    assert told in capsys.readouterr().err


def test_labels_that_no_head_has_are_named_by_their_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, config = tmp_path / "my.csv", tmp_path / "own.yaml"
    manifest.write_text("id,text,mood,rating\n1,well,sleepy,3\n2,well,bored,7\n3,well,,\n")
    config.write_text("name: own\nstart: base\n" + HEADS)
    argv = ["fit", str(config), "--manifest", str(manifest), "--cache", str(tmp_path), "--run", str(tmp_path / "run")]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "row 2: unknown mood 'sleepy'; there are engaged, bored, contempt" in said
    assert "row 3: rating 7 is outside of 1 to 5" in said
    assert "row 4: has no label: neither emotion nor sentiment nor mood nor rating nor valence" in said


@pytest.mark.timeout(600)
def test_with_few_test_rows_all_are_tested_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{i},{'train' if i > 2 else 'test'},{('happy', 'sad')[i % 2]},{('so glad', 'so lost')[i % 2]} {i}"
        for i in range(12)
    ]
    Path("my.csv").write_text("\n".join(["id,split,emotion,text", *rows]) + "\n")
    quick = [
        "--epochs",
        "1",
        "--set",
        "optimisation.steps=2",
        "--set",
        "validation.per_class=1",
        "--set",
        "rehearsal.windows=0",
    ]
    assert main(["fit", str(CONFIGS / "finetune.yaml"), "--manifest", "my.csv", "--jobs", "1", *quick]) == 0
    card = capsys.readouterr().out
    assert "so no accuracy of theirs is given" in card
    results = json.loads(Path("runs/finetune/results.json").read_text())
    both = results["folds"]["emotion"]
    assert both["before"]["n"] == both["after"]["n"] == 12
    seen = [
        line
        for run in Path("runs/finetune/folds").iterdir()
        for line in (run / "predictions.csv").read_text().splitlines()[1:]
    ]
    assert sorted(line.split(",")[0] for line in seen) == sorted(f"my/{i}" for i in range(12))
