"""Taking a stream in, as a program that is not ours would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as mqtt
import pytest

from realtime import Compact, Estimate, Event, Metrics, People, Transcript, subscribe
from realtime.errors import BrokerRefused, SettingsInvalid
from realtime.messages.stream import FaceAppeared
from realtime.mqtt import connection

M = TypeVar("M")
PATIENCE_S = 60.0
MANUAL = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text()


def shown(topic: str) -> dict[str, Any]:
    """The first example of a topic in the manual."""
    section = MANUAL.split(f"## `dhmd/STREAM/{topic}`\n")[1]
    found = re.search(r"```json\n(.*?)```", section, re.DOTALL)
    assert found
    message: dict[str, Any] = json.loads(found[1])
    return message


class Feed:
    """Publishes messages over and over, each with a number of its own, from a client with none of our code."""

    def __init__(self, port: int, topic: str, payload: dict[str, Any]) -> None:
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed, args=(topic, payload), daemon=True)
        self._thread.start()

    def _feed(self, topic: str, payload: dict[str, Any]) -> None:
        seq = 0
        while not self._ended.wait(0.02):
            numbered = payload | {"seq": seq} if "seq" in payload else payload
            self._client.publish(topic, json.dumps(numbered))
            seq += 1

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def feeding(port: int, topic: str = "dhmd/hall/emotion", payload: dict[str, Any] | None = None) -> Iterator[Feed]:
    feed = Feed(port, topic, payload or shown("emotion"))
    try:
        yield feed
    finally:
        feed.close()


def first(messages: AsyncGenerator[M, None], many: int = 1) -> list[M]:
    async def take() -> list[M]:
        taken: list[M] = []
        async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(messages):
            async for message in messages:
                taken.append(message)
                if len(taken) == many:
                    break
        return taken

    return asyncio.run(take())


def test_estimates_come_typed_and_in_order(mosquitto: Any) -> None:
    with feeding(mosquitto.port):
        estimates = first(subscribe(mosquitto.url, stream="hall"), 5)
    assert all(type(estimate) is Estimate for estimate in estimates)
    numbers = [estimate.seq for estimate in estimates]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert estimates[0] == Estimate.model_validate(shown("emotion") | {"seq": numbers[0]})


@pytest.mark.parametrize(
    ("topic", "what"),
    [
        ("emotion/compact", Compact),
        ("transcript", Transcript),
        ("event", Event),
        ("metrics", Metrics),
        ("people", People),
    ],
)
def test_what_else_is_live_comes_typed_too(mosquitto: Any, topic: str, what: type[Any]) -> None:
    with feeding(mosquitto.port, f"dhmd/hall/{topic}", shown(topic)):
        (message,) = first(subscribe(mosquitto.url, "hall", what=what))
    assert message == what.model_validate(shown(topic))


@pytest.mark.parametrize("person", [2, "all"])
def test_the_estimates_of_each_person_come_with_their_number(mosquitto: Any, person: Any) -> None:
    with feeding(mosquitto.port, "dhmd/hall/person/2/emotion", shown("person/ID/emotion")):
        (estimate,) = first(subscribe(mosquitto.url, "hall", person=person))
    assert (estimate.person, estimate.silent) == (2, "another")


def test_a_person_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="person: a number from 1, or all"):
        subscribe("mqtt://localhost", person=0)


def test_without_a_name_all_streams_come(mosquitto: Any) -> None:
    with (
        feeding(mosquitto.port, "dhmd/hall/event", {"v": 1, "t": 1.0, "event": "face_appeared"}),
        feeding(mosquitto.port, "dhmd/desk/event", {"v": 1, "t": 2.0, "event": "face_appeared"}),
    ):
        events = first(subscribe(mosquitto.url, what=Event), 100)
    assert {event.root for event in events} == {FaceAppeared(t=1.0), FaceAppeared(t=2.0)}


def test_it_comes_back_with_the_broker_and_says_once_that_it_was_away(
    mosquitto: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def take() -> None:
        estimates = subscribe(mosquitto.url, stream="hall")
        async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(estimates):
            await anext(estimates)
            await asyncio.to_thread(mosquitto.stop)
            waiting = asyncio.ensure_future(anext(estimates))
            while "is away" not in caplog.text:
                waiting = waiting if not waiting.done() else asyncio.ensure_future(anext(estimates))
                await asyncio.sleep(0.02)
            await asyncio.sleep(2)
            await asyncio.to_thread(mosquitto.start)
            await waiting

    with feeding(mosquitto.port), caplog.at_level(logging.WARNING):
        asyncio.run(take())
    assert caplog.text.count("is away") == 1


def test_fields_of_a_later_program_are_left_out_and_what_is_no_estimate_is_told_once(
    mosquitto: Any, caplog: pytest.LogCaptureFixture
) -> None:
    later = shown("emotion") | {"mood": "content"}
    later["modalities"]["vision"]["smile"] = 0.5
    with feeding(mosquitto.port, payload=later) as feed, caplog.at_level(logging.WARNING):

        async def take() -> Estimate:
            estimates = subscribe(mosquitto.url, stream="hall")
            async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(estimates):
                await anext(estimates)
                for payload in (b"not json", b"\xff\x00", b"{}", b'{"v": 2}'):
                    await asyncio.to_thread(feed.say, "dhmd/hall/emotion", payload)
                at = json.loads((await anext(estimates)).model_dump_json())["seq"]
                while (estimate := await anext(estimates)).seq < at + 50:
                    pass
                return estimate

        estimate = asyncio.run(take())
    assert not hasattr(estimate, "mood")
    assert [record.message.split(" (")[0] for record in caplog.records] == ["dhmd/hall/emotion: no Estimate"]


def test_who_is_slow_misses_the_oldest(mosquitto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "INBOX", 10)

    async def take() -> tuple[int, list[int]]:
        estimates = subscribe(mosquitto.url, stream="hall")
        async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(estimates):
            before = (await anext(estimates)).seq
            await asyncio.sleep(2)
            return before, [(await anext(estimates)).seq for _ in range(10)]

    with feeding(mosquitto.port):
        before, numbers = asyncio.run(take())
    assert numbers[0] > before + 20
    assert numbers == list(range(numbers[0], numbers[0] + 10))


def test_a_wrong_login_ends_it(start_mosquitto: Callable[..., Any]) -> None:
    broker = start_mosquitto(password="s3cret")
    with pytest.raises(BrokerRefused, match="refuses us") as refused:
        first(subscribe(f"mqtt://recogniser:wr0ng@127.0.0.1:{broker.port}", stream="hall"))
    assert "wr0ng" not in str(refused.value)


def test_what_must_not_be_read_is_said_rather_than_waited_for(
    start_mosquitto: Callable[..., Any], tmp_path: Path
) -> None:
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    rules = tmp_path / "rules.json"
    rules.write_text(
        json.dumps({"defaultACLAccess": access, "anonymousGroup": "all", "groups": [{"groupname": "all"}]})
    )
    rules.chmod(0o644)
    plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
    if plugin is None:
        pytest.skip("needs Debian's mosquitto with its plugin for access rules")
    broker = start_mosquitto(lines=[f"plugin {plugin}", f"plugin_opt_config_file {rules}"])
    with pytest.raises(BrokerRefused, match="does not let us read dhmd/hall/emotion: not authorised"):
        first(subscribe(broker.url, stream="hall"))


def test_wrong_requests_are_found_at_once() -> None:
    with pytest.raises(SettingsInvalid, match="expected mqtt"):
        subscribe("localhost")
    with pytest.raises(SettingsInvalid, match="--stream"):
        subscribe("mqtt://localhost", stream="a/b")
    with pytest.raises(TypeError, match="expected Estimate, Compact, Transcript, Event, Metrics"):
        subscribe("mqtt://localhost", what=FaceAppeared)


def test_nothing_heavy_is_loaded_to_take_a_stream_in() -> None:
    script = """
import sys, realtime
assert len([name for name in sys.modules if name.startswith(("realtime", "dhmd"))]) == 1
from realtime import subscribe, Estimate, Event
print(*{name.partition(".")[0] for name in sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "cv2", "mediapipe", "av", "transformers", "faster_whisper", "onnxruntime", "sounddevice", "rich"}
    assert "pydantic" in done.stdout.split()
    assert not heavy & set(done.stdout.split())
    with pytest.raises(AttributeError):
        __import__("realtime").nothing  # noqa: B018


def test_leaving_the_loop_closes_the_connection(mosquitto: Any) -> None:
    async def leave() -> None:
        async for _ in subscribe(mosquitto.url, stream="hall"):
            break
        deadline_s = time.monotonic() + PATIENCE_S
        while len(asyncio.all_tasks()) > 1:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)

    with feeding(mosquitto.port):
        asyncio.run(leave())
