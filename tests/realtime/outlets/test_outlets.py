"""What programs of laboratories and stages receive of a run, each by a receiver of its own protocol's library."""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pylsl
import pytest
from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import BlockingOSCUDPServer

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import (
    Estimate,
    ExtraClasses,
    ExtraNumber,
    Modalities,
    ModalityEstimate,
    SentimentEstimate,
)
from realtime.outlets.lsl import LslOutlet
from realtime.outlets.numbers import UNITS
from realtime.outlets.osc import OscOutlet
from realtime.recognition.events import Events
from tests.realtime.conftest import Listener, LiveCommand, Mosquitto
from tests.realtime.waiting import PATIENCE_S

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


class OscReceiver:
    """What arrives at a UDP port on loopback: (address, value), in its order."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        dispatcher = Dispatcher()
        dispatcher.set_default_handler(lambda address, *values: self.received.append((address, *values)))
        self._server = BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def of(self, address: str) -> list[Any]:
        return [value for where, value in self.received if where == address]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def osc() -> Iterator[OscReceiver]:
    receiver = OscReceiver()
    yield receiver
    receiver.close()


def inlet(run: LiveCommand, source_id: str) -> pylsl.StreamInlet:
    """What a run sends by the lab streaming layer under that identity, received from now on."""
    found: list[pylsl.StreamInfo] = []
    run.wait_for(lambda: found.extend(pylsl.resolve_byprop("source_id", source_id, timeout=1.0)) or found)
    received = pylsl.StreamInlet(found[0], recover=False)
    received.open_stream(timeout=PATIENCE_S)
    return received


def test_a_run_is_received_by_lsl_and_by_osc(
    talking_clip: Path,
    tmp_path: Path,
    osc: OscReceiver,
    mosquitto: Mosquitto,
    subscribe: Callable[..., Listener],
    start_live: Callable[..., LiveCommand],
) -> None:
    stream, published = f"s{uuid.uuid4().hex[:12]}", tmp_path / "published.jsonl"
    broker = subscribe(mosquitto.port)
    run = start_live(
        "run", "--source", str(talking_clip), "--broker", mosquitto.url, "--stream", stream,
        "--estimates", str(published), "--lsl", "--osc", f"localhost:{osc.port}",
    )  # fmt: skip
    numbers, markers = inlet(run, f"dhmd-{stream}-emotions"), inlet(run, f"dhmd-{stream}-events")
    channels, label = [], numbers.info(PATIENCE_S).desc().child("channels").child("channel")
    while not label.empty():
        channels.append(label.child_value("label"))
        label = label.next_sibling()
    assert channels == list(UNITS)

    samples: dict[float, list[float]] = {}
    while len(samples) < 20:
        values, at_s = numbers.pull_sample(timeout=PATIENCE_S)
        samples[at_s] = values
    marker, marked_s = markers.pull_sample(timeout=PATIENCE_S)
    assert run.wait() == 0
    estimates = [json.loads(line) for line in published.read_text().splitlines()]

    # Each sample is the estimate whose window ends then, by the clock of the lab streaming layer.
    offset_s = time.time() - pylsl.local_clock()
    for at_s, values in samples.items():
        got = dict(zip(channels, values, strict=True))
        (told,) = (estimate for estimate in estimates if abs(estimate["t"] - at_s - offset_s) < 0.04)
        assert got["face_present"] == told["modalities"]["vision"]["present"]
        if told["emotions"] is None:
            assert math.isnan(got["happy"])
            continue
        assert got["happy"] == pytest.approx(told["emotions"]["happy"], abs=1e-6)
        assert got["sentiment"] == pytest.approx(told["sentiment"]["value"], abs=1e-6)
        assert got["arousal"] == pytest.approx(told["arousal"], abs=1e-6)
    events = [json.loads(payload) for payload in broker.payloads(f"dhmd/{stream}/event")]
    assert marker in (["emotion neutral"], ["emotion happy"], ["face_appeared"], ["speech_began"])
    assert any(abs(event["t"] - marked_s - offset_s) < 0.04 for event in events)

    received = osc.of(f"/dhmd/{stream}/happy")
    assert received
    said = [estimate["emotions"]["happy"] for estimate in estimates if estimate["emotions"]]
    assert received == pytest.approx(said, abs=1e-6)
    assert osc.of(f"/dhmd/{stream}/top") == [estimate["top"] or "none" for estimate in estimates]
    assert [one.split()[0] for one in osc.of(f"/dhmd/{stream}/event")] == [event["event"] for event in events]
    addresses = {address for address, _ in osc.received}
    assert addresses <= {f"/dhmd/{stream}/{name}" for name in (*UNITS, "top", "event")}


def speaking(seq: int) -> Any:
    """An estimate on its way, at a tick in which somebody is heard."""
    voice = ModalityEstimate(present=True, age_s=0.0, weight=1.0, sentiment=0.5, influence=1.0)
    absent = ModalityEstimate(present=False, age_s=None, weight=0.0, sentiment=None)
    estimate = Estimate.model_construct(
        t=time.time() + seq / 10,
        sentiment=SentimentEstimate(value=0.5, low=-0.5, high=1.5),
        emotions={name: float(name == "happy") for name in EMOTIONS},
        top="happy",
        valence=0.9,
        arousal=0.4,
        modalities=Modalities(vision=absent, audio=voice, text=absent),
        faces=0,
    )
    return SimpleNamespace(estimate=estimate)


def test_heads_of_ones_own_are_sent(osc: OscReceiver) -> None:
    stream = f"s{uuid.uuid4().hex[:12]}"
    emission = speaking(0)
    extra = {
        "mood": ExtraClasses(top="very bored", probabilities={"engaged": 0.25, "very bored": 0.75}),
        "rating": ExtraNumber(value=3.5, low=2.5, high=4.5, range=(1, 5), unit="points"),
    }
    emission.estimate = emission.estimate.model_copy(update={"extra": extra})
    with LslOutlet(stream) as lsl, OscOutlet(stream, f"127.0.0.1:{osc.port}") as other:
        lsl.on_estimate(emission)
        other.on_estimate(emission)
        (info,) = pylsl.resolve_byprop("source_id", f"dhmd-{stream}-extra", timeout=PATIENCE_S)
        received = pylsl.StreamInlet(info, recover=False)
        channel, described = received.info(PATIENCE_S).desc().child("channels").child("channel"), []
        while not channel.empty():
            described.append((channel.child_value("label"), channel.child_value("unit")))
            channel = channel.next_sibling()
        received.open_stream(timeout=PATIENCE_S)
        lsl.on_estimate(emission)
        values, _ = received.pull_sample(timeout=PATIENCE_S)
        deadline_s = time.monotonic() + PATIENCE_S
        while not osc.of(f"/dhmd/{stream}/extra_mood") and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert described == [
        ("mood_engaged", "probability"),
        ("mood_very bored", "probability"),
        ("rating", "points"),
    ]
    assert values == [0.25, 0.75, 3.5]
    assert osc.of(f"/dhmd/{stream}/extra_mood") == ["very bored"]
    assert osc.of(f"/dhmd/{stream}/extra_mood_very_bored") == [0.75]
    assert osc.of(f"/dhmd/{stream}/extra_rating") == [3.5]


@pytest.mark.parametrize("example", ["lsl", "osc"])
def test_the_examples_of_the_manual_receive_what_happens(example: str) -> None:
    stream = f"s{uuid.uuid4().hex[:12]}"
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    outlet = LslOutlet(stream) if example == "lsl" else OscOutlet(stream, f"127.0.0.1:{port}")
    command = [sys.executable, EXAMPLES / f"{example}.py", stream if example == "lsl" else str(port)]
    with outlet, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        lines: list[str] = []
        assert receiver.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(receiver.stdout or ()), daemon=True)
        reader.start()
        # Each outlet tells events once, and nobody hears what was sent before it listened.
        deadline_s = time.monotonic() + PATIENCE_S
        while not lines and time.monotonic() < deadline_s:
            outlet._events = Events()
            for seq in range(12):
                outlet.on_estimate(speaking(seq))
            time.sleep(0.1)
        receiver.terminate()
        reader.join()
    assert {line.split(maxsplit=1)[1].strip() for line in lines} <= {"speech_began", "emotion happy"}
    assert lines


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--osc", "9000"), "--osc: expected HOST:PORT, such as 127.0.0.1:9000, found '9000'"),
        (("--osc", "127.0.0.1:0"), "--osc: expected HOST:PORT"),
        (("--osc", "127.0.0.1:99999"), "--osc: expected HOST:PORT"),
        (("--osc", "nobody@127.0.0.1:9000"), "--osc: expected HOST:PORT"),
        (("--osc", "nowhere.invalid:9000"), "--osc nowhere.invalid:9000: "),
        (("--pace", "max", "--lsl"), "--lsl and --osc send what happens now; leave --pace max out"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    refuse: Callable[..., str], talking_clip: Path, flags: tuple[str, ...], cause: str
) -> None:
    assert refuse(2, "run", "--source", talking_clip, "--broker", "none", *flags).startswith(cause)


@pytest.mark.parametrize(
    ("module", "flags", "line"),
    [
        ("pylsl", ("--lsl",), r"error: --lsl needs pylsl; pip install 'dhmd\[lsl\]'"),
        ("pythonosc", ("--osc", "127.0.0.1:9"), r"error: --osc needs pythonosc; pip install 'dhmd\[osc\]'"),
    ],
)
def test_a_library_that_is_missing_is_named(talking_clip: Path, module: str, flags: tuple[str, ...], line: str) -> None:
    command = ("run", "--source", str(talking_clip), "--broker", "none", *flags)
    without = f"import sys; sys.modules[{module!r}] = None; from realtime.cli import main; main({list(command)!r})"
    ended = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(line + "\n", ended.stderr)


def test_a_system_without_liblsl_is_told_where_it_is(talking_clip: Path, tmp_path: Path) -> None:
    """As on Linux on ARM, whose package of pylsl has no library in it."""
    package = tmp_path / "pylsl"
    package.mkdir()
    for path in Path(pylsl.__file__).parent.rglob("*.py"):
        copied = package / path.relative_to(Path(pylsl.__file__).parent)
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(path.read_bytes())
    command = ("run", "--source", str(talking_clip), "--broker", "none", "--lsl")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from realtime.cli import main; main({list(command)!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        "error: --lsl: pylsl has no liblsl for this system in its package; install it (conda "
    )
    assert ended.stderr.count("\n") == 1
