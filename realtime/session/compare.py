"""Two models on one session, side by side: a table and a picture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Column, Table

from dhmd.errors import extra
from dhmd.labels import EMOTIONS
from realtime.errors import DHMDLiveError
from realtime.recognition.engine import Inference

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PlotUnavailable(DHMDLiveError):
    """Raised when the plotting library is missing, or the picture cannot be written."""


@dataclass(slots=True)
class Comparison:
    """Recorded inferences beside those of another model; moments in which only one perceives anything are counted
    apart.

    end_s: in seconds of the recording. alone: how many moments those are.
    """

    end_s: list[float] = field(default_factory=list)
    recorded: list[Inference] = field(default_factory=list)
    replayed: list[Inference] = field(default_factory=list)
    alone: int = 0

    def add(self, end_s: float, recorded: Inference | None, replayed: Inference | None) -> None:
        if recorded is None or replayed is None:
            self.alone += recorded is not replayed
            return
        self.end_s.append(end_s)
        self.recorded.append(recorded)
        # Activations are not compared, and too many to be kept.
        self.replayed.append(replace(replayed, activations=None))

    def table(self, recorded: str, replayed: str) -> Table:
        """Return the comparison for a terminal. recorded, replayed: names of the models."""
        columns = (Column(name, justify="right") for name in (recorded, replayed, "difference"))
        table = Table("", *columns, title=f"{len(self.end_s)} moments", title_justify="left", header_style="bold")
        if self.end_s:
            one, other = _sentiment(self.recorded), _sentiment(self.replayed)
            apart = float(np.abs(one - other).mean())
            table.add_row("mean sentiment", f"{one.mean():+.2f}", f"{other.mean():+.2f}", f"{apart:.2f} apart")
            table.add_row("correlation of sentiment", "", "", _correlation(one, other))
            p, q = _emotions(self.recorded), _emotions(self.replayed)
            same = float((p.argmax(axis=1) == q.argmax(axis=1)).mean())
            table.add_row(
                "top emotion",
                f"{p.max(axis=1).mean():.2f} sure",
                f"{q.max(axis=1).mean():.2f} sure",
                f"{same:.0%} same",
            )
            for i, name in enumerate(EMOTIONS):
                a, b = p[:, i].mean(), q[:, i].mean()
                table.add_row(f"mean {name}", f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}")
        if self.alone:
            table.add_row("moments in which one perceives nothing", "", "", str(self.alone))
        return table

    def plot(self, path: Path, recorded: str, replayed: str) -> None:
        """Draw the sentiment of both, and the emotions of each, over the session.

        Raises PlotUnavailable, LibraryMissing.
        """
        with extra("export", "--plot"):
            from matplotlib.figure import Figure
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        top, *strips = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1.2, 1.2])
        for name, inferences, colour in ((recorded, self.recorded, "0.55"), (replayed, self.replayed, "tab:blue")):
            top.plot(self.end_s, _sentiment(inferences), color=colour, label=name)
        top.axhline(0, color="0.85", zorder=0)
        top.set(ylim=(-3, 3), ylabel="sentiment")
        top.legend(loc="upper right", frameon=False)
        for axes, name, inferences in zip(strips, (recorded, replayed), (self.recorded, self.replayed), strict=True):
            self._strip(axes, name, inferences)
        strips[-1].set_xlabel("seconds")
        try:
            figure.savefig(path, dpi=130)
        except (OSError, ValueError) as error:
            raise PlotUnavailable(f"--plot {path}: cannot be written ({error})") from None

    def _strip(self, axes: Axes, name: str, inferences: list[Inference]) -> None:
        if inferences:
            axes.pcolormesh(
                np.array(self.end_s), np.arange(len(EMOTIONS)), _emotions(inferences).T, vmin=0, vmax=1, cmap="Blues"
            )
        axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
        axes.set_title(name, loc="left", fontsize="medium")


def _sentiment(inferences: list[Inference]) -> NDArray[np.float64]:
    return np.array([one.sentiment.value for one in inferences])


def _emotions(inferences: list[Inference]) -> NDArray[np.float64]:
    return np.array([one.emotions for one in inferences])


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    if len(one) < 2 or not one.std() or not other.std():
        return "-"
    return f"{np.corrcoef(one, other)[0, 1]:.3f}"
