"""Progress of an epoch: on a terminal a bar with the step, the loss and the steps a second."""

from __future__ import annotations

import time
from typing import Final, Self

from rich import get_console
from rich.progress import TextColumn
from torch import Tensor

from training.progress import bar

_LOSS_EVERY_S: Final = 0.5
"""Reading the loss waits for the GPU."""


class EpochProgress:
    """Draws nothing where there is no terminal, or where `shown` is false."""

    def __init__(self, epoch: int, epochs: int, steps: int, *, shown: bool) -> None:
        hidden = not (shown and get_console().is_terminal)
        self._progress = bar("steps", TextColumn("loss {task.fields[loss]}"), hidden=hidden, transient=True)
        self._task = self._progress.add_task(f"Epoch {epoch} of {epochs}", total=steps, loss="-")
        self._read_s = -_LOSS_EVERY_S

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, loss: Tensor) -> None:
        """One more batch is done. loss: ()."""
        self._progress.advance(self._task)
        now_s = time.monotonic()
        if not self._progress.disable and now_s - self._read_s >= _LOSS_EVERY_S:
            self._read_s = now_s
            self._progress.update(self._task, loss=f"{loss.item():.3f}")
