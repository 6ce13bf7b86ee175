"""The curves of a run for TensorBoard: `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dhmd.errors import extra
from training.learning.run_files import unwritable

FOLDER: Final = "tensorboard"


class Curves:
    """Every term of the loss, the validation, the rates and the time of a step, by epoch."""

    def __init__(self, run: Path, epochs: int) -> None:
        """epochs: how many the run is known to have; points of later ones, from before a cut, are dropped."""
        with extra("train", "dhmd-train fit"):
            from torch.utils.tensorboard import SummaryWriter
        self._folder = run / FOLDER
        self._writer = SummaryWriter(self._folder, purge_step=epochs + 1)

    def add(self, entry: Mapping[str, Any], rates: Mapping[str, float], step_s: float) -> None:
        """entry: of the log. Raises RunUnwritable."""
        scalars = {f"loss/{name}": value for name, value in entry["losses"].items()}
        scalars |= {f"validation/{name}": value for name, value in entry["validation"].items()}
        scalars |= {f"rate/{name}": value for name, value in rates.items()}
        scalars |= {"validation/score": entry["score"], "seconds_per_step": step_s}
        try:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, entry["epoch"])
            self._writer.flush()
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def close(self) -> None:
        self._writer.close()
