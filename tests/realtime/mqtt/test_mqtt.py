"""The stream as others receive it: a real Mosquitto, a second client, and faults at every moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dhmd.labels import EMOTIONS
from realtime.bench.mqtt import to_second_client
from realtime.demo import CLIP
from realtime.errors import SettingsInvalid
from realtime.messages.estimate import (
    Dropped,
    Estimate,
    Graph,
    Latency,
    Modalities,
    ModalityEstimate,
    ModelName,
    SentimentEstimate,
)
from realtime.messages.stream import COMPACT_LIMIT
from realtime.messages.topics import EMOTION
from realtime.mqtt.broker import DEFAULT_PORT, BrokerAddress
from realtime.mqtt.embedded import embedded_broker
from realtime.mqtt.publisher import Publisher
from realtime.workers import WorkerState, WorkerStatus

StartLive = Callable[..., Any]
Subscribe = Callable[..., Any]
HOP_S = 0.02


def an_estimate(seq: int) -> Estimate:
    present = ModalityEstimate(present=True, age_s=0.03, weight=1.0, sentiment=1.5)
    absent = ModalityEstimate(present=False, age_s=None, weight=0.0, sentiment=None)
    return Estimate(
        stream="test",
        seq=seq,
        t=1_700_000_000.0 + seq / 10,
        window=(1_699_999_995.0 + seq / 10, 1_700_000_000.0 + seq / 10),
        sentiment=SentimentEstimate(value=1.5, low=0.5, high=2.5),
        emotions={name: 0.7 if name == "happy" else 0.05 for name in EMOTIONS},
        top="happy",
        valence=0.6,
        arousal=0.4,
        modalities=Modalities(vision=present, audio=absent, text=absent),
        graph=Graph(homo={}, hetero={}),
        faces=1,
        transcript="what wonderful news, and so many words that a narrow terminal would break the line in two",
        latency_ms=Latency(capture_to_estimate=50.0, inference=5.0),
        dropped=Dropped(video=0, audio=0),
        model=ModelName(name="base", checkpoint="0123456789ab"),
    )


class Stream:
    """A publisher on an event loop of its own, fed with numbered estimates."""

    def __init__(self, address: BrokerAddress) -> None:
        self.seq = 0
        self.connections: list[str] = []
        self.errors: list[BaseException] = []
        self._address = address
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.publisher = Publisher(self._address, "test", self.connections.append)
        publishing = asyncio.create_task(self.publisher.run())
        feeding = asyncio.create_task(self._feed())
        self._ready.set()
        try:
            await publishing
        except Exception as error:  # noqa: BLE001 - told to the test
            self.errors.append(error)
        feeding.cancel()

    async def _feed(self) -> None:
        while True:
            self.publisher.publish(EMOTION, an_estimate(self.seq).model_dump_json().encode())
            self.seq += 1
            await asyncio.sleep(HOP_S)

    def call(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.call(self.publisher.close)
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def streaming(url: str) -> Iterator[Stream]:
    stream = Stream(BrokerAddress.parse(url))
    try:
        yield stream
    finally:
        stream.close()


def test_a_second_client_receives_the_stream_in_order_and_the_statuses_are_retained(
    mosquitto: Any, subscribe: Subscribe
) -> None:
    early = subscribe(mosquitto.port)
    with streaming(mosquitto.url) as stream:
        early.wait_for(lambda: len(early.estimates("test")) >= 10)
        stream.call(lambda: stream.publisher.publish_worker(WorkerStatus("video", WorkerState.RUNNING)))
        early.wait_for(lambda: early.payloads("dhmd/test/status/video"))
        late = subscribe(mosquitto.port)
        late.wait_for(lambda: len(late.estimates("test")) >= 3 and late.payloads("dhmd/test/status/video"))
    received = early.estimates("test")
    numbers = [estimate["seq"] for estimate in received]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert received[0] == json.loads(an_estimate(numbers[0]).model_dump_json())
    assert {retained for topic, _, retained in late.received if topic == "dhmd/test/emotion"} == {False}
    assert ("dhmd/test/status", b"online", True) in late.received
    assert json.loads(late.payloads("dhmd/test/status/video")[0]) == {"state": "running", "reason": "", "restarts": 0}
    early.wait_for(lambda: early.statuses("test")[-1:] == ["stopped"])
    assert early.statuses("test") == ["online", "stopped"]
    after = subscribe(mosquitto.port)
    after.wait_for(lambda: after.statuses("test"))
    assert ("dhmd/test/status", b"stopped", True) in after.received


def test_what_was_handed_over_before_the_end_is_on_the_wire_before_stopped(
    mosquitto: Any, subscribe: Subscribe
) -> None:
    listener = subscribe(mosquitto.port)
    with streaming(mosquitto.url) as stream:
        listener.wait_for(lambda: listener.estimates("test"))

        def burst_and_close() -> None:
            for seq in range(1000, 1020):
                stream.publisher.publish(EMOTION, an_estimate(seq).model_dump_json().encode())
            stream.publisher.close()

        stream.call(burst_and_close)
    listener.wait_for(lambda: listener.statuses("test")[-1:] == ["stopped"])
    assert [e["seq"] for e in listener.estimates("test") if e["seq"] >= 1000] == list(range(1000, 1020))


def test_a_user_with_a_password_is_let_in(start_mosquitto: Callable[..., Any], subscribe: Subscribe) -> None:
    broker = start_mosquitto(password="s3cret")
    listener = subscribe(broker.port, broker.USER, "s3cret")
    with streaming(broker.url):
        listener.wait_for(lambda: listener.estimates("test"))


@pytest.mark.parametrize("login", ["recogniser:wr0ng@", "nobody:s3cret@", ""], ids=["password", "user", "none"])
def test_a_wrong_login_is_final(start_mosquitto: Callable[..., Any], login: str) -> None:
    broker = start_mosquitto(password="s3cret")
    with streaming(f"mqtt://{login}127.0.0.1:{broker.port}") as stream:
        stream._thread.join(60)
    assert len(stream.errors) == 1
    message = str(stream.errors[0])
    assert "refuses us" in message
    assert "\n" not in message
    assert "wr0ng" not in message
    assert "s3cret" not in message


def test_estimates_return_soon_after_the_broker_and_none_is_delivered_late(
    mosquitto: Any, subscribe: Subscribe
) -> None:
    listener = subscribe(mosquitto.port)
    with streaming(mosquitto.url) as stream:
        listener.wait_for(lambda: listener.estimates("test"))
        mosquitto.stop()
        gone_at = stream.seq
        while stream.seq < gone_at + 5 / HOP_S:
            assert not stream.errors
            time.sleep(HOP_S)
        mosquitto.start()
        back_at = stream.seq
        listener.wait_for(lambda: listener.estimates("test")[-1]["seq"] >= back_at)
        numbers = [estimate["seq"] for estimate in listener.estimates("test")]
    # Counted in estimates, not in time: a busy machine slows both alike.
    first_after = next(seq for seq in numbers if seq >= back_at)
    assert first_after - back_at <= 3 / HOP_S
    assert numbers == sorted(set(numbers))
    assert not [seq for seq in numbers if gone_at + 3 < seq < back_at]
    assert stream.connections == ["connected", "away", "connected"]
    assert stream.publisher.undelivered >= back_at - gone_at - 3
    listener.wait_for(lambda: listener.statuses("test")[-1] == "stopped")


def test_a_run_goes_on_while_its_broker_is_away(
    mosquitto: Any, subscribe: Subscribe, start_live: StartLive, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    listener = subscribe(mosquitto.port)
    file = tmp_path / "estimates.jsonl"
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall",
        "--checkpoint", str(untrained_checkpoint), "--estimates", str(file),
    )  # fmt: skip
    command.wait_for(lambda: len(listener.estimates("hall")) >= 5)
    mosquitto.stop()
    gone_at = len(written(file))
    command.wait_for(lambda: len(written(file)) >= gone_at + 50)
    mosquitto.start()
    back_at = len(written(file))
    command.wait_for(lambda: listener.estimates("hall")[-1]["seq"] >= back_at)
    first_after = next(e["seq"] for e in listener.estimates("hall") if e["seq"] >= back_at)
    assert first_after - back_at <= 30
    command.interrupt()
    assert command.wait() == 0
    listener.wait_for(lambda: listener.statuses("hall")[-1] == "stopped")
    estimates = written(file)
    assert [e["seq"] for e in estimates] == list(range(len(estimates)))
    # One line for the absence, not one an attempt.
    away = [line for line in command.err.splitlines() if "is away" in line]
    assert len(away) == 1
    assert away[0].startswith(f"warning: broker {mosquitto.url} is away (")
    assert "recognition continues" in away[0]


def written(file: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that is being written."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]


def test_a_broker_that_is_down_at_start_is_told_once_and_used_when_it_comes(
    mosquitto: Any, subscribe: Subscribe, start_live: StartLive, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    mosquitto.stop()
    file = tmp_path / "estimates.jsonl"
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall",
        "--checkpoint", str(untrained_checkpoint), "--estimates", str(file),
    )  # fmt: skip
    command.wait_for(lambda: len(written(file)) >= 20)
    mosquitto.start()
    listener = subscribe(mosquitto.port)
    command.wait_for(lambda: listener.estimates("hall"))
    listener.wait_for(lambda: listener.statuses("hall")[-1] == "online")
    command.interrupt()
    assert command.wait() == 0
    # A busy machine may have more to tell.
    [line] = [line for line in command.err.splitlines() if "broker" in line]
    assert line.startswith(f"warning: broker {mosquitto.url} is away (")
    assert "recognition continues, trying again" in line


def test_the_last_will_tells_that_a_run_died(
    mosquitto: Any, subscribe: Subscribe, start_live: StartLive, untrained_checkpoint: Path
) -> None:
    listener = subscribe(mosquitto.port)
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall",
        "--checkpoint", str(untrained_checkpoint),
    )  # fmt: skip
    command.wait_for(lambda: listener.estimates("hall"))
    command.kill()
    listener.wait_for(lambda: listener.statuses("hall")[-1] == "offline")
    assert listener.statuses("hall") == ["online", "offline"]
    late = subscribe(mosquitto.port)
    late.wait_for(lambda: late.statuses("hall"))
    assert ("dhmd/hall/status", b"offline", True) in late.received


def test_a_refused_password_ends_the_run_with_three_and_is_not_shown(
    start_mosquitto: Callable[..., Any], start_live: StartLive, untrained_checkpoint: Path
) -> None:
    broker = start_mosquitto(password="s3cret")
    command = start_live(
        "run", "--source", str(CLIP), "--checkpoint", str(untrained_checkpoint),
        "--broker", f"mqtt://127.0.0.1:{broker.port}",
        environment={"DHMD_BROKER_USER": "recogniser", "DHMD_BROKER_PASSWORD": "wr0ng"},
    )  # fmt: skip
    assert command.wait() == 3
    assert len(command.err.splitlines()) == 1, command.err
    assert command.err.startswith(f"error: mqtt://recogniser@127.0.0.1:{broker.port} refuses us: ")
    assert "set DHMD_BROKER_USER and DHMD_BROKER_PASSWORD" in command.err
    assert "wr0ng" not in command.out + command.err


def test_the_way_to_a_second_client_is_measured_from_one_estimate_to_the_other(mosquitto: Any) -> None:
    address = BrokerAddress.parse(mosquitto.url)
    latencies_ms, lost, sizes = asyncio.run(to_second_client(address, [an_estimate(0)], 1.0))
    assert len(latencies_ms) == len(sizes) >= 9
    assert lost == 0
    assert 0 < min(latencies_ms) <= max(latencies_ms) < 60_000
    assert 100 < min(sizes) <= max(sizes) <= COMPACT_LIMIT


def test_the_embedded_broker_serves_a_second_client_and_makes_way_when_its_port_is_taken(subscribe: Subscribe) -> None:
    async def serve() -> None:
        with contextlib.suppress(OSError):
            # Taken by us, or by a broker of this machine: taken in any case.
            taken.enter_context(socket.create_server(("127.0.0.1", DEFAULT_PORT)))
        async with embedded_broker() as address:
            assert address.host == "127.0.0.1"
            assert address.port != DEFAULT_PORT
            listener = await asyncio.to_thread(subscribe, address.port)
            publisher = Publisher(address, "test", lambda _: None)
            publishing = asyncio.create_task(publisher.run())
            await publisher.tried.wait()
            for seq in range(3):
                publisher.publish(EMOTION, an_estimate(seq).model_dump_json().encode())
            await publisher.settled()
            publisher.close()
            await publishing
            await asyncio.to_thread(listener.wait_for, lambda: "stopped" in listener.statuses("test"))
            assert [estimate["seq"] for estimate in listener.estimates("test")] == [0, 1, 2]
            assert listener.statuses("test") == ["online", "stopped"]
            await asyncio.to_thread(listener.close)

    with contextlib.ExitStack() as taken:
        asyncio.run(serve())


def test_watch_prints_one_line_an_estimate_however_long(mosquitto: Any, start_live: StartLive) -> None:
    watching = start_live("watch", "--broker", mosquitto.url, "--stream", "test")
    watching.wait_for(lambda: "watching dhmd/test" in watching.out)
    with streaming(mosquitto.url) as stream:
        watching.wait_for(lambda: "happy" in watching.out)
        stream.call(lambda: stream.publisher.publish(EMOTION, b"not json"))
        watching.wait_for(lambda: "not an estimate" in watching.out)
    watching.wait_for(lambda: "dhmd/test/status: stopped" in watching.out)
    lines = watching.out.splitlines()
    estimates = [line for line in lines if "happy" in line]
    assert all(
        line.endswith(f'face+ voice- words-  happy 0.70  sentiment +1.50  "{an_estimate(0).transcript}"')
        for line in estimates
    )
    assert "dhmd/test/status: online" in lines
    assert "dhmd/test/emotion: not an estimate of version 1 (1 problems)" in lines
    watching.interrupt()
    assert watching.wait() == 130
    assert watching.err == ""


def test_watch_waits_for_a_broker_that_is_away_and_ends_at_a_wrong_password(
    start_mosquitto: Callable[..., Any], start_live: StartLive
) -> None:
    broker = start_mosquitto(password="s3cret")
    broker.stop()
    login = {"DHMD_BROKER_USER": broker.USER, "DHMD_BROKER_PASSWORD": "s3cret"}
    watching = start_live("watch", "--broker", f"mqtt://127.0.0.1:{broker.port}", environment=login)
    watching.wait_for(lambda: "is away" in watching.err)
    broker.start()
    watching.wait_for(lambda: "watching dhmd/+" in watching.out)
    assert len(watching.err.splitlines()) == 1
    assert "s3cret" not in watching.err + watching.out
    stranger = start_live("watch", "--broker", f"mqtt://recogniser:wr0ng@127.0.0.1:{broker.port}")
    assert stranger.wait() == 3
    warned, refused = stranger.err.splitlines()
    assert warned.startswith("warning: --broker: a password among the arguments can be read by others")
    assert "--broker-password-file" in warned
    assert refused.startswith("error: mqtt://recogniser@127.0.0.1")
    assert "wr0ng" not in stranger.err


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker.local", BrokerAddress("broker.local", 1883)),
        ("mqtts://broker.local", BrokerAddress("broker.local", 8883, tls=True)),
        ("mqtt://me:s3cr%2Fet@10.0.0.1:99", BrokerAddress("10.0.0.1", 99, username="me", password="s3cr/et")),
        ("mqtt://[::1]:1884/", BrokerAddress("::1", 1884)),
    ],
)
def test_addresses_of_brokers(url: str, address: BrokerAddress) -> None:
    assert BrokerAddress.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "broker.local",
        "me:s3cret@broker.local",
        "http://me:s3cret@broker.local",
        "mqtt://",
        "mqtt://me:s3cret@",
        "mqtt://me:s3cret@broker.local:port",
        "mqtt://me:s3cret@broker.local:99999",
        "mqtt://me:s3cret/x@broker.local",
        "mqtt://me:s3cret?x@broker.local",
        "mqtt://me:s3cret#x@broker.local",
        "mqtt://broker.local/s3cret",
        "mqtt://[::1",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        BrokerAddress.parse(url)
    assert "expected mqtt[s]://" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_the_text_of_an_address_hides_the_password() -> None:
    address = BrokerAddress.parse("mqtts://me:s3cret@broker.local")
    assert str(address) == "mqtts://me@broker.local:8883"
    assert "s3cret" not in repr(address)
