"""Two processes under torchrun come to the curve of one."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dhmd.modality import Modality
from training.cli import main
from training.data.batch import Batch, Labels
from training.learning.gather import share

CONFIG: dict[str, Any] = {
    "name": "two",
    "features": "published",
    "network": {
        "d": 8,
        "attention_heads": 2,
        "layers": 1,
        "atoms": 8,
        "text_dropout": 0,
        "embedding_dropout": 0,
        "output_dropout": 0,
        "residual_dropout": 0,
    },
    # The clip is low, so that the scale of the gradients tells too, which Adam alone would not feel.
    "optimisation": {"batch": 7, "accumulation": 2, "epochs": 2, "learning_rate": 1e-3, "gradient_clip": 0.02},
}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_two_processes_have_the_curve_of_one(published: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    config, file = tmp_path / "two.yaml", tmp_path / "features.pkl"
    config.write_text(yaml.safe_dump(CONFIG))
    file.write_bytes(pickle.dumps(published("aligned", 36)))  # shares are uneven, and the last batch is one utterance
    argv = ["fit", str(config), "--features", str(file), "--run"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    two = subprocess.run(
        [*launch, "--master-port", str(free_port()), "-m", "--", "training", *argv, str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("epoch 1:") == two.stdout.count("results: ") == 1  # one of them speaks
    assert main([*argv, str(tmp_path / "one")]) == 0

    one_log, two_log = (json.loads((tmp_path / run / "log.json").read_text()) for run in ("one", "two"))
    assert len(one_log) == len(two_log) == 2
    for alone, shared in zip(one_log, two_log, strict=True):
        assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert shared["score"] == pytest.approx(alone["score"], rel=1e-4)
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["processes"] == 2


def test_shares_are_equally_large_and_hold_every_sample() -> None:
    def shares(count: int, world: int) -> list[list[int]]:
        inputs = {m: torch.arange(count)[:, None, None].expand(count, 2, 1) for m in Modality}
        batch = Batch(inputs, {m: torch.ones(count, 2, dtype=torch.bool) for m in Modality}, Labels({}))
        return [share(batch, rank, world)[0][Modality.AUDIO][:, 0, 0].tolist() for rank in range(world)]

    assert shares(4, 2) == [[0, 1], [2, 3]]
    assert shares(7, 3) == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert shares(1, 2) == [[0], [0]]
