"""Progress of an epoch: on a terminal a bar with the step, the loss and the steps a second."""

from __future__ import annotations

import time
from typing import Final, Self

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

_LOSS_EVERY_S: Final = 0.5
"""Reading the loss waits for the GPU."""


class EpochProgress:
    """Draws nothing where there is no terminal, or where `shown` is false."""

    def __init__(self, epoch: int, epochs: int, steps: int, *, shown: bool) -> None:
        console = get_console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            _StepsPerSecond(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
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


class _StepsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("- steps/s" if task.speed is None else f"{task.speed:.1f} steps/s")
