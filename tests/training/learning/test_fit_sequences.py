"""Published feature files train end to end: a planted signal is found, and a cut run goes on to the same curve."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dhmd.modality import Modality
from dhmd.model import SENTIMENT
from training.cli import main
from training.config import PlateauOptimisation, SequenceConfig, read_config
from training.data.batch import Batch
from training.data.items import Split
from training.data.sequences import ShuffledBatches
from training.learning.fit_sequences import _video

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SMALL = {"d": 8, "attention_heads": 2, "layers": 1, "atoms": 8, "text_dropout": 0.1, "output_dropout": 0.1}
FAST = {"accumulation": 1, "learning_rate": 5e-3, "epochs": 6}

Made = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def features(published: Made, tmp_path: Path) -> Callable[..., Path]:
    def make(kind: str, *count: int) -> Path:
        path = tmp_path / f"{kind}.pkl"
        path.write_bytes(pickle.dumps(published(kind, *count)))
        return path

    return make


def configuration(folder: Path, name: str, network: dict[str, Any] = SMALL, **optimisation: float) -> Path:
    """A shipped configuration, made small and quick."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    config["network"] |= network
    config["optimisation"] |= FAST | optimisation
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(("name", "kind"), [("mosi", "aligned"), ("mosei", "unaligned"), ("sims", "sims")])
def test_a_planted_signal_is_learned(name: str, kind: str, features: Callable[..., Path], tmp_path: Path) -> None:
    run, file = tmp_path / "run", features(kind)
    assert main(["fit", str(configuration(tmp_path, name)), "--features", str(file), "--run", str(run)]) == 0
    results, log = json.loads((run / "results.json").read_text()), json.loads((run / "log.json").read_text())
    with file.open("rb") as opened:
        label = pickle.load(opened)["test"]["regression_labels"]  # noqa: S301, made here
    assert results["test"]["corr"] > 0.6
    assert results["test"]["mae"] < 0.8 * np.abs(label - np.median(label)).mean()
    accuracies = {"acc2", "acc3", "acc5"} if kind == "sims" else {"acc2_has0", "acc2_non0", "acc7", "acc5"}
    f1 = {"f1"} if kind == "sims" else {"f1_has0", "f1_non0"}
    assert set(results["test"]) == set(results["validation"]) == {"mae", "corr"} | accuracies | f1
    assert results["data"]["utterances"] == {"train": 96, "validation": 48, "test": 48}
    assert results["seed"] == 1111
    assert set(results["versions"]) == {"dhmd", "python", "torch", "numpy"}
    assert (results["device"], results["processes"]) == ("cpu", 1)
    assert results["config"]["optimisation"]["learning_rate"] == 5e-3
    assert results["data"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    least = min(log, key=lambda entry: entry["validation"]["mae"])
    assert results["best_epoch"] == least["epoch"]
    assert results["validation"] == pytest.approx(least["validation"])


def test_a_cut_run_goes_on_to_the_same_curve(
    features: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = features("aligned", 40)
    argv = ["fit", str(configuration(tmp_path, "mosi", epochs=3, accumulation=2)), "--features", str(file), "--run"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*argv, str(whole)]) == 0
    epoch = ShuffledBatches.epoch

    def failing(self: ShuffledBatches, number: int) -> Iterator[Batch]:
        for index, batch in enumerate(epoch(self, number)):
            if (number, index) == (1, 1):
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(ShuffledBatches, "epoch", failing)
    assert main([*argv, str(cut)]) == 130
    monkeypatch.undo()
    assert len(json.loads((cut / "log.json").read_text())) == 1
    assert main([*argv, str(cut)]) == 1  # it would be overwritten
    assert main([*argv, str(cut), "--resume"]) == 0
    for name in ("log.json", "best.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    results = [json.loads((run / "results.json").read_text()) for run in (cut, whole)]
    assert all(result.pop("seconds") > 0 for result in results)
    assert results[0] == results[1]


def test_a_run_does_not_go_on_with_other_data(
    features: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["fit", str(configuration(tmp_path, "mosi", epochs=1)), "--run", str(tmp_path / "run")]
    assert main([*argv, "--features", str(features("aligned", 20))]) == 0
    assert main([*argv, "--features", str(features("unaligned", 20)), "--resume"]) == 1
    assert "another configuration" in capsys.readouterr().err


def test_what_to_train_on_must_fit_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(CONFIGS / "mosi.yaml")]) == 2
    assert "give it with --features FILE" in capsys.readouterr().err
    assert main(["fit", str(CONFIGS / "base.yaml"), "--features", "x.pkl"]) == 2
    assert "reads no --features" in capsys.readouterr().err
    assert main(["fit", str(CONFIGS / "mosi.yaml"), "--features", str(tmp_path / "x.pkl")]) == 1
    assert "x.pkl: cannot be read" in capsys.readouterr().err
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nfeatures: printed\n")
    assert main(["fit", str(wrong), "--features", "x.pkl"]) == 2
    assert (
        "line 2: 'features': input should be 'published', 'mosi-context', 'pairs' or 'composed'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["mosi", "mosei", "sims"])
def test_the_shipped_configurations_are_the_papers(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.yaml")
    assert isinstance(config, SequenceConfig)
    network, plan = config.network, config.optimisation
    assert (network.d, network.attention_heads, network.layers, network.atoms) == (50, 10, 4, 512)
    assert (plan.batch, plan.accumulation, plan.clip, plan.gradient_clip) == (16, 10, "batch", 0.6)
    assert plan.plateau is not None
    assert plan.patience > 2 * (plan.plateau + 1)
    assert (plan.learning_rate, plan.dictionary_learning_rate) == (1e-4, 1e-3)


def test_the_rate_is_halved_when_the_score_stands_still() -> None:
    plan = PlateauOptimisation(plateau=2)
    assert plan.rate(0, []) == 1
    assert plan.rate(9, [1, 2, 2, 1]) == 1
    assert plan.rate(9, [1, 2, 2, 1, 1]) == 0.5
    assert plan.rate(9, [1, 2, 2, 1, 1, 1, 1]) == 0.5
    assert plan.rate(9, [1, 2, 2, 1, 1, 1, 1, 1]) == 0.25
    assert plan.rate(9, [1, 2, 2, 1, 1, 3, 2, 2]) == 0.5


def test_an_epoch_holds_every_utterance_once_in_an_order_of_its_own(features: Callable[..., Path]) -> None:
    from training.data.published import read_published

    training = read_published(features("aligned", 40), SENTIMENT).splits[Split.TRAIN]
    source = ShuffledBatches(training, 16, seed=1)

    def order(epoch: int) -> np.ndarray:
        return np.concatenate([batch.inputs[Modality.AUDIO][:, 0].numpy() for batch in source.epoch(epoch)])

    assert len(source) == len(list(source.epoch(0))) == 3
    assert not np.array_equal(order(0), order(1))
    np.testing.assert_array_equal(order(1), order(1))
    for epoch in range(2):
        np.testing.assert_array_equal(
            np.sort(order(epoch), axis=0), np.sort(training.inputs[Modality.AUDIO][:, 0], axis=0)
        )


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_after_a_run_every_command_reads_it(
    published: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a researcher goes on: measured again, drawn, exported, compared, put in a table."""
    name, content = "urfunny", published("aligned", 16)
    for part in content.values():
        part["classification_labels"] = (part["regression_labels"] > 0).astype(np.int64)
        part["audio"][0, 0, 0] = -np.inf
    file, run = tmp_path / "humor.pkl", str(tmp_path / "run")
    file.write_bytes(pickle.dumps(content))
    config = str(configuration(tmp_path, name))
    fit = ["fit", config, "--features", str(file), "--epochs", "2", "--set", "network.atoms=6"]
    fit += ["--seeds", "1,2", "--run", run]
    with monkeypatch.context() as cut:
        cut.setattr("training.learning.fit_sequences.keep", interrupted)  # what the first seed says, never the second
        assert main(fit) == 130
    assert "(fit: with --resume) resumes from here" in capsys.readouterr().err
    assert main([*fit, "--resume"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("numbers of audio that are NaN or infinite count as 0: 3, utterances: 3") == 1
    assert shown.out.splitlines()[-1].split()[:2] == [name, "2"]
    assert main(["evaluate", "--checkpoint", run]) == 1
    one = f"{run}/1"
    assert f"holds several runs: name one of them, such as {one}" in capsys.readouterr().err
    results = json.loads(Path(one, "results.json").read_text())
    assert (results["epochs"], results["config"]["network"]["atoms"]) == (2, 6)

    assert main(["evaluate", "--checkpoint", one]) == 0
    told = json.loads(capsys.readouterr().out)["test"]
    assert told == results["test"]
    assert main(["plot", "--checkpoint", one, "--out", str(tmp_path / "figures")]) == 0
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert drawn >= {"edges", "activations", "features", "learning"}
    assert main(["export", "--checkpoint", one, "--format", "pt2", "--out", str(tmp_path / "exported")]) == 0
    assert main(["compare", one, f"{run}/2"]) == 0
    capsys.readouterr()
    for form in ("text", "markdown", "latex"):
        assert main(["table", f"DHMD={run}", f"one & only={one}", "--format", form]) == 0
        table = capsys.readouterr().out
        assert "one & only against DHMD:" in table
        assert "±" in table or r"\pm" in table
    assert main(["evaluate", "--checkpoint", one, "--manifest", "x"]) == 2
    file.unlink()
    assert main(["evaluate", "--checkpoint", one]) == 1
    assert "name the file with --features FILE" in capsys.readouterr().err


def test_a_change_on_the_command_line_is_checked_like_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["fit", str(CONFIGS / "mosi.yaml"), "--features", "x.pkl"]
    assert main([*argv, "--set", "network.heads=2"]) == 2
    assert "mosi.yaml, as changed: unknown key 'network.heads'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*argv, "--set", "network.d"])
    assert "is not KEY=VALUE" in capsys.readouterr().err


def test_words_through_an_encoder_that_learns_along(
    published: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A BERT made here, tiny and untrained, in a folder as the hub's are."""
    from transformers import BertConfig, BertModel

    tiny = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    torch.manual_seed(0)
    BertModel(tiny).save_pretrained(tmp_path / "bert")
    content, draw = published("aligned", 64), np.random.default_rng(0)
    for part in content.values():
        label = part["regression_labels"] > 0
        part["text_bert"][:, 0] = np.where(label[:, None], draw.integers(1, 10, (len(label), 50)), 20)
        for key in ("text", "audio", "vision"):
            part[key] = draw.standard_normal(part[key].shape).astype(np.float32)  # the words alone tell
        del part["text"]
    file, run = tmp_path / "tokens.pkl", tmp_path / "run"
    file.write_bytes(pickle.dumps(content))
    config = str(configuration(tmp_path, "mosi", epochs=8))
    argv = ["fit", config, "--features", str(file), "--set", "text=finetune", "--run", str(run)]
    argv += ["--set", "optimisation.encoder_learning_rate=0.005", "--set"]
    assert main([*argv, f"encoder={tmp_path / 'nowhere'}"]) == 1
    assert "give the folder of a BERT with --set encoder=FOLDER" in capsys.readouterr().err
    assert main([*argv, f"encoder={tmp_path / 'bert'}"]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["test"]["acc2_non0"] > 0.9
    before = load_file(tmp_path / "bert" / "model.safetensors")["embeddings.word_embeddings.weight"]
    after = load_file(run / "best.safetensors")["language_encoder.embeddings.word_embeddings.weight"]
    assert (after[1:21] - before[1:21]).abs().max() > 1e-3
    shutil.rmtree(tmp_path / "bert")
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(run)]) == 0
    assert json.loads(capsys.readouterr().out)["test"] == results["test"]
    content["test"]["text_bert"][0, 0, 0] = 30
    file.write_bytes(pickle.dumps(content))
    assert main(["evaluate", "--checkpoint", str(run)]) == 1
    assert "token ids up to 30, and the encoder knows 30" in capsys.readouterr().err
    del content["test"]["text_bert"]
    file.write_bytes(pickle.dumps(content))
    assert main(["evaluate", "--checkpoint", str(run)]) == 1
    assert "for `text: finetune` (else --set text=fixed), found nothing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["0h-zjBukYpk$_$4", "0h-zjBukYpk$_$12.5_14.0", "0h-zjBukYpk_4", "0h-zjBukYpk"])
def test_the_video_of_an_utterance_stands_for_who_speaks(name: str) -> None:
    assert _video(name) == "0h-zjBukYpk"


def test_a_run_that_would_stop_before_its_rate_is_halved_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["fit", str(CONFIGS / "mosi.yaml"), "--features", "x.pkl", "--set"]
    assert main([*argv, "optimisation.patience=10"]) == 2
    assert (
        "mosi.yaml, as changed: optimisation: it would stop after 10 epochs, before `plateau` halves the rate after 11"
        in capsys.readouterr().err
    )
    assert main([*argv, "optimisation.plateau=null"]) == 1  # there is no such file
