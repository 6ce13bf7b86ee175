"""`dhmd-live bench`: the demo clip, repeated, at its own pace through the whole pipeline, and what it cost."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import torch
from rich.console import Console
from rich.table import Table

from dhmd.checkpoint import load
from dhmd.machine import cores
from dhmd.session import Session
from realtime import event_loop
from realtime.bench.model import model_rows
from realtime.bench.mqtt import mqtt_rows
from realtime.bench.page import page_rows, visitor_rows
from realtime.bench.row import Row
from realtime.bench.scale import scale_rows
from realtime.bench.threads import NATIVE, ThreadLog
from realtime.demo import CLIP
from realtime.invocation import command
from realtime.memory import MemoryLog
from realtime.percentiles import percentiles
from realtime.programs.replay import Replay, ReplaySettings
from realtime.programs.run import run
from realtime.programs.running import Summary
from realtime.settings import RunSettings

STARTS = 3
LEAD_IN_S = 0.1
RECORDED_S = 60.0
SERVED_S = 30.0


def bench(seconds: float, console: Console) -> int:
    """Measure start-up over several processes, then one run of `seconds`; print one table."""
    console.print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        media = Path(scratch) / "bench.mp4"
        repeat(CLIP, media, seconds + 5)
        starts = [_first_estimate_s(media, Path(scratch) / f"start{i}.jsonl") for i in range(STARTS)]
        console.print(f"start-up measured {STARTS} times; now {seconds:g} s at real-time pace")
        with MemoryLog() as memory, ThreadLog() as threads:
            cpu_s, wall_s, energy_j = time.process_time(), time.monotonic(), _energy_j()
            summary = run(RunSettings(source=str(media), duration=seconds, stream="bench"), Console(quiet=True))
            cores = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
        table = _table(summary, starts, memory, cores, threads)
        if energy_j is not None and (now_j := _energy_j()) is not None and now_j > energy_j:
            table.add_row("energy of the processor", f"{(now_j - energy_j) / (time.monotonic() - wall_s):.1f} W", "")
        table.add_row(*_imports())
        try:
            _add_parts(table, media, Path(scratch), seconds, console)
        finally:
            console.print(table)
    console.print("how often the label changes in a minute, before and after the margin, on clips of neutral talkers:")
    console.print(command("accuracy", "CLIPS"), markup=False, highlight=False, soft_wrap=True)
    return 0


def _add_parts(table: Table, media: Path, folder: Path, seconds: float, console: Console) -> None:
    """Add what is measured beside the run itself."""
    seconds = min(seconds, RECORDED_S)
    console.print(f"now {seconds:g} s recorded, without media and with, and replayed")
    _add_sessions(table, media, folder, seconds)
    console.print(f"now {seconds:g} s of four visitors, and {seconds:g} s of one in a browser")
    for row in (*visitor_rows(media, seconds), *page_rows(media, seconds)):
        table.add_row(*row)
    seconds = min(seconds, SERVED_S)
    console.print(f"now {seconds:g} s of estimates to a second client")
    for row in mqtt_rows(seconds):
        table.add_row(*row)
    console.print("now the model by itself")
    for row in model_rows():
        table.add_row(*row)
    console.print(f"now {seconds:g} s of two hundred streams at one server, and at two")
    for row in scale_rows(seconds):
        table.add_row(*row)


def repeat(clip: Path, out: Path, seconds: float) -> None:
    """Write `clip` again and again into `out`, without encoding anew, until it lasts `seconds`."""
    with av.open(str(out), "w") as target:
        streams: dict[int, av.stream.Stream] = {}
        offset_s = 0.0
        while offset_s < seconds:
            with av.open(str(clip)) as source:
                for stream in source.streams:
                    if stream.index not in streams:
                        streams[stream.index] = target.add_stream_from_template(stream)
                for packet in source.demux():
                    if packet.dts is None:
                        continue
                    shift = round(offset_s / float(packet.time_base))
                    packet.pts, packet.dts = (packet.pts or packet.dts) + shift, packet.dts + shift
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
                # A codec's lead-in reaches back before the start of the clip.
                offset_s += (source.duration or 0) / 1e6 + LEAD_IN_S


def _add_sessions(table: Table, media: Path, folder: Path, seconds: float) -> None:
    """Add what recording takes of a core and of the disk, and how fast a session replays."""
    session = folder / "session.mcap"
    for path, kept in ((folder / "media.mcap", True), (session, False)):
        settings = RunSettings(
            source=str(media), duration=seconds, stream="bench", record=str(path), record_video=kept, record_audio=kept
        )
        summary = run(settings, Console(quiet=True))
        recorded_s = summary.statistics.last_estimate_s
        share, size_mb = summary.recording_cpu_s / recorded_s, path.stat().st_size / 1e6 * 60 / recorded_s
        aim = "" if kept else "<= 3 %, <= 1 MB"
        name = "recording with media" if kept else "recording"
        table.add_row(name, f"{share:.1%} of a core, {size_mb:.2f} MB a minute", aim)
    replay = Replay(ReplaySettings(session), Session.open(session), load("base"), Console(quiet=True))
    outcome = event_loop.run(replay.run(again=False))
    table.add_row("replay", f"{outcome.session_s / outcome.wall_s:.0f} times as fast", ">= 100 times")


def _first_estimate_s(media: Path, estimates: Path) -> float:
    """Seconds from the start of a fresh process to its first estimate."""
    started_s = time.monotonic()
    command = [sys.executable, "-m", "realtime", "run", "--source", str(media), "--duration", "1"]
    with subprocess.Popen([*command, "--estimates", str(estimates)], stdout=subprocess.DEVNULL) as process:
        while not (estimates.exists() and estimates.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"dhmd-live ended with status {process.returncode} before its first estimate")
            time.sleep(0.01)
        return time.monotonic() - started_s


STAGES = {
    "face": "the expression of the face",
    "mediapipe": "landmarks",
    "voice": "the voice",
    "transcript": "words",
    NATIVE: "words",  # CTranslate2's two
    "engine": "the model",
    "video": "decoding pictures",
    "audio": "decoding sound",
}
"""By the name of the thread."""


def _stages(shares: dict[str, float]) -> dict[str, float]:
    """Return which part of a run took how much of a core; empty where the system does not tell."""
    stages: dict[str, float] = dict.fromkeys([*STAGES.values(), "publishing, and the rest"], 0.0) if shares else {}
    for name, share in shares.items():
        stages[STAGES.get(name, "publishing, and the rest")] += share
    return stages


def _energy_j() -> float | None:
    """Return what the processor package has used so far, all programs together; None where it is not told (virtual
    machines, and to any user but root)."""
    try:
        return int(Path("/sys/class/powercap/intel-rapl:0/energy_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return None


def _imports() -> Row:
    """Measure how long the package takes to import, beside torch."""
    took_s: dict[str, list[float]] = {"torch": [], "dhmd": [], "dhmd.prediction": []}
    for _ in range(STARTS):
        for module, seconds in took_s.items():
            begun_s = time.monotonic()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            seconds.append(time.monotonic() - begun_s)
    torch_s, package_s, model_s = (median(seconds) for seconds in took_s.values())
    measured = f"{package_s:.2f} s, with the model {model_s:.2f} s; torch alone {torch_s:.2f} s"
    return "import dhmd", measured, "<= torch + 0.05 s"


INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
}
"""Instruction sets that the figures depend on, by their names in /proc/cpuinfo."""


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the processor with its instruction sets, as far as the system tells, and what runs on it."""
    model, instructions = platform.processor() or platform.machine(), ""
    if cpuinfo.exists():
        pairs = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        told = {name.strip(): value.strip() for name, _, value in pairs}
        model, flags = told.get("model name", model), set(told.get("flags", "").split())
        instructions = "/".join(dict.fromkeys(name for flag, name in INSTRUCTIONS.items() if flag in flags))
    with_them = f" with {instructions}" if instructions else ""
    return f"{model}{with_them}, {cores()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def _table(summary: Summary, starts: list[float], memory: MemoryLog, cores: float, threads: ThreadLog) -> Table:
    statistics = summary.statistics
    table = Table(title="bench", header_style="bold", title_justify="left")
    for column in ("figure", "measured", "aim"):
        table.add_column(column)
    seconds = statistics.last_estimate_s
    table.add_row("estimates", f"{statistics.rate_hz:.2f} /s over {seconds:.0f} s", "10 /s")
    table.add_row("ticks missed", f"{statistics.missed_ticks}", "0 in 60 s")
    for name, values, aim in (
        ("capture to estimate", statistics.capture_to_estimate_ms, ""),
        ("capture to published", statistics.capture_to_published_ms, "p50 <= 45 ms, p95 <= 90 ms"),
        ("model", statistics.inference_ms, ""),
    ):
        if measured := percentiles(values):
            table.add_row(name, f"p50 {measured.p50:.1f} ms, p95 {measured.p95:.1f} ms", aim)
    low, middle, high = min(starts), median(starts), max(starts)
    table.add_row("first estimate", f"{middle:.1f} s ({low:.1f} to {high:.1f}, {len(starts)} starts)", "<= 2.5 s")
    table.add_row("resident memory", f"{max(memory.samples_mb):.0f} MB at most", "<= 1500 MB")
    if (second := memory.minute(2)) and (fifth := memory.minute(5)):
        table.add_row("memory, minute 5 / minute 2", f"{100 * (fifth / second - 1):+.2f} %", "within 1 %")
    table.add_row("processor", f"{cores:.2f} cores", "<= 1.00")
    if shares := _stages(threads.cores):
        without = sum(shares.values()) - shares["words"]
        table.add_row("of which words", f"{shares.pop('words'):.2f} of a core; without them {without:.2f}", "<= 0.70")
        for stage, share in shares.items():
            table.add_row(f"of which {stage}", f"{share:.2f} of a core", "")
    table.add_row("dropped", f"{summary.dropped.video} frames, {summary.dropped.audio} blocks", "0, 0")
    return table
