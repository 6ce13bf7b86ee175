"""What hours, restarts, killed servers and attackers leave of it: `make soak`, which says how long with DHMD_SOAK_S.

Skipped without that. The figures are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dhmd.checkpoint import encoder_path, load
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from realtime.bench.page import served
from realtime.bench.simulated_edges import RecordedSteps, SimulatedEdge, simulate
from realtime.bench.simulated_visitor import SimulatedVisitor
from realtime.capture.media import MediaFile
from realtime.cli import main
from realtime.demo import CLIP
from realtime.mqtt.broker import BrokerAddress
from tests.realtime.soak.attacks import ATTACKS
from tests.realtime.waiting import until

SOAK_S = float(os.environ.get("DHMD_SOAK_S", "0"))
"""Of the long run. The others take as many turns of twenty as fit in it: one in ten minutes, all in eight hours."""
TURNS = max(1, min(20, round(SOAK_S / 90)))
PARTS = 8
BACK_S = 5.0

pytestmark = [
    pytest.mark.skipif(not SOAK_S, reason="make soak: DHMD_SOAK_S says how long"),
    pytest.mark.timeout(SOAK_S + 7200),
]


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> RecordedSteps:
    """Of the demo clip, a step a second."""
    path = tmp_path_factory.mktemp("recording") / "talk.mcap"
    with pytest.raises(SystemExit):
        main(["run", "--source", str(CLIP), "--pace", "max", "--hop", "1", "--broker", "none", "--record", str(path)])
    text = TextExtractor(adapter=encoder_path(load("base").folder, Modality.TEXT))
    return RecordedSteps.read(path, text)


class Watched:
    """What a process holds, sample by sample."""

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self.samples: list[tuple[float, float, float]] = []

    def look(self) -> None:
        assert self._process.status() != psutil.STATUS_ZOMBIE, "it has ended"
        self.samples.append(
            (self._process.memory_info().rss / 1e6, float(self._process.num_fds()), float(self._process.num_threads()))
        )

    def parts(self, of: int) -> list[float]:
        """Mean of each eighth of the time."""
        length = len(self.samples) // PARTS
        return [
            statistics.mean(sample[of] for sample in self.samples[n * length : (n + 1) * length]) for n in range(PARTS)
        ]

    def told(self, name: str) -> float:
        """Print the figures; returns the growth of memory from the second part to the last."""
        memory, files, threads = (self.parts(of) for of in range(3))
        growth = memory[-1] / memory[1] - 1
        print(
            f"{name}: memory of each eighth {[round(mb) for mb in memory]} MB, last to second {growth:+.2%}; "
            f"descriptors {files[1]:.1f} to {files[-1]:.1f}, threads {threads[1]:.1f} to {threads[-1]:.1f}"
        )
        assert files[-1] <= files[1] + 1
        assert threads[-1] <= threads[1] + 1
        return growth


def test_hours_leave_memory_descriptors_and_threads_as_they_were(
    start_live: Callable[..., Any], mosquitto: Any, recording: RecordedSteps, tmp_path: Path
) -> None:
    looped = tmp_path / "looped.mp4"
    ffmpeg = ["ffmpeg", "-v", "error", "-stream_loop", str(int(SOAK_S / 30) + 20), "-i", str(CLIP), "-c", "copy"]
    subprocess.run([*ffmpeg, str(looped)], check=True)
    page = start_live(
        *("web", "--source", str(looped), "--port", "0", "--broker", "none", "--record", str(tmp_path / "long.mcap"))
    )
    server = start_live("serve", "--broker", mosquitto.url)
    page.wait_for(lambda: "page: " in page.out)
    server.wait_for(lambda: "serving" in server.out)
    watched = {"web": Watched(page._process.pid), "serve": Watched(server._process.pid)}
    answers: Counter[str] = Counter()

    async def run() -> None:
        edges = [SimulatedEdge(f"edge{n}", recording, n) for n in range(4)]
        stop, end_s = asyncio.Event(), time.monotonic() + SOAK_S
        broker = BrokerAddress.parse(mosquitto.url)
        playing = asyncio.create_task(simulate(broker, edges, 1.0, stop, lambda name, _: answers.update((name,))))
        while time.monotonic() < end_s:
            await asyncio.sleep(min(10.0, SOAK_S / 200))
            for one in watched.values():
                one.look()
        stop.set()
        await playing

    asyncio.run(run())
    page.interrupt()
    assert page.wait() == 0
    growth = [one.told(name) for name, one in watched.items()]
    print(f"{SOAK_S:.0f} s: estimates of four edges {dict(answers)}, session {(tmp_path / 'long.mcap').stat().st_size}")
    # Within the first hour caches still fill.
    assert max(growth) < (0.01 if SOAK_S >= 8 * 3600 else 0.1)


def test_restarts_of_the_broker_double_nothing(
    start_live: Callable[..., Any], mosquitto: Any, recording: RecordedSteps
) -> None:
    server = start_live("serve", "--broker", mosquitto.url)
    server.wait_for(lambda: "serving" in server.out)
    came: defaultdict[str, list[int]] = defaultdict(list)
    back_s: list[float] = []

    async def run() -> None:
        edges = [SimulatedEdge(f"edge{n}", recording, n) for n in range(50)]
        names = [edge.stream.stream for edge in edges]
        stop = asyncio.Event()
        broker = BrokerAddress.parse(mosquitto.url)

        def heard(name: str, payload: bytes) -> None:
            came[name].append(json.loads(payload)["seq"])

        playing = asyncio.create_task(simulate(broker, edges, 2.0, stop, heard))
        await until(lambda: all(came[name] for name in names))
        for _ in range(TURNS):
            await asyncio.to_thread(mosquitto.stop)
            await asyncio.sleep(1.0)
            before = {name: len(came[name]) for name in names}
            await asyncio.to_thread(mosquitto.start)
            begun_s = time.monotonic()
            await until(lambda before=before: all(len(came[name]) > count for name, count in before.items()))
            back_s.append(time.monotonic() - begun_s)
        stop.set()
        await playing

    asyncio.run(run())
    print(f"{TURNS} restarts, 50 edges every 2 s: all back after {[round(s, 1) for s in sorted(back_s)]} s")
    for numbers in came.values():
        assert numbers == sorted(set(numbers)), "each window once, in order"
    assert max(back_s) < BACK_S


def test_a_killed_server_of_three_costs_what_it_had_in_hand(
    start_live: Callable[..., Any], mosquitto: Any, recording: RecordedSteps
) -> None:
    def start() -> Any:
        server = start_live("serve", "--broker", mosquitto.url)
        server.wait_for(lambda: "serving" in server.out)
        return server

    servers = [start() for _ in range(3)]
    came: defaultdict[str, set[int]] = defaultdict(set)
    lost: list[int] = []

    async def run() -> Counter[str]:
        edges = [SimulatedEdge(f"edge{n}", recording, n) for n in range(20)]
        stop = asyncio.Event()
        broker = BrokerAddress.parse(mosquitto.url)

        def heard(name: str, payload: bytes) -> None:
            came[name].add(json.loads(payload)["seq"])

        def missing() -> int:
            """Windows that were sent before the newest estimate of their stream, and have none."""
            return sum(max(numbers) - min(numbers) + 1 - len(numbers) for numbers in came.values())

        playing = asyncio.create_task(simulate(broker, edges, 1.0, stop, heard))
        await until(lambda: len(came) == len(edges))
        for turn in range(TURNS):
            before = missing()
            victim = servers.pop(turn % 3)
            victim.kill()
            victim.wait()
            marks = {edge.stream.stream: edge.stream.last_seq for edge in edges}
            await until(lambda marks=marks: all(max(came[name]) > seq + 2 for name, seq in marks.items()))
            lost.append(missing() - before)
            servers.append(await asyncio.to_thread(start))
        stop.set()
        await playing
        fate = Counter(sent=0, estimated=0, before_the_first=0, lost=missing(), after_the_last=0)
        for edge in edges:
            numbers = came[edge.stream.stream]
            fate["sent"] += edge.stream.statistics.sent
            fate["estimated"] += len(numbers)
            fate["before_the_first"] += min(numbers) - 1
            fate["after_the_last"] += edge.stream.last_seq - max(numbers)
        return fate

    fate = asyncio.run(run())
    print(f"{TURNS} kills of one of three, 20 edges at 1 Hz: {dict(fate)}; lost at each kill {sorted(lost)}")
    assert fate.total() == 2 * fate["sent"], "what became of each window is known"
    assert max(lost) <= 20  # of a third of the streams, what was on its way and in the batch


@pytest.fixture(scope="module")
def visitor_rate() -> Iterator[Callable[[str | None], float]]:
    """visitor_rate(attack): estimates a second of one who is honest, while a server is attacked."""
    with served("--max-streams", "4", "--hop", "0.2") as (address, _):
        seconds = max(15.0, min(60.0, SOAK_S / 20))

        yield lambda attack: asyncio.run(_rate(address, seconds, attack))


async def _rate(address: str, seconds: float, attack: str | None) -> float:
    async with SimulatedVisitor.at(address) as visitor:
        while not visitor.all("joined"):
            await visitor.say("join", session=None)
            await asyncio.sleep(6.0)
        await visitor.say("source", kind="video", state="on")
        await visitor.say("source", kind="audio", state="on", rate=16_000)
        await visitor.told("clock")
        playing = asyncio.create_task(visitor.play(MediaFile(str(CLIP))))
        command = ["nice", "-n", "19", sys.executable, "-m", "tests.realtime.soak.attacks", address, str(attack)]
        attacker = subprocess.Popen([*command, str(seconds + 60)]) if attack else None  # noqa: ASYNC220
        await asyncio.sleep(8.0)
        before = len(visitor.all("estimate"))
        await asyncio.sleep(seconds)
        came = len(visitor.all("estimate")) - before
        if attacker is not None:
            attacker.kill()
            attacker.wait()
        playing.cancel()
        await visitor.say("leave")
    return came / seconds


def test_an_honest_visitor_keeps_their_estimates_under_every_attack(
    visitor_rate: Callable[[str | None], float],
) -> None:
    alone = visitor_rate(None)
    shares = {name: visitor_rate(name) / alone for name in ATTACKS}
    shown = {name: f"{share:.0%}" for name, share in shares.items()}
    print(f"alone {alone:.2f} estimates a second; under attack {shown}")
    assert min(shares.values()) >= 0.9
