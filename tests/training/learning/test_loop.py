"""The loop on a small network: whatever interrupts it, its last files are whole and it goes on to the same curve."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich
import torch
from rich.console import Console
from safetensors.torch import load_file

from dhmd.checkpoint import write_atomically
from dhmd.modality import Modality
from dhmd.model import DHMD, SENTIMENT
from training.config import Network, PlateauOptimisation, Weights
from training.data.sequences import ShuffledBatches, Utterances
from training.errors import Diverged, RunDamaged, RunUnwritable
from training.evaluation.predict import predict_head
from training.learning import run_files
from training.learning.curves import FOLDER
from training.learning.loop import Trained, train
from training.learning.run_files import BEST, LOG, STATE, read_state

WIDTHS = {Modality.TEXT: 6, Modality.VISION: 4, Modality.AUDIO: 5}


def utterances(count: int = 20) -> Utterances:
    draw = np.random.default_rng(0)
    label = draw.uniform(-3, 3, count).astype(np.float32)
    inputs = {
        m: (label[:, None, None] + draw.standard_normal((count, 6, width))).astype(np.float32)
        for m, width in WIDTHS.items()
    }
    masks = {m: np.ones((count, 6), np.bool_) for m in Modality}
    return Utterances(tuple(map(str, range(count))), inputs, masks, label)


def minus_error(model: DHMD) -> tuple[float, dict[str, float]]:
    data = utterances()
    error = float(np.abs(predict_head(model, data.in_order(8), data.head)[0] - data.label).mean())
    return -error, {"mae": error}


def training(
    run: Path, validate: Callable[[DHMD], tuple[float, dict[str, float]]] = minus_error, **plan: Any
) -> Trained:
    run.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = DHMD(Network(d=8, attention_heads=2, layers=1, atoms=8).dhmd(WIDTHS, (SENTIMENT,)))
    settings = {"batch": 8, "accumulation": 2, "epochs": 3, "learning_rate": 1e-2} | plan
    source = ShuffledBatches(utterances(), settings["batch"], seed=0)
    return train(model, source, validate, PlateauOptimisation(**settings), Weights(), 0, run)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole")
    training(run)
    return run


def assert_the_same(run: Path, other: Path) -> None:
    for name in (LOG, BEST):
        assert (run / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("name", [BEST, STATE, LOG])
def test_a_full_disk_leaves_the_last_whole_files(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut"

    def no_room(descriptor: int) -> None:
        os.ftruncate(descriptor, 100)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path: Path, content: str | bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if path.name == name and (cut / LOG).exists():
                patch.setattr(os, "fsync", no_room)
            write_atomically(path, content)

    monkeypatch.setattr(run_files, "write_atomically", write)
    with pytest.raises(RunUnwritable, match=rf"{name}: No space left .* free some space, .* \(fit: with --resume\)"):
        training(cut)
    monkeypatch.undo()
    assert {path.name for path in cut.iterdir()} == {BEST, STATE, LOG, FOLDER}  # nothing half done lies about
    state = read_state(cut / STATE)
    assert state is not None
    assert len(state["log"]) == (2 if name == LOG else 1)
    assert load_file(cut / BEST).keys() == state["model"].keys()
    training(cut)
    assert_the_same(cut, whole)


def test_a_kill_while_the_state_is_written_leaves_the_last_one(whole: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    script = f"""
import importlib.util, os, pathlib, signal
import torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("test_loop", {__file__!r})
this = importlib.util.module_from_spec(spec)
spec.loader.exec_module(this)
replace = pathlib.Path.replace
def killed(self, target):
    if pathlib.Path(target).name == "state.pt" and (target.parent / "log.json").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
pathlib.Path.replace = killed
this.training(pathlib.Path({str(cut)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = read_state(cut / STATE)
    assert state is not None
    assert len(state["log"]) == 1
    training(cut)
    assert_the_same(cut, whole)


def test_a_damaged_state_is_named_with_what_to_do(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    training(run, epochs=1)
    content = (run / STATE).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no state"):
        (run / STATE).write_bytes(damaged)
        with pytest.raises(RunDamaged, match=r"state\.pt is damaged.*: delete it, and the same command") as raised:
            training(run)
        assert "\n" not in str(raised.value)
    torch.save({"model": {}}, run / STATE)
    with pytest.raises(RunDamaged, match=r"state\.pt is damaged"):
        training(run)
    (run / STATE).unlink()
    training(run)
    assert_the_same(run, whole)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    training(tmp_path, epochs=1)
    (tmp_path / BEST).write_bytes((tmp_path / BEST).read_bytes()[:1000])
    with pytest.raises(RunDamaged, match=r"best\.safetensors is damaged or missing"):
        training(tmp_path, epochs=1)


def test_a_run_that_diverges_says_when_and_keeps_what_was_before(tmp_path: Path) -> None:
    seen = []

    def worse(model: DHMD) -> tuple[float, dict[str, float]]:
        seen.append(minus_error(model))
        return (math.nan, {"mae": math.nan}) if len(seen) == 2 else seen[-1]

    with pytest.raises(Diverged, match=r"epoch 2: loss .*, validation nan: training diverged"):
        training(tmp_path, worse)
    state = read_state(tmp_path / STATE)
    assert state is not None
    assert len(state["log"]) == 1


def test_a_loss_that_is_no_number_ends_the_run_too(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="epoch 1: loss nan"):
        training(tmp_path, lambda _: (0.0, {}), learning_rate=math.inf)


def test_averaged_weights_are_what_is_measured_and_kept(tmp_path: Path) -> None:
    average: list[dict[str, torch.Tensor]] = []

    def validate(model: DHMD) -> tuple[float, dict[str, float]]:
        average.append({name: value.clone() for name, value in model.state_dict().items()})
        return float(len(average)), {}

    run, plan = tmp_path / "run", {"ema": 0.5, "batch": 20, "accumulation": 1}  # a step an epoch
    raw = []
    for epochs in (1, 2, 3):
        training(run, validate, epochs=epochs, **plan)
        state = read_state(run / STATE)
        assert state is not None
        raw.append(state["model"])
    for name, first in raw[0].items():
        second = 2 / 11 * first + 9 / 11 * raw[1][name]
        torch.testing.assert_close(average[0][name], first)
        torch.testing.assert_close(average[1][name], second)
        torch.testing.assert_close(average[2][name], 3 / 12 * second + 9 / 12 * raw[2][name])
    assert any(not torch.equal(average[2][name], weight) for name, weight in raw[2].items())
    best = load_file(run / BEST)
    assert all(torch.equal(best[name], weight) for name, weight in average[2].items())


def test_a_cut_run_with_averaged_weights_goes_on_to_the_same_curve(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    training(whole, ema=0.9)

    def interrupted(model: DHMD) -> tuple[float, dict[str, float]]:
        if (cut / LOG).exists():
            raise KeyboardInterrupt
        return minus_error(model)

    with pytest.raises(KeyboardInterrupt):
        training(cut, interrupted, ema=0.9)
    assert training(cut, ema=0.9).log == json.loads((whole / LOG).read_text())
    assert_the_same(cut, whole)


def test_tensorboard_shows_every_epoch_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def interrupted(model: DHMD) -> tuple[float, dict[str, float]]:
        if (tmp_path / LOG).exists():
            raise KeyboardInterrupt
        return minus_error(model)

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, interrupted)
    trained = training(tmp_path)
    events = EventAccumulator(str(tmp_path / FOLDER)).Reload()
    shown = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    terms = {"total", "task", "rec", "cyc", "mar", "ort", "homo", "hetero", "dict", "product"}
    measures = {"validation/score", "validation/mae", "seconds_per_step"}
    rates = {"rate/learning_rate", "rate/dictionary_learning_rate"}
    assert set(shown) == {f"loss/{term}" for term in terms} | measures | rates
    for tag, value in (
        ("loss/task", lambda entry: entry["losses"]["task"]),
        ("validation/score", lambda e: e["score"]),
    ):
        assert [step for step, _ in shown[tag]] == [1, 2, 3]
        assert [seen for _, seen in shown[tag]] == pytest.approx([value(entry) for entry in trained.log], rel=1e-6)
    assert shown["rate/learning_rate"][0] == (1, pytest.approx(1e-2))
    assert shown["rate/dictionary_learning_rate"][0] == (1, pytest.approx(1e-3))
    assert all(seconds > 0 for _, seconds in shown["seconds_per_step"])


def test_a_terminal_sees_the_epoch_step_loss_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=screen, force_terminal=True, width=120))
    training(tmp_path / "run", epochs=1)
    shown = screen.getvalue()
    assert "Epoch 1 of 1" in shown
    assert "3/3" in shown
    assert "steps/s" in shown
    assert "loss 1" in shown or "loss 2" in shown


def test_without_a_terminal_there_is_a_line_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training(tmp_path, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1", "epoch 2"]


def test_the_time_of_a_run_is_that_of_all_its_parts(tmp_path: Path) -> None:
    first = training(tmp_path, epochs=1).seconds
    assert training(tmp_path, epochs=1).seconds == first > 0
    assert training(tmp_path, epochs=2).seconds > first
