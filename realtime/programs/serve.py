"""`dhmd-live serve`: estimates for the streams of many edges, in batches."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from dhmd.checkpoint import load
from realtime import event_loop
from realtime.memory import keep_freed_memory
from realtime.mqtt.broker import BrokerAddress
from realtime.percentiles import percentiles
from realtime.pipeline.interrupts import stop_when_asked
from realtime.recognition.engine import Engine, resolve_device
from realtime.scale.served import Estimator
from realtime.scale.server import Server

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)


def serve(
    broker: BrokerAddress,
    group: str,
    checkpoint: str,
    device: str,
    console: Console,
    registry: CollectorRegistry | None = None,
) -> int:
    """Serve until Ctrl-C. Raises DHMDLiveError for what ends it early. registry: what Prometheus reads."""
    on = resolve_device(device)
    loaded = load(checkpoint)
    # A second thread would wait for the first more than it computes; a second server takes the second core.
    torch.set_num_threads(1)
    keep_freed_memory()
    with console.status("loading models") if console.is_terminal else nullcontext():
        estimator = Estimator(loaded, Engine(loaded, on))
        estimator.warm_up(loaded.features)

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    async def run() -> Server:
        server = Server(broker, group, estimator, loaded.features, tell)
        if registry is not None:
            from realtime.scale.collectors import ServeCollector

            registry.register(ServeCollector(server))
        stop_when_asked(server.stop)
        tell("Ctrl-C stops")
        await server.run()
        return server

    for line in summary(event_loop.run(run())):
        tell(line)
    return 0


def summary(server: Server) -> list[str]:
    """Describe what a server did, in lines for people."""
    statistics, counts = server.statistics, server.streams.counts
    lines = [f"{statistics.estimates} estimates in {statistics.batches.total()} batches"]
    if held := percentiles(statistics.held_ms):
        lines.append(f"window to estimate: p50 {held.p50:.0f} ms, p95 {held.p95:.0f} ms")
    others = ", ".join(f"{what} {counts[what]}" for what in ("late", "gaps", "refused", "malformed"))
    return [*lines, f"overtaken by newer windows {counts['overtaken']}, {others}"]
