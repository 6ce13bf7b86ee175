"""A table of methods: mean and spread of the field's measures over the runs of each, and tests against the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from dhmd.untrusted import read_json_object
from training.data.items import Split
from training.errors import PredictionsInvalid
from training.evaluation.compare import compare
from training.evaluation.predictions import Said, measures

Format = Literal["text", "markdown", "latex"]
Methods = Sequence[tuple[str, Sequence[Said]]]
_ESCAPED: Final = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"})


def limit_of(where: Path) -> int:
    """The scale of the sentiment of a run, or of the runs below a folder: 1 for CH-SIMS, else 3."""
    for results in sorted(where.rglob("results.json")) if where.is_dir() else ():
        try:
            return 1 if read_json_object(results)["config"].get("limit") == 1 else 3
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return 3


def summary(methods: Methods, kind: Format, limit: int) -> str:
    """The table of the test split, and below it the differences from the first method, each with its p.

    Raises PredictionsInvalid where methods tell of different utterances.
    """
    found = [[measures(run.of(Split.TEST), limit) for run in runs] for _, runs in methods]
    names = [name for name, value in found[0][0].items() if isinstance(value, float)]
    rows = [["", "runs", *names]]
    for (method, runs), each in zip(methods, found, strict=True):
        cells = [np.array([one[name] for one in each]) for name in names]
        rows.append([method, str(len(runs)), *(_spread(cell, kind) for cell in cells)])
    return "\n".join([_laid_out(rows, kind), *_tests(methods, kind)])


def _spread(values: np.ndarray, kind: Format) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}"
    mean, spread = f"{values.mean():.4f}", f"{values.std(ddof=1):.4f}"
    return f"${mean} \\pm {spread}$" if kind == "latex" else f"{mean} ± {spread}"


def _laid_out(rows: Sequence[Sequence[str]], kind: Format) -> str:
    if kind == "markdown":
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        cells.insert(1, ["---"] * len(rows[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    if kind == "latex":
        head, *body = [[row[0].translate(_ESCAPED), *row[1:]] for row in rows]
        head = [cell.translate(_ESCAPED) for cell in head]
        lines = [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\hline", f"{' & '.join(head)} \\\\", "\\hline"]
        return "\n".join([*lines, *(f"{' & '.join(row)} \\\\" for row in body), "\\hline", "\\end{tabular}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _tests(methods: Methods, kind: Format) -> list[str]:
    lines = []
    (first, runs), *others = methods
    for name, other in others:
        try:
            compared = compare(other, runs, Split.TEST)
        except PredictionsInvalid as error:
            raise PredictionsInvalid(f"{name} (A) and {first} (B): {error}") from None
        told = [
            f"{measure} {one.a - one.b:+.4f} (p {one.p['clips']:.4f} over clips, {one.p['speakers']:.4f} over speakers)"
            for measure, one in compared.measures.items()
        ]
        lines.append(f"{'% ' if kind == 'latex' else ''}{name} against {first}: {'; '.join(told)}")
    return ["", *lines] if lines and kind == "markdown" else lines
