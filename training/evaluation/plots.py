"""Figures of a checkpoint as in the paper: graphs, dictionaries, confusion, learning, reliability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.checkpoint import Checkpoint, subset_name
from dhmd.errors import DHMDError, extra
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.model import DHMD, EMOTION, SENTIMENT, Head
from dhmd.untrusted import read_json
from training.data.compose import Sample
from training.data.items import Example
from training.data.sequences import Utterances
from training.errors import TooLittleData
from training.evaluation.evaluate import by_corpus, composed, predictions, present, recorded
from training.evaluation.metrics import Reliability, emotion_metrics, reliability
from training.evaluation.observe import BEFORE, Observations, Space, by_emotion, observe
from training.evaluation.predict import BATCH, batches, predict
from training.evaluation.predictions import Said
from training.rivals import Learnable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Final[Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "dhmd",  # the same figure is the same file
}
WIDTH_IN: Final = 8.0
COLOURS: Final = ("#555555", "#e69f00", "#0072b2", "#d55e00", "#cc79a7", "#009e73", "#56b4e9", "#882255")
"""Told apart by all kinds of colour vision (Okabe and Ito 2008; wine of Tol 2021)."""
MARKERS: Final = "osv^DPX"
LINES: Final = (":", "--", "-")
"""By the number of modalities."""


class FiguresUnavailable(DHMDError):
    """matplotlib is missing, or what a figure is to show is not there or not readable."""


def plot(
    checkpoint: Checkpoint, examples: Sequence[Example], log: Sequence[Mapping[str, Any]] | None, out: Path
) -> list[Path]:
    """Draw all figures into the folder `out`, each as PNG and SVG; returns the files.

    examples: of the test split. Where no windows of several emotions can be composed of them, each is drawn as it was
    recorded. log: of the run that made the checkpoint (`read_log`), for its learning curves.
    A network without dictionaries has no figure of activations. Raises TooLittleData.
    """
    head, windows, shown = _windows(checkpoint, examples)
    observations = observe(checkpoint.model, batches(windows), head)
    measured = by_corpus(checkpoint, examples)
    confusions = {
        f"{corpus}, {entry['modalities']} alone": np.array(entry["emotion"]["confusion"])
        for corpus, entry in measured.items()
        if "emotion" in entry
    }
    sure = {}
    for subset, own in shown.items():
        said = predict(checkpoint.model, batches(own, subset))
        probabilities = said.probabilities(checkpoint.calibration.temperature.get(subset_name(subset), 1.0))
        sure[subset_name(subset)] = reliability(probabilities, said.emotion_label)
        if own is windows and len(subset) == len(Modality):
            confusion = emotion_metrics(probabilities, said.emotion_label)["confusion"]
            confusions["composed, all three"] = np.array(confusion)
    with drawing():
        figures = {"edges": edges_figure(observations)}
        if sure:
            figures |= {"confusion": confusion_figure(confusions), "reliability": reliability_figure(sure)}
        figures["features"] = features_figure(observations)
        for one in predictions(checkpoint, examples):
            if one.head not in {EMOTION.name, SENTIMENT.name} or not sure:
                figures |= {f"{kind}-{one.head}": figure for kind, figure in _figures_of(one).items()}
        if checkpoint.model.config.dictionary:
            figures["activations"] = activations_figure(observations)
        if log is not None:
            figures["learning"] = learning_figure(log)
        return [path for name, figure in figures.items() for path in _save(figure, out, name)]


def _windows(
    checkpoint: Checkpoint, examples: Sequence[Example]
) -> tuple[Head, list[Sample], dict[frozenset[Modality], list[Sample]]]:
    """What is drawn: the head by whose labels windows are grouped, the windows, and those in which only a set of
    modalities is shown, of emotions."""
    windows = composed(checkpoint, examples)
    if len({window.emotion for window in windows}) > 1:
        return EMOTION, windows, dict.fromkeys((*(frozenset({m}) for m in Modality), frozenset(Modality)), windows)
    head, windows = recorded(checkpoint, examples)
    if not windows:
        raise TooLittleData("nothing to draw: no labelled utterance shows anything; name others with --manifest")
    shown: dict[frozenset[Modality], list[Sample]] = {}
    for window in windows if head is EMOTION else ():
        shown.setdefault(present(window), []).append(window)
    return head, windows, shown


def plot_sequences(
    model: Learnable, utterances: Utterances, said: Said, log: Sequence[Mapping[str, Any]], out: Path
) -> list[Path]:
    """Draw the figures of a run on a file of features into the folder `out`; returns the files.

    utterances: of the test split, and what was said of them. A rival of DHMD has no spaces to look into.
    """
    with drawing():
        figures = {"learning": learning_figure(log)}
        figures |= _figures_of(said)
        if isinstance(model, DHMD):
            seen = observe(model, utterances.in_order(BATCH), utterances.head)
            figures["edges"] = edges_figure(seen)
            figures["features"] = features_figure(seen)
            if model.config.dictionary:
                figures["activations"] = activations_figure(seen)
        return [path for name, figure in figures.items() for path in _save(figure, out, name)]


def _figures_of(said: Said) -> dict[str, Figure]:
    """By kind, what shows how near that is to the labels."""
    if not said.classes:
        return {"scatter": scatter_figure(said)}
    label = said.label.astype(np.int64)
    counts = np.array(emotion_metrics(said.said, label)["confusion"])
    return {
        "confusion": confusion_figure({said.corpus[0]: counts}, said.classes),
        "reliability": reliability_figure({said.head: reliability(said.said, label)}),
    }


def read_log(run: Path) -> list[dict[str, Any]]:
    """The log that `fit` keeps of a run."""
    path = run / "log.json"
    try:
        log: list[dict[str, Any]] = read_json(path, largest=2**26)
    except (OSError, ValueError) as error:
        raise FiguresUnavailable(f"{path}: {error}; give the folder of a run with --run") from error
    if not log:
        raise FiguresUnavailable(f"{path}: no epoch is finished; let the run continue first")
    return log


def require_matplotlib() -> None:
    """Raise LibraryMissing without it."""
    with extra("train", "dhmd-train plot"):
        import matplotlib as mpl  # noqa: F401


@contextmanager
def drawing() -> Iterator[None]:
    """Our style, for what is drawn inside. Raises LibraryMissing without matplotlib."""
    require_matplotlib()
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def edges_figure(seen: Observations) -> Figure:
    """Mean and deviation of every edge's weight for each emotion, one panel a space."""
    figure, panels = _panels(2, 1, height_in=5.2, sharex=True)
    spread = np.linspace(-0.3, 0.3, len(seen.names))
    for axes, space in zip(panels, Space, strict=True):
        mean, deviation = by_emotion(seen.edges[space], seen.emotion, len(seen.names))
        axes.axhline(1 / len(EDGES), color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for c, name in enumerate(seen.names):
            if np.isnan(mean[c]).any():
                continue
            axes.errorbar(
                np.arange(len(EDGES)) + spread[c],
                mean[c],
                yerr=deviation[c],
                fmt=MARKERS[c % len(MARKERS)],
                color=COLOURS[c % len(COLOURS)],
                markersize=4.5,
                elinewidth=1.2,
                label=name,
            )
        axes.set_title(f"{space} space", loc="left")
        axes.set_ylabel("weight of the edge")
        axes.set_ylim(bottom=-0.02)
        for between in np.arange(len(EDGES) - 1) + 0.5:
            axes.axvline(between, color="#e4e4e4", linewidth=0.8, zorder=0)
    panels[-1].set_xticks(range(len(EDGES)), [f"{e.source} → {e.target}" for e in EDGES])
    panels[-1].set_xlim(-0.5, len(EDGES) - 0.5)
    panels[-1].set_xlabel(
        f"edge, teacher → learner (mean ± standard deviation, {len(seen.emotion)} windows; dashed: equal shares)"
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(seen.names), 7))
    return figure


def activations_figure(seen: Observations) -> Figure:
    """Mean activation of every atom that answers at all, for each modality and emotion, one panel a space.

    Atoms stand in the order of the rows they answer to most.
    """
    figure, panels = _panels(2, 1, height_in=6.8)
    for axes, space in zip(panels, Space, strict=True):
        rows = np.concatenate(
            [by_emotion(seen.activations[space][m], seen.emotion, len(seen.names))[0] for m in Modality]
        )
        atoms = rows.shape[1]
        strength, answers_to = np.nanmax(rows, axis=0), np.nan_to_num(rows).argmax(axis=0)
        order = np.lexsort((-strength, answers_to))
        order = order[strength[order] > 0]
        image = axes.imshow(rows[:, order], cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(rows)), list(seen.names) * len(Modality), fontsize=7.5)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for i, m in enumerate(Modality):
            middle = (i + 0.5) * len(seen.names) - 0.5
            axes.annotate(m, (-0.1, middle), xycoords=("axes fraction", "data"), rotation=90, ha="center", va="center")
            if i:
                axes.axhline(i * len(seen.names) - 0.5, color="white", linewidth=2)
        axes.set_title(f"{space} space", loc="left")
        axes.set_xlabel(f"the {len(order)} of {atoms} atoms that answer, by the row that they answer to most")
        figure.colorbar(image, ax=axes, label="mean activation", pad=0.01, fraction=0.04)
    return figure


def features_figure(seen: Observations) -> Figure:
    """The modalities' features before decoupling and in both spaces, each on its own two main axes (PCA)."""
    figure, panels = _panels(1, 1 + len(Space), height_in=3.1)
    for axes, (stage, features) in zip(panels, seen.features.items(), strict=True):
        rows = np.concatenate([features[m] for m in Modality])
        there = np.isfinite(rows).all(axis=1)
        of = np.repeat(np.arange(len(Modality)), len(seen.emotion))[there]
        centred = rows[there] - rows[there].mean(axis=0)
        _, strength, directions = np.linalg.svd(centred, full_matrices=False)
        flat = centred @ directions[:2].T
        for i, m in enumerate(Modality):
            axes.scatter(
                flat[of == i, 0], flat[of == i, 1], s=7, alpha=0.5, linewidths=0, color=COLOURS[i + 1], label=m
            )
        axes.set_title(str(stage) if stage == BEFORE else f"{stage} space", loc="left")
        share = (strength[:2] ** 2).sum() / (strength**2).sum()
        axes.set_xlabel(f"main axes (PCA): {100 * share:.0f} % of the spread")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(Modality))
    return figure


def scatter_figure(said: Said) -> Figure:
    """What was said of each utterance by what it is labelled with."""
    figure, (axes,) = _panels(1, 1, height_in=5.0)
    ends = [min(said.label.min(), said.said.min()), max(said.label.max(), said.said.max())]
    axes.plot(ends, ends, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.scatter(said.label, said.said, s=9, alpha=0.5, linewidths=0, color=COLOURS[2])
    axes.set_xlabel(f"labelled {said.head} ({len(said.ids)} utterances; dashed: as labelled)")
    axes.set_ylabel(f"estimated {said.head}")
    return figure


def confusion_figure(confusions: Mapping[str, NDArray[np.int64]], names: Sequence[str] = EMOTIONS) -> Figure:
    """Shows for each test what the labelled emotions were taken for, in per cent of the label; counts are (7, 7)."""
    columns = min(3, len(confusions))
    rows = -(-len(confusions) // columns)
    figure, panels = _panels(rows, columns, height_in=3.05 * rows)
    for axes, (name, counts) in zip(panels, confusions.items(), strict=False):
        support = counts.sum(axis=1, keepdims=True)
        share = np.where(support > 0, 100 * counts / np.maximum(support, 1), np.nan)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axes.set_facecolor("#eeeeee")
        for (i, j), value in np.ndenumerate(share):
            if value >= 0.5:
                axes.text(
                    j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if value > 55 else "black"
                )
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0, labelsize=7.5)
        axes.spines[:].set_visible(False)
        recall = np.nanmean(share.diagonal())
        axes.set_title(f"{name}\n{counts.sum()} windows, mean recall {recall:.0f} %", fontsize=8.5)
    for axes in panels[len(confusions) :]:
        axes.set_axis_off()
    for axes in panels[: len(confusions) : columns]:
        axes.set_ylabel("labelled")
    figure.supxlabel("estimated (numbers: % of the windows with that label; grey: no such label)", fontsize=9)
    return figure


def learning_figure(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Terms of the loss, and scores on validation, by epoch; the kept epoch is marked."""
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = _panels(1, 2, height_in=4.4)
    epochs = [entry["epoch"] for entry in log]
    best = max(log, key=lambda entry: float(entry["score"]))
    for i, name in enumerate(log[0]["losses"]):
        whole = name == "total"
        left.plot(
            epochs,
            [entry["losses"][name] for entry in log],
            color="black" if whole else COLOURS[i % len(COLOURS)],
            linewidth=2 if whole else 1.3,
            label=name,
        )
    left.set_yscale("log")
    left.set_ylabel("loss in training (terms before weighting)")
    for i, name in enumerate(log[0]["validation"]):
        right.plot(
            epochs,
            [entry["validation"][name] for entry in log],
            color=COLOURS[i % len(COLOURS)],
            linestyle=LINES[min(name.count("+"), 2)],
            linewidth=1.5,
            label=f"{name} (r)" if name.endswith("sentiment") else name,
        )
    right.plot(epochs, [entry["score"] for entry in log], color="black", linewidth=2, label="score")
    if log[0]["score"] >= 0:
        right.set_ylim(0, 1)
        right.set_ylabel("validation: unweighted recall; correlation r")
    else:
        right.set_ylabel("validation: the field's measures")
    for axes in (left, right):
        axes.axvline(best["epoch"], color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set_xlabel(f"epoch (dashed: the kept one, {best['epoch']})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8)
    return figure


def reliability_figure(sure: Mapping[str, Reliability]) -> Figure:
    """Accuracy of the estimate by how sure it was, one panel a set of modalities, with the share of windows."""
    figure, panels = _panels(1, len(sure), height_in=2.7, sharey=True)
    for axes, (name, bins) in zip(panels, sure.items(), strict=True):
        width = 1 / len(bins.share)
        left = np.arange(len(bins.share)) * width
        axes.bar(left, bins.share, width, align="edge", color="#c8c8c8", label="share of windows")
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), label="as sure as right")
        some = bins.share > 0
        axes.plot(
            bins.confidence[some],
            bins.accuracy[some],
            "o-",
            color=COLOURS[2],
            markersize=4,
            clip_on=False,
            label="accuracy",
        )
        axes.set_title(f"{name.replace('+', ' + ')}\ncalibration error {bins.calibration_error:.3f}", fontsize=8.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks([0, 0.5, 1])
        axes.set_xlabel("confidence")
    panels[0].set_ylabel("accuracy; share of windows")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _panels(
    rows: int, columns: int, *, height_in: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of our width without any window or global state, and its panels row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(files[0])
    figure.savefig(files[1], metadata={"Date": None})
    return files
