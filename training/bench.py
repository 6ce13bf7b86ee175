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

from dhmd.modality import Modality
from dhmd.model import DHMD, SENTIMENT
from training.config import Network, SequenceConfig
from training.data.batch import Labels
from training.learning import losses

PUBLISHED_WIDTHS: Final = {Modality.TEXT: 768, Modality.VISION: 20, Modality.AUDIO: 5}
"""Of CMU-MOSI's published features."""

PAPER: Final = SequenceConfig(
    name="paper",
    features="published",
    network=Network(
        kernels=dict.fromkeys(Modality, 5),
        attention_dropout={Modality.TEXT: 0.3, Modality.AUDIO: 0.2},
        d=50,
        attention_heads=10,
        layers=4,
        atoms=512,
        text_dropout=0.5,
        embedding_dropout=0.2,
        output_dropout=0.5,
        residual_dropout=0.0,
    ),
)
"""The constants of the DHMD paper for CMU-MOSI, as in configs/mosi.yaml."""

STEPS: Final = 50
"""Of each sequence."""

WARM_UP: Final = 3
MATRIX: Final = 1024
"""Side of the square matrices whose product gives the machine's rate."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """seconds, cpu_seconds: of each step, on the clock and on all cores together. operations: floating-point
    operations of a step's products, forward and backward. rate: such operations a second, of a large matrix product
    between the steps, median."""

    threads: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    operations: int
    rate: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return low, high

    @property
    def limit(self) -> float:
        """Seconds that the products of a step would take at the rate of the large one."""
        return self.operations / self.rate

    def __str__(self) -> str:
        low, high = self.quartiles
        return (
            f"step {self.median:.3f} s (quartiles {low:.3f} to {high:.3f}, {len(self.seconds)} steps, "
            f"{self.threads} thread(s)), {statistics.median(self.cpu_seconds):.3f} s of CPU; "
            f"{self.operations / 1e9:.1f} GFLOP at {self.rate / 1e9:.0f} GFLOP/s: limit {self.limit:.3f} s, "
            f"{self.median / self.limit:.1f} times that"
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
    square = torch.randn(MATRIX, MATRIX)
    for _ in range(WARM_UP):
        step()
        square @ square
    with FlopCounterMode(display=False) as counter:
        step()
    times: list[tuple[float, float]] = []
    rates: list[float] = []
    for _ in range(steps):
        times.append(_time(step))
        rates.append(2 * MATRIX**3 / _time(lambda: square @ square)[0])
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
    inputs = {m: torch.randn(batch, STEPS, widths[m]) for m in Modality}
    masks = {m: torch.ones(batch, STEPS, dtype=torch.bool) for m in Modality}
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
