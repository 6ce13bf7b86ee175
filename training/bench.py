"""Time of a training step on this machine, beside the time its arithmetic alone would take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dhmd import yardstick
from dhmd.modality import Modality
from dhmd.model import DHMD, SENTIMENT
from training.config import Network, PlateauOptimisation, SequenceConfig
from training.data.batch import Labels
from training.learning import losses

PAPER: Final = SequenceConfig(
    name="paper",
    features="published",
    optimisation=PlateauOptimisation(clip="batch"),
    network=Network(
        kernels={m: one.kernel for m, one in yardstick.PAPER.modalities.items()},
        attention_dropout={m: one.attention_dropout for m, one in yardstick.PAPER.modalities.items()},
        **{name: value for name, value in yardstick.PAPER.to_dict().items() if name in Network.model_fields},
    ),
)
"""A run with the constants of the DHMD paper for CMU-MOSI, as in configs/mosi.yaml."""

PUBLISHED_WIDTHS: Final = {m: one.width for m, one in yardstick.PAPER.modalities.items()}
WARM_UP: Final = 3


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Times of steps. seconds, cpu_seconds: of each, on the clock and on all cores together. operations: floating-point
    operations of a step's products, forward and backward. rate: such operations a second, of a large matrix product
    between the steps, median."""

    threads: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    operations: int
    rate: float

    @property
    def limit(self) -> float:
        """Seconds that the products of a step would take at the rate of the large one."""
        return self.operations / self.rate

    def __str__(self) -> str:
        low, median, high = statistics.quantiles(self.seconds, n=4)
        return (
            f"step {median:.3f} s (quartiles {low:.3f} to {high:.3f}, {len(self.seconds)} steps, "
            f"{self.threads} thread(s)), {statistics.median(self.cpu_seconds):.3f} s of CPU; "
            f"{self.operations / 1e9:.1f} GFLOP at {self.rate / 1e9:.0f} GFLOP/s: limit {self.limit:.3f} s, "
            f"{median / self.limit:.1f} times that"
        )


def time_step(
    config: SequenceConfig, widths: Mapping[Modality, int] = PUBLISHED_WIDTHS, *, threads: int = 2, steps: int = 20
) -> StepTimes:
    """Time whole training steps on random sequences: forward with all losses, backward, clip, and Adam.

    steps: at least 2. Sets torch's number of threads, which stays.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    step = _step(config, widths)
    product = yardstick.product()
    for _ in range(WARM_UP):
        step()
        product()
    with FlopCounterMode(display=False) as counter:
        step()
    times: list[tuple[float, float]] = []
    rates: list[float] = []
    for _ in range(steps):
        times.append(_time(step))
        rates.append(yardstick.PRODUCT_OPERATIONS / _time(product)[0])
    return StepTimes(
        threads,
        tuple(wall for wall, _ in times),
        tuple(cpu for _, cpu in times),
        counter.get_total_flops(),
        statistics.median(rates),
    )


def _step(config: SequenceConfig, widths: Mapping[Modality, int]) -> Callable[[], object]:
    model = DHMD(config.network.dhmd(widths, (SENTIMENT,))).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.optimisation.learning_rate, fused=True)
    batch = config.optimisation.batch
    inputs = {m: torch.randn(batch, steps, widths[m]) for m, steps in yardstick.PAPER_STEPS.items()}
    masks = {m: torch.ones(batch, steps, dtype=torch.bool) for m, steps in yardstick.PAPER_STEPS.items()}
    labels = Labels({SENTIMENT.name: torch.randn(batch).clamp(-config.limit, config.limit)})

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss, _ = losses.total(model, model(inputs, masks), labels, config.losses)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_value_(model.parameters(), config.optimisation.gradient_clip)
        optimiser.step()

    return step


def _time(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu
