"""Cost of the model by itself, beside what its arithmetic would cost as one large matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dhmd.checkpoint import load
from dhmd.machine import cores
from dhmd.modality import Modality
from dhmd.model import DHMD, Readout
from dhmd.prediction import Predictor
from dhmd.yardstick import PAPER, PAPER_STEPS, PRODUCT_OPERATIONS, product
from realtime.bench.row import Row
from realtime.memory import keep_freed_memory
from realtime.recognition.engine import MOST_AT_ONCE, Windows, captured, traced

BATCHES: Final = (8, 64, 256)
GPU_BATCH: Final = 256
ROUNDS: Final = 9
ROUND_S: Final = 0.3


@dataclass(slots=True)
class Figure:
    """A piece of work, and how long it took in each round. count: windows, or products, in it."""

    work: Callable[[], object]
    count: int = 1
    seconds: list[float] = field(default_factory=list)

    @torch.inference_mode()
    def once(self) -> None:
        self.work()

    def measure(self) -> None:
        repeats, begun_s = 0, time.perf_counter()
        while (lasted_s := time.perf_counter() - begun_s) < ROUND_S or not repeats:
            self.once()
            repeats += 1
        self.seconds.append(lasted_s / repeats / self.count)

    @property
    def each_s(self) -> float:
        return median(self.seconds)

    @property
    def spread_s(self) -> tuple[float, float]:
        """Quartiles."""
        low, _, high = quantiles(self.seconds, n=4)
        return low, high


def model_rows() -> list[Row]:
    """Measure the paper's sizes with random weights, and the checkpoint that ships. Leaves torch with one thread.

    The figures take turns, so that what else runs on the machine falls on all of them alike.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()  # as servers do
    base = load("base")
    steps = {m: spec.steps for m, spec in base.features.items()}
    rows = _products()
    rows += _rows("the paper's sizes", DHMD(PAPER).eval(), PAPER_STEPS, ("<= 6 ms with AMX, <= 9 ms", ">= 400 /s"))
    rows += _rows("base", base.model, steps, ("", ""))
    if torch.cuda.is_available():
        rows += _gpu_rows("the paper's sizes", DHMD(PAPER).eval(), PAPER_STEPS) + _gpu_rows("base", base.model, steps)
    return rows


def _products() -> list[Row]:
    rows = []
    for kind in (torch.float32, torch.bfloat16):
        figure = Figure(product(kind))
        for _ in range(ROUNDS):
            figure.measure()
        low, high = figure.spread_s
        rates = [_gflops(seconds) for seconds in (figure.each_s, high, low)]
        name = str(kind).removeprefix("torch.")
        rows.append((f"matrix product, one thread, {name}", "{:.0f} GFLOP/s ({:.0f} to {:.0f})".format(*rates), ""))
    return rows


def _gflops(seconds: float) -> float:
    return PRODUCT_OPERATIONS / seconds / 1e9


@torch.inference_mode()
def _rows(name: str, model: DHMD, steps: dict[Modality, int], aims: tuple[str, str]) -> list[Row]:
    one = _windows(model, steps, 1)
    readout, predictor = Readout(model).eval(), Predictor(model, steps).eval()
    with FlopCounterMode(display=False) as counter:
        readout(*one)
    operations = counter.get_total_flops()
    fast = traced(predictor, one)
    threads = cores()
    with ThreadPoolExecutor(threads) as pool:
        alone = Figure(product())
        each_thread = [Figure(product()) for _ in range(threads)]
        products = Figure(lambda: list(pool.map(Figure.once, each_thread)), threads)
        training, single = Figure(lambda: readout(*one)), Figure(lambda: fast(*one))
        many = [Figure(_in_parallel(predictor, _windows(model, steps, batch), pool), batch) for batch in BATCHES]
        training_many = Figure(_in_parallel(readout, _windows(model, steps, 64), pool), 64)
        for _ in range(ROUNDS):
            for figure in (alone, products, training, single, training_many, *many):
                figure.measure()
    limit_s, limit_many_s = (operations / 1e9 / _gflops(each.each_s) for each in (alone, products))
    low, high = (1000 * seconds for seconds in single.spread_s)
    rows = [
        (f"{name}: arithmetic of a window", f"{operations / 1e9:.3f} GFLOP", ""),
        (
            f"{name}: a window alone, one thread",
            f"{1000 * single.each_s:.1f} ms ({low:.1f} to {high:.1f}), {limit_s / single.each_s:.2f} of the limit",
            aims[0],
        ),
        (
            f"{name}: the same by the training path",
            f"{1000 * training.each_s:.1f} ms, {training.each_s / single.each_s:.1f} times as long",
            "",
        ),
    ]
    for batch, figure in zip(BATCHES, many, strict=True):
        low, high = (1 / seconds for seconds in reversed(figure.spread_s))
        measured = (
            f"{1 / figure.each_s:.0f} /s ({low:.0f} to {high:.0f}), {limit_many_s / figure.each_s:.2f} of the limit"
        )
        rows.append(
            (f"{name}: windows in batches of {batch}, {threads} threads", measured, aims[1] if batch == 64 else "")
        )
    slower = training_many.each_s / many[BATCHES.index(64)].each_s
    rows.append(
        (
            f"{name}: batches of 64 by the training path",
            f"{1 / training_many.each_s:.0f} /s, {slower:.1f} times as long",
            "",
        )
    )
    return rows


def _gpu_rows(name: str, model: DHMD, steps: dict[Modality, int]) -> list[Row]:
    device = torch.device("cuda")
    predictor = Predictor(model, steps).to(device).eval()

    def figure(batch: int) -> Figure:
        windows = tuple(each.to(device) for each in _windows(model, steps, batch))
        run = captured(predictor, windows)

        def work() -> None:
            run(*windows)
            torch.cuda.synchronize()

        return Figure(work, batch)

    single, many = figure(1), figure(GPU_BATCH)
    for _ in range(ROUNDS):
        single.measure()
        many.measure()
    low, high = (1000 * seconds for seconds in single.spread_s)
    least, most = (1 / seconds for seconds in reversed(many.spread_s))
    return [
        (f"{name}: a window alone, GPU", f"{1000 * single.each_s:.2f} ms ({low:.2f} to {high:.2f})", "<= 0.5 ms"),
        (
            f"{name}: windows in batches of {GPU_BATCH}, GPU",
            f"{1 / many.each_s:.0f} /s ({least:.0f} to {most:.0f})",
            ">= 40000 /s",
        ),
    ]


def _windows(model: DHMD, steps: dict[Modality, int], batch: int) -> Windows:
    """Random windows without gaps."""
    inputs = [torch.randn(batch, steps[m], model.config.modalities[m].width) for m in Modality]
    return (*inputs, *(torch.ones(batch, steps[m], dtype=torch.bool) for m in Modality))


def _in_parallel(predict: Callable[..., Tensor], windows: Windows, pool: ThreadPoolExecutor) -> Callable[[], object]:
    """Cut a batch up as `Engine.infer_many` does, on all cores."""
    most = MOST_AT_ONCE["cpu"]
    parts: Sequence[Windows] = [tuple(each[i : i + most] for each in windows) for i in range(0, len(windows[0]), most)]

    def run(part: Windows) -> Tensor:
        with torch.inference_mode():
            return predict(*part)

    return lambda: list(pool.map(run, parts))
