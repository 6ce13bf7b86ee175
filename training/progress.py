"""Bars of long work: how much is done, how many a second, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")


def bar(unit: str, *told: ProgressColumn, hidden: bool = False, transient: bool = False) -> Progress:
    """A bar whose rate is given in a unit, such as `files`. told: columns before the rate. hidden: draw nothing."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *told,
        _Rate(unit),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=get_console(),
        transient=transient,
        disable=hidden,
    )


def followed(
    items: Iterable[T], what: str, unit: str, total: int | None = None, *, hidden: bool = False
) -> Iterator[T]:
    """Yield each item, and draw how far that is. total: of items, where they do not tell it themselves."""
    count = len(items) if total is None and isinstance(items, Sized) else total
    with bar(unit, hidden=hidden) as progress:
        yield from progress.track(items, count, description=what)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{'-' if rate is None else f'{rate:.1f}'} {self._unit}/s")
