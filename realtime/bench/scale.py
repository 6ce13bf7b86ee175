"""Capacity of servers: two hundred streams of a recorded session at one window a second each, through one and two."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

import psutil
from rich.console import Console

from dhmd.checkpoint import encoder_path, load
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from realtime import event_loop
from realtime.bench.mqtt import mosquitto, mosquitto_program
from realtime.bench.row import Row
from realtime.bench.simulated_edges import RecordedSteps, SimulatedEdge, simulate
from realtime.demo import CLIP
from realtime.mqtt.broker import BrokerAddress
from realtime.percentiles import percentiles
from realtime.programs.run import run
from realtime.settings import RunSettings

STREAMS: Final = 200
HOP_S: Final = 1.0
SETTLED_S: Final = 5.0
"""What is measured begins so long after the streams were opened."""


def scale_rows(seconds: float, streams: int = STREAMS) -> list[Row]:
    """Measure what servers carry. Needs Mosquitto, which runs beside servers and simulated edges on this machine."""
    if (program := mosquitto_program()) is None:
        return [("many streams", "not measured: needs Debian's mosquitto", "")]
    with tempfile.TemporaryDirectory() as folder:
        session = Path(folder) / "talk.mcap"
        settings = RunSettings(source=str(CLIP), pace="max", broker="none", hop_s=HOP_S, record=str(session))
        run(settings, Console(quiet=True))
        text = TextExtractor(adapter=encoder_path(load("base").folder, Modality.TEXT))
        recording = RecordedSteps.read(session, text)
        rows = []
        for count in (1, 2):
            with mosquitto(program, Path(folder)) as broker, _servers(broker, count) as processes:
                rows += event_loop.run(_measure(broker, recording, streams, seconds, processes))
    return rows


async def _measure(
    broker: BrokerAddress, recording: RecordedSteps, streams: int, seconds: float, processes: list[int]
) -> list[Row]:
    edges = [SimulatedEdge(f"bench{n}", recording, n) for n in range(streams)]
    stop = asyncio.Event()
    playing = asyncio.create_task(simulate(broker, edges, HOP_S, stop))
    statistics = [edge.stream.statistics for edge in edges]
    await asyncio.sleep(SETTLED_S)
    answered, sent, size = (sum(getattr(one, name) for one in statistics) for name in ("answered", "sent", "bytes"))
    for one in statistics:
        one.round_trips_ms.clear()
    cpu_s, begun_s = _cpu_s(processes), time.monotonic()
    await asyncio.sleep(seconds)
    lasted_s, cpu_s = time.monotonic() - begun_s, _cpu_s(processes) - cpu_s
    answered = sum(one.answered for one in statistics) - answered
    sent = sum(one.sent for one in statistics) - sent
    size = sum(one.bytes for one in statistics) - size
    stop.set()
    await playing
    p50, p95, _ = percentiles([ms for one in statistics for ms in one.round_trips_ms]) or (0.0, 0.0, 0.0)
    name = f"{streams} streams, " + ("one server" if len(processes) == 1 else f"{len(processes)} servers")
    return [
        (
            name,
            f"{answered / lasted_s:.0f} estimates /s of {sent / lasted_s:.0f} windows /s",
            f"{streams / HOP_S:.0f} /s",
        ),
        (f"{name}, window to estimate", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", ""),
        (f"{name}, an estimate", f"{1000 * cpu_s / max(answered, 1):.1f} ms of a core", ""),
        (f"{name}, an edge sends", f"{size / lasted_s / streams / 1000:.1f} kB /s", "<= 30 kB /s"),
    ]


def _cpu_s(processes: list[int]) -> float:
    """Processor time of processes so far."""
    times = [psutil.Process(number).cpu_times() for number in processes]
    return float(sum(one.user + one.system for one in times))


@contextlib.contextmanager
def _servers(broker: BrokerAddress, count: int) -> Iterator[list[int]]:
    """Start servers; gives the numbers of their processes once all serve."""
    command = [sys.executable, "-u", "-m", "realtime", "serve", "--broker", str(broker)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) for _ in range(count)
        ]
        try:
            for process in processes:
                if not any("serving" in line for line in cast("IO[str]", process.stdout)):
                    raise RuntimeError(f"dhmd-live serve ended with status {process.wait()} before it served")
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
