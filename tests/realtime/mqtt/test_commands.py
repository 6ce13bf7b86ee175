"""Commands to a stream: carried out, answered, refused; by strangers with any bytes at hand, through a real broker."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import paho.mqtt.client as mqtt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from dhmd.contract import FeatureSpec, Rows
from dhmd.features.face import FaceObservation
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.session import Session, schema
from realtime.capture.delivery import Delivery, Source
from realtime.capture.samples import VideoFrame
from realtime.clock import StreamClock
from realtime.demo import CLIP
from realtime.errors import CameraUnavailable, CommandRefused
from realtime.messages.commands import LARGEST, Answer, Command
from realtime.messages.topics import COMMANDS
from realtime.mqtt import commands as module
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.commands import read, taking_commands
from realtime.mqtt.embedded import embedded_broker
from realtime.mqtt.publisher import Publisher, publishing
from realtime.mqtt.stream import PublisherSink
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.pipeline.live import Steering, run_live
from realtime.pipeline.pipeline import Pipeline
from realtime.programs.control import Control
from realtime.recognition.engine import Inference, Sentiment
from realtime.recognition.smoothing import Smoothing
from realtime.session import folder as folders
from realtime.session import limited
from realtime.session.folder import FolderRecording
from realtime.session.recorder import describe
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.waiting import PATIENCE_S, until

pytestmark = pytest.mark.anyio

SPECS = {
    Modality.TEXT: FeatureSpec(Modality.TEXT, "test", "1", 2, None, 4, 2.0, 2.0),
    Modality.VISION: FeatureSpec(Modality.VISION, "test", "1", 2, 20.0, 40, 2.0, 0.5),
    Modality.AUDIO: FeatureSpec(Modality.AUDIO, "test", "1", 2, 2.5, 5, 2.0, 1.0),
}


class Face:
    """Sees a face in each picture."""

    spec = SPECS[Modality.VISION]

    def due(self, *_: float) -> bool:
        return True

    def push(self, image: Any, captured_s: float) -> Any:
        rows = Rows(np.array([captured_s]), np.ones((1, self.spec.width), np.float32))
        return FaceObservation(captured_s, rows, 1)

    def close(self) -> None: ...


class Camera:
    """Says whether it is open. taken: by another program. stuck: does not come back from the driver."""

    def __init__(self, clock: StreamClock) -> None:
        self.open = self.openings = 0
        self.taken = False
        self.stuck: threading.Event | None = None
        self._clock = clock

    def frames(self, stop: threading.Event) -> Iterator[VideoFrame]:
        if self.taken:
            raise CameraUnavailable("camera:0: in use by another program")
        self.open += 1
        self.openings += 1
        try:
            while not stop.wait(0.02):
                now_s = self._clock.now()
                yield VideoFrame(np.zeros((4, 4, 3), np.uint8), now_s, now_s)
            if self.stuck is not None:
                self.stuck.wait(PATIENCE_S)
        finally:
            self.open -= 1


def inference(happy: float = 0.7, sentiment: float = 1.0) -> Inference:
    rest = (1 - happy) / 6
    return Inference(
        sentiment=Sentiment(sentiment, sentiment - 1, sentiment + 1),
        emotions=tuple(happy if name == "happy" else rest for name in EMOTIONS),
        modality_sentiment={Modality.VISION: 1.0},
        homo_edges=(0.0,) * len(EDGES),
        hetero_edges=(0.0,) * len(EDGES),
        weights={Modality.VISION: 1.0},
        inference_ms=1.0,
    )


class Run:
    """A run of a camera, a canned face and a canned engine, with all the rest as it is."""

    def __init__(self, folder: Path | None) -> None:
        self.clock = StreamClock()
        self.camera = Camera(self.clock)
        self.statuses: list[WorkerStatus] = []
        self.steering = Steering()
        self.stop = asyncio.Event()
        checkpoint: Any = SimpleNamespace(name="canned", digest="0123456789ab", features=SPECS)
        engine: Any = SimpleNamespace(checkpoint=checkpoint, infer=lambda cut: inference() if cut.present else None)
        text = SimpleNamespace(spec=SPECS[Modality.TEXT])
        extractors = cast("StreamExtractors", SimpleNamespace(specs=SPECS, face=Face(), text=text, lips=None))
        self._delivery = Delivery(Source(self.camera.frames, None))
        perception = Perception(extractors, torch.device("cpu"))
        self.pipeline = Pipeline(perception, engine, self.clock, "hall", self._delivery.dropped, timed=True)
        described = describe(checkpoint, stream="hall", hop_s=0.05, timed=True, settings={"checkpoint": "canned"})
        self.recording = None
        if folder is not None:
            self.recording = FolderRecording(folder, self.pipeline, video=False, sound=False)
            self.pipeline.outputs.add(self.recording)
        self.control = Control(self.pipeline, self.steering, described, None, self.recording)
        self.pipeline.outputs.add(self)

    def on_worker(self, status: WorkerStatus) -> None:
        self.statuses.append(status)

    def last(self, worker: str) -> WorkerStatus:
        return [status for status in self.statuses if status.worker == worker][-1]

    async def run(self, address: BrokerAddress, *, allowed: bool) -> None:
        publisher = Publisher(address, "hall", lambda _: None)
        published = PublisherSink(publisher, self.pipeline.clock, self.pipeline.statistics)
        self.pipeline.outputs.add(published)
        async with publishing(publisher, published.report):
            if allowed:
                async with taking_commands(publisher, self.control):
                    await self._live()
            else:
                await self._live()

    async def _live(self) -> None:
        await run_live(
            self.pipeline,
            self._delivery,
            hop_s=0.05,
            duration_s=None,
            stop=self.stop,
            on_status=self.pipeline.outputs.on_worker,
            steering=self.steering,
        )


def sessions(folder: Path) -> list[Session]:
    return [Session.open(path) for path in folder.glob("*.mcap")]


class Caller:
    """Another program that gives commands, and hears all that the stream says."""

    def __init__(self, port: int, *, mqtt5: bool) -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self._mqtt5 = mqtt5
        subscribed = threading.Event()
        version = mqtt.MQTTv5 if mqtt5 else mqtt.MQTTv311
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version)
        self._client.on_connect = lambda client, *_: client.subscribe("dhmd/hall/#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda client, data, message: self.messages.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)

    def send(
        self, command: str, payload: bytes, *, retain: bool = False, to: str = "", correlation: bytes = b""
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if to:
            properties.ResponseTopic = to
        if correlation:
            properties.CorrelationData = correlation
        topic = f"dhmd/hall/set/{command}"
        self._client.publish(topic, payload, 1, retain, properties if self._mqtt5 else None)

    def on(self, topic: str) -> list[mqtt.MQTTMessage]:
        return [message for message in list(self.messages) if message.topic == f"dhmd/hall/{topic}"]

    def answers(self, topic: str = "response") -> list[Answer]:
        return [Answer.model_validate_json(message.payload) for message in self.on(topic)]

    def estimates(self) -> list[Any]:
        return [json.loads(message.payload) for message in self.on("emotion")]

    def status(self, worker: str) -> Any:
        return json.loads(self.on(f"status/{worker}")[-1].payload)

    async def ask(self, command: str, **fields: Any) -> Answer:
        """Give a command, and wait for its answer."""
        number = str(len(self.answers()) + 1)
        self.send(command, json.dumps({**fields, "id": number}).encode())
        await until(lambda: any(answer.id == number for answer in self.answers()))
        return next(answer for answer in self.answers() if answer.id == number)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@asynccontextmanager
async def running(
    port: int, folder: Path | None = None, *, allowed: bool = True, mqtt5: bool = True
) -> AsyncIterator[tuple[Run, Caller]]:
    """A run that already publishes, and somebody who commands it."""
    caller = Caller(port, mqtt5=mqtt5)
    run = Run(folder)
    task = asyncio.create_task(run.run(BrokerAddress("127.0.0.1", port), allowed=allowed))
    try:
        await until(lambda: len(caller.estimates()) > 2 or task.done())
        if task.done():
            await task
        yield run, caller
    finally:
        run.stop.set()
        await task
        caller.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens to as many commands as come."""
    monkeypatch.setattr(module, "RATE_HZ", 1e6)
    monkeypatch.setattr(module, "BURST", 1e6)


@pytest.mark.parametrize("mqtt5", [True, False], ids=["MQTT 5", "3.1.1"])
async def test_a_recording_is_begun_marked_and_ended_by_command(mosquitto: Any, tmp_path: Path, mqtt5: bool) -> None:
    async with running(mosquitto.port, tmp_path, mqtt5=mqtt5) as (run, caller):
        assert not (await caller.ask("mark", emotion="happy")).ok
        begun = await caller.ask("record", on=True)
        assert begun.ok
        await until(lambda: caller.status("recording")["state"] == "running")
        assert not (await caller.ask("record", on=True)).ok
        assert not (await caller.ask("hop", seconds=0.1)).ok
        await asyncio.sleep(0.5)
        assert (await caller.ask("mark", emotion="happy", seconds=0.2)).ok
        assert (await caller.ask("mark", mark="begin", emotion="angry")).ok
        assert not (await caller.ask("mark", mark="begin")).ok
        await asyncio.sleep(0.3)
        assert (await caller.ask("mark", mark="end", emotion="sad", sentiment=-1.5)).ok
        assert not (await caller.ask("mark", mark="end")).ok
        # One that is under way at the end is ended with the recording.
        assert (await caller.ask("mark", mark="begin", sentiment=1)).ok
        await asyncio.sleep(0.1)
        assert (await caller.ask("record", on=False)).ok
        await until(lambda: caller.status("recording")["state"] == "ended")
        assert not (await caller.ask("record", on=False)).ok
        assert run.last("recording").state is WorkerState.ENDED
        estimates = caller.estimates()
    [session] = sessions(tmp_path)
    assert begun.reason == f"recording into {session.path.name}"
    assert stat.S_IMODE(session.path.stat().st_mode) == 0o600
    assert session.complete
    records = list(session.records())
    marks = [record.message for record in records if record.topic == schema.MARK]
    assert [(m.emotion, m.sentiment) for m in marks] == [("happy", 0), ("sad", -1.5), ("", 1)]
    assert marks[0].end_s - marks[0].start_s == pytest.approx(0.2, abs=1e-3)
    assert 0.2 < marks[1].end_s - marks[1].start_s < 60
    recorded = [record.message.seq for record in records if record.topic == schema.ESTIMATE]
    assert recorded[0] > 2
    assert len(recorded) > 5
    assert set(recorded) <= set(range(estimates[-1]["seq"] + 1))
    workers = {record.message.worker for record in records if record.topic == schema.STATUS}
    assert workers >= {"video", "face"}


async def test_without_a_folder_nothing_is_recorded(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (_, caller):
        answer = await caller.ask("record", on=True)
    assert (answer.ok, answer.command) == (False, "record")
    assert "--record-dir" in answer.reason


async def test_recordings_end_with_the_run_and_at_their_limits(
    mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(mosquitto.port, tmp_path) as (run, caller):
        monkeypatch.setattr(limited, "MOST_S", 1.0)
        assert (await caller.ask("record", on=True)).ok
        await until(lambda: "the longest" in run.last("recording").reason)
        await until(lambda: "the longest" in caller.status("recording")["reason"])
        monkeypatch.setattr(folders, "MOST_FILES", 1)
        full = await caller.ask("record", on=True)
        assert not full.ok
        assert "full" in full.reason
        monkeypatch.undo()
        assert (await caller.ask("record", on=True)).ok
        await asyncio.sleep(0.2)
    assert [session.complete for session in sessions(tmp_path)] == [True, True]


async def test_a_pause_releases_the_camera_and_says_so(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (run, caller):
        assert run.camera.open == 1
        answer = await caller.ask("pause", on=True)
        assert run.camera.open == 0
        assert answer.reason == "paused; camera and microphone are released"
        await until(lambda: caller.status("video") == {"state": "paused", "reason": "by command", "restarts": 0})
        # Estimates go on, and say that nobody is there.
        await until(lambda: caller.estimates()[-1]["top"] is None and caller.estimates()[-1]["faces"] == 0)
        assert (await caller.ask("pause", on=True)).ok
        openings = run.camera.openings
        resumed_s = run.clock.now()
        assert (await caller.ask("pause", on=False)).reason == "resumed"
        await until(lambda: caller.estimates()[-1]["top"] == "happy")
        assert run.camera.openings == openings + 1
        assert caller.status("video")["state"] == "running"
        assert (await caller.ask("pause", on=False)).reason == "not paused"
        numbers = [estimate["seq"] for estimate in caller.estimates()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert run.steering.resumed_s >= resumed_s
    states = [status.state for status in run.statuses if status.worker == "video"]
    assert states == [
        WorkerState.STARTING, WorkerState.RUNNING, WorkerState.PAUSED,
        WorkerState.STARTING, WorkerState.RUNNING, WorkerState.ENDED,
    ]  # fmt: skip


async def test_a_camera_that_was_taken_during_a_pause_is_waited_for(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (run, caller):
        await caller.ask("pause", on=True)
        run.camera.taken = True
        await caller.ask("pause", on=False)
        await until(lambda: caller.status("video")["state"] == "restarting")
        # Neither is a pause held up by the wait for the next try, nor does it take the camera when it comes.
        await caller.ask("pause", on=True)
        await until(lambda: caller.status("video")["state"] == "paused")
        run.camera.taken = False
        await caller.ask("pause", on=False)
        await until(lambda: caller.status("video")["state"] == "running")


async def test_a_camera_that_hangs_is_not_said_to_be_released(mosquitto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.programs.control.RELEASED_WITHIN_S", 0.3)
    async with running(mosquitto.port) as (run, caller):
        stuck = run.camera.stuck = threading.Event()
        answer = await caller.ask("pause", on=True)
        assert answer.reason == "paused; not released yet: video"
        await until(lambda: "not released yet" in caller.status("video")["reason"])
        stuck.set()
        await until(lambda: caller.status("video") == {"state": "paused", "reason": "by command", "restarts": 0})
        assert run.camera.open == 0


def test_what_was_captured_during_a_pause_is_not_perceived_later() -> None:
    steering = Steering()
    assert steering.takes(1.0)
    steering.pause.begin("by command")
    assert not steering.takes(2.0)
    steering.resumed_s = 3.0
    steering.pause.end()
    assert not steering.takes(2.9)
    assert steering.takes(3.0)


async def test_hop_and_smoothing_change_at_once_and_within_limits(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (run, caller):
        assert (await caller.ask("hop", seconds=0.5)).ok
        before = len(caller.estimates())
        await until(lambda: len(caller.estimates()) >= before + 4)
        times = [estimate["t"] for estimate in caller.estimates()]
        assert min(np.diff(times)[-2:]) > 0.49
        for seconds in (0.0199, 5.01, 0, -1):
            assert not (await caller.ask("hop", seconds=seconds)).ok
        await asyncio.sleep(1)
        assert (await caller.ask("smoothing", seconds=2)).ok
        assert run.pipeline.steadied.smoothing.seconds == 2
        assert not (await caller.ask("smoothing", seconds=31)).ok
        assert run.steering.hop_s == 0.5


async def test_nothing_is_taken_unless_it_is_allowed(mosquitto: Any) -> None:
    async with running(mosquitto.port, allowed=False) as (run, caller):
        caller.send("pause", b'{"on": true}')
        count = len(caller.estimates())
        await until(lambda: len(caller.estimates()) > count + 20)
        assert caller.on("set/pause")
        assert not caller.answers()
        assert run.camera.open == 1


@pytest.mark.parametrize("mqtt5", [True, False], ids=["MQTT 5", "3.1.1"])
async def test_a_command_that_was_kept_meets_no_new_run(mosquitto: Any, mqtt5: bool) -> None:
    early = Caller(mosquitto.port, mqtt5=mqtt5)
    early.send("pause", b'{"on": true}', retain=True)
    await until(lambda: early.on("set/pause"))
    early.close()
    async with running(mosquitto.port, mqtt5=mqtt5) as (run, caller):
        assert caller.on("set/pause")[0].retain
        # Our own side speaks MQTT 5 here in any case: what is to be retained is answered, and not carried out.
        caller.send("pause", b'{"on": true, "id": "kept"}', retain=True)
        await until(caller.answers)
        [answer] = caller.answers()
        assert (answer.ok, answer.id) == (False, "kept")
        assert "retained" in answer.reason
        caller.send("pause", b"", retain=True)
        assert (await caller.ask("hop", seconds=0.1)).ignored == 1
        assert run.camera.open == 1
        assert len(caller.answers()) == 2


async def test_a_broker_of_before_hands_over_commands_but_none_that_was_kept() -> None:
    async with embedded_broker(0) as address:
        early = await asyncio.to_thread(lambda: Caller(address.port, mqtt5=False))
        early.send("pause", b'{"on": true}', retain=True)
        await until(lambda: early.on("set/pause"))
        await asyncio.to_thread(early.close)
        caller = await asyncio.to_thread(lambda: Caller(address.port, mqtt5=False))
        run = Run(None)
        task = asyncio.create_task(run.run(address, allowed=True))
        await until(lambda: len(caller.estimates()) > 5)
        answer = await caller.ask("hop", seconds=0.2)
        assert answer.ok
        assert answer.ignored >= 1
        assert run.camera.open == 1
        run.stop.set()
        await task
        await asyncio.to_thread(caller.close)


async def test_answers_go_where_they_are_wanted_but_nowhere_else(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (_, caller):
        caller.send("hop", b'{"seconds": 0.1}', to="dhmd/hall/response/me", correlation=b"\x00\xff7")
        await until(lambda: caller.on("response/me"))
        [message] = caller.on("response/me")
        assert caller.answers("response/me")[0].ok
        assert message.properties is not None
        assert message.properties.CorrelationData == b"\x00\xff7"
        assert message.properties.UserProperty == [("schema", "response/1")]
        assert not message.retain
        for number, topic in enumerate(
            [
                "dhmd/hall/status",
                "dhmd/hall/set/pause",
                "homeassistant/x",
                "dhmd/hall/responses",
                "dhmd/hall/response/" + "x" * 200,
            ]
        ):
            before = len(caller.messages)
            caller.send("hop", b'{"seconds": 0.1}', to=topic, correlation=b"x")
            await until(lambda number=number: len(caller.on("response")) == number + 1)
            assert caller.on("response")[-1].properties.CorrelationData == b"x"  # type: ignore[union-attr]
            assert not [m for m in caller.messages[before:] if m.topic == topic and b"command" in m.payload]


async def test_commands_are_taken_again_when_the_broker_is_back(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (_, caller):
        await asyncio.to_thread(mosquitto.stop)
        await asyncio.to_thread(mosquitto.start)
        caller.close()
        again = await asyncio.to_thread(lambda: Caller(mosquitto.port, mqtt5=True))
        await until(lambda: len(again.estimates()) > 2)
        assert (await again.ask("hop", seconds=0.1)).ok
        again.close()


async def test_too_many_commands_are_counted_and_the_stream_goes_on(mosquitto: Any) -> None:
    async with running(mosquitto.port) as (_, caller):
        count = len(caller.estimates())
        for _ in range(300):
            caller.send("hop", b'{"seconds": 0.05}')
        await until(lambda: len(caller.on("set/hop")) == 300)
        await until(lambda: len(caller.estimates()) > count + 20)
        await asyncio.sleep(1)
        answer = await caller.ask("hop", seconds=0.05)
        assert answer.ok
        assert 200 < answer.ignored < 300
        assert answer.ignored + len(caller.answers()) == 301


async def test_what_fails_here_is_answered_and_told(mosquitto: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with running(mosquitto.port) as (run, caller):

        async def fail(*_: object) -> str:
            raise ZeroDivisionError

        run.control.carry_out = fail  # type: ignore[method-assign]
        answer = await caller.ask("hop", seconds=1)
        assert (answer.ok, answer.reason) == (False, "it failed here")
        del run.control.carry_out
        assert (await caller.ask("hop", seconds=1)).ok
    assert "command hop failed" in caplog.text


async def test_a_stream_that_may_not_listen_says_so_and_goes_on(
    start_mosquitto: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write dhmd/#\ntopic read dhmd/hall/emotion\n")
    acl.chmod(0o700)
    broker = start_mosquitto(lines=[f"acl_file {acl}"])
    with caplog.at_level(logging.WARNING):
        run = Run(None)
        address = BrokerAddress("127.0.0.1", broker.port)
        task = asyncio.create_task(run.run(address, allowed=True))
        await until(lambda: run.pipeline.statistics.estimates > 20)
        run.stop.set()
        await task
    # Mosquitto says so for each message instead, if at all: either way nothing else is complained of.
    assert all("does not let us subscribe" in record.getMessage() for record in caplog.records)


near_valid = st.fixed_dictionaries(
    {},
    optional={
        "on": st.booleans() | st.integers() | st.none() | st.text(max_size=5),
        "seconds": st.floats() | st.integers() | st.text(max_size=5) | st.just(10**400),
        "emotion": st.sampled_from([*EMOTIONS, "glad", "", None]) | st.text(max_size=20),
        "sentiment": st.floats() | st.integers(),
        "mark": st.sampled_from(["last", "begin", "end", "now"]),
        "id": st.text(max_size=80) | st.integers() | st.just("\ud800"),
        "more": st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=4),
    },
).map(lambda fields: json.dumps(fields).encode())
hostile = st.one_of(
    st.binary(max_size=64),
    st.binary(min_size=LARGEST - 1, max_size=LARGEST + 2),
    near_valid,
    near_valid.map(lambda payload: payload[:-1]),
    st.sampled_from(
        [b"", b"null", b"[]", b"{}", b"[" * LARGEST, b'{"a":' * 200, b'{"on":true,"on":false}', b"1" * LARGEST]
    ),
    st.sampled_from(
        [b'{"id":"\\ud800"}', b'{"seconds":NaN}', b'{"seconds":1e999}', b'{"on": true}\x00', b"\xef\xbb\xbf{}"]
    ),
)
names = st.sampled_from([*COMMANDS, "", "Pause", "réc", "record ", "$SYS", "a" * 300])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names, hostile)
def test_whatever_comes_is_a_command_or_refused(name: str, payload: bytes) -> None:
    try:
        command = read(name, payload)
    except CommandRefused:
        return
    assert isinstance(command, Command)
    assert len(payload) <= LARGEST


async def test_hostile_commands_are_answered_and_leave_the_run_untouched(
    mosquitto: Any, patient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Through the broker, each with an answer; what happens to be valid is let through nowhere."""
    sent: list[tuple[str, bytes]] = []

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(names.filter(bool), hostile)
    def collect(name: str, payload: bytes) -> None:
        try:
            read(name, payload)
        except CommandRefused:
            sent.append((name, payload))

    await asyncio.to_thread(collect)
    async with running(mosquitto.port) as (run, caller):
        for number, (name, payload) in enumerate(sent):
            caller.send(name, payload, to="dhmd/hall/response/" + "x" * (number % 300), correlation=bytes(number % 400))
            if number % 4 == 3:
                await until(lambda number=number: answered(caller) >= number - 4)
        await until(lambda: answered(caller) == len(sent))
        assert not any(answer.ok for answer in all_answers(caller))
        assert (await caller.ask("hop", seconds=0.1)).ignored == 0
        assert run.camera.openings == 1
        assert run.pipeline.steadied.smoothing.seconds == 0
        numbers = [estimate["seq"] for estimate in caller.estimates()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert [m.payload for m in caller.on("status")] == [b"online"]
    assert len(sent) > 100
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def answered(caller: Caller) -> int:
    return sum(message.topic.startswith("dhmd/hall/response") for message in list(caller.messages))


def all_answers(caller: Caller) -> list[Answer]:
    messages = [message for message in list(caller.messages) if message.topic.startswith("dhmd/hall/response")]
    return [Answer.model_validate_json(message.payload) for message in messages]


def test_an_average_over_time_follows_and_begins_anew() -> None:
    smoothing = Smoothing()
    first, second = inference(0.9, 2.0), inference(0.1, -2.0)
    assert smoothing.of(first, 0.0) is first
    smoothing.seconds = 1.0
    averaged = smoothing.of(second, 1.0)
    assert averaged is not None
    kept = np.exp(-1)
    assert averaged.emotions[EMOTIONS.index("happy")] == pytest.approx(0.9 * kept + 0.1 * (1 - kept))
    assert sum(averaged.emotions) == pytest.approx(1)
    assert averaged.sentiment.value == pytest.approx(2 * kept - 2 * (1 - kept))
    assert averaged.modality_sentiment == second.modality_sentiment
    assert smoothing.of(None, 2.0) is None
    assert smoothing.of(second, 3.0) is second
    smoothing.seconds = 0.0
    assert smoothing.of(first, 4.0) is first


def test_the_flags_fit_together(refuse: Callable[..., str], tmp_path: Path) -> None:
    run = ("run", "--source", CLIP)
    assert "--record-dir" in refuse(2, *run, "--record-dir", tmp_path)
    assert "--pace max" in refuse(2, *run, "--allow-control", "--pace", "max")
    assert "--broker none" in refuse(2, *run, "--allow-control", "--broker", "none")
    assert "is not a folder" in refuse(2, *run, "--allow-control", "--record-dir", tmp_path / "none")
    both = ("--allow-control", "--record-dir", tmp_path, "--record", tmp_path / "whole.mcap")
    assert "--record" in refuse(2, *run, *both)
    assert "--allow-control" in refuse(2, "web", "--allow-control")


def test_a_whole_run_is_paused_and_recorded_by_command(
    mosquitto: Any, start_live: Callable[..., Any], untrained_checkpoint: Path, tmp_path: Path
) -> None:
    caller = Caller(mosquitto.port, mqtt5=True)
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall",
        "--checkpoint", str(untrained_checkpoint), "--allow-control", "--record-dir", str(tmp_path),
    )  # fmt: skip

    def ask(name: str, **fields: Any) -> Answer:
        before = len(caller.answers())
        caller.send(name, json.dumps(fields).encode())
        command.wait_for(lambda: len(caller.answers()) > before)
        return caller.answers()[-1]

    command.wait_for(lambda: any(estimate["faces"] for estimate in caller.estimates()))
    assert ask("record", on=True).ok
    assert ask("pause", on=True).ok
    command.wait_for(lambda: caller.status("audio")["state"] == caller.status("video")["state"] == "paused")
    command.wait_for(lambda: caller.estimates()[-1]["top"] is None)
    assert ask("pause", on=False).ok
    resumed_s = time.time()
    command.wait_for(lambda: caller.estimates()[-1]["modalities"]["vision"]["present"])
    assert caller.estimates()[-1]["t"] > resumed_s - 1
    assert ask("mark", emotion="happy").ok
    command.interrupt()
    assert command.wait() == 0
    caller.close()
    [session] = sessions(tmp_path)
    assert session.complete
    assert [record.topic for record in session.records([schema.MARK])] == [schema.MARK]
