"""Delay of an estimate at a second client, and size of the compact one, over Mosquitto on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console

from realtime import event_loop
from realtime.bench.row import Row
from realtime.demo import CLIP
from realtime.messages.estimate import Estimate
from realtime.messages.stream import COMPACT_LIMIT, Compact
from realtime.messages.topics import COMPACT, EMOTION
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.publisher import Publisher, publishing
from realtime.percentiles import percentiles
from realtime.programs.run import run
from realtime.settings import RunSettings

STREAM: Final = "bench"
HOP_S: Final = 0.1
LAST_WAIT_S: Final = 1.0
SECOND_CLIENT: Final = """
import asyncio, sys, time
from realtime import subscribe

async def main():
    async for estimate in subscribe(sys.argv[1], sys.argv[2]):
        print(estimate.seq, time.monotonic(), flush=True)

asyncio.run(main())
"""


def mqtt_rows(seconds: float) -> list[Row]:
    """Measure the delay. Needs Mosquitto, and a monotonic clock that all processes share, as on Linux and macOS."""
    name = "estimate to second client"
    if (program := mosquitto_program()) is None:
        return [(name, "not measured: needs Debian's mosquitto", "")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        estimates = folder / "estimates.jsonl"
        settings = RunSettings(source=str(CLIP), pace="max", broker="none", estimates=str(estimates), stream=STREAM)
        run(settings, Console(quiet=True))
        made = [Estimate.model_validate_json(line) for line in estimates.read_bytes().splitlines()]
        with mosquitto(program, folder) as broker:
            latencies_ms, lost, sizes = event_loop.run(to_second_client(broker, made, seconds))
    p50, _, p99 = percentiles(latencies_ms) or (0.0, 0.0, 0.0)
    return [
        (name, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms" + (f", {lost} lost" if lost else ""), "p99 <= 10 ms"),
        (
            "compact payload",
            f"typical {median(sizes):.0f} bytes, at most {max(sizes)} bytes",
            f"<= {COMPACT_LIMIT} bytes",
        ),
    ]


def mosquitto_program() -> str | None:
    """Find Mosquitto, which Debian puts where only root looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@contextlib.contextmanager
def mosquitto(program: str, folder: Path) -> Iterator[BrokerAddress]:
    """A broker on a free port of loopback, for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    config = folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
    if sys.platform != "win32" and os.geteuid() == 0:
        lines.append("user root")
    config.write_text("\n".join(lines) + "\n")
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.01)
            yield BrokerAddress("127.0.0.1", port)
        finally:
            process.terminate()


async def to_second_client(
    broker: BrokerAddress, made: Sequence[Estimate], seconds: float
) -> tuple[list[float], int, list[int]]:
    """Measure the time from an estimate to a client that has decoded it, in ms; how many were lost; compact sizes."""
    sent_s: dict[int, float] = {}
    came_s: dict[int, float] = {}
    sizes: list[int] = []
    command = [sys.executable, "-c", SECOND_CLIENT, str(broker), STREAM]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - at once

    def read() -> None:
        with client:
            for line in client.stdout or ():
                seq, at_s = line.split()
                came_s[int(seq)] = float(at_s)

    publisher = Publisher(broker, STREAM, lambda _: None)
    reading = asyncio.create_task(asyncio.to_thread(read))
    try:
        async with publishing(publisher):
            due_s, seq, end_s = time.monotonic(), 0, None
            while end_s is None or due_s < end_s:
                if end_s is None and came_s:
                    # The client is there: from now on it counts.
                    end_s = due_s + seconds
                    sent_s.clear()
                    came_s.clear()
                    sizes.clear()
                before_s = time.monotonic()
                shift_s = time.time() - made[seq % len(made)].t
                estimate = _later(made[seq % len(made)], seq, shift_s)
                sent_s[seq] = before_s
                publisher.publish(EMOTION, estimate.model_dump_json().encode())
                compact = Compact.of(estimate).model_dump_json().encode()
                publisher.publish(COMPACT, compact)
                sizes.append(len(compact))
                seq, due_s = seq + 1, due_s + HOP_S
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await asyncio.sleep(LAST_WAIT_S)
    finally:
        client.terminate()
        await reading
    latencies_ms = [(came_s[seq] - at_s) * 1000 for seq, at_s in sent_s.items() if seq in came_s]
    return latencies_ms, len(sent_s) - len(latencies_ms), sizes


def _later(estimate: Estimate, seq: int, shift_s: float) -> Estimate:
    """Return an estimate as if it were made now: with a number and times as long as those of a live one."""
    begin, end = (round(t + shift_s, 4) for t in estimate.window)
    return estimate.model_copy(update={"seq": seq, "t": round(estimate.t + shift_s, 4), "window": (begin, end)})
