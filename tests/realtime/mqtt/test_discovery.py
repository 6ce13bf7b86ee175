"""The stream as a device of Home Assistant, and forgetting it."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dhmd.labels import EMOTIONS
from realtime.clock import StreamClock
from realtime.demo import CLIP
from realtime.layers import read_settings
from realtime.messages.estimate import ExtraClasses, ExtraNumber
from realtime.messages.stream import EmotionChanged, FaceAppeared, WorkerReport
from realtime.messages.topics import STATE
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.discovery import Announcer, announced_at, announcement, forget
from realtime.mqtt.publisher import Publisher
from realtime.mqtt.stream import PublisherSink, _State
from realtime.perception.people import PeopleInView, PersonInView
from realtime.perception.speaking import Turn
from realtime.pipeline.pipeline import Emission, Statistics
from realtime.recognition.events import Events
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.mqtt.test_client import shown
from tests.realtime.web.test_feed import emission

TOPIC = r"^[^+#\x00]+$"
CONFIG = "homeassistant/device/dhmd_hall/config"


class Strict(BaseModel):
    """What the schemas of Home Assistant 2024.11 take: homeassistant/components/mqtt, schemas.py, sensor.py,
    binary_sensor.py and event.py; see https://www.home-assistant.io/integrations/mqtt/. It leaves out what it does not
    know; here that is an error. The package itself needs Python 3.12 and 300 MB; 2024.11.3, tried once by hand, took
    all that is announced, by its schemas and its templates.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class HAAvailability(Strict):
    topic: str = Field(pattern=TOPIC)
    payload_available: str = "online"
    payload_not_available: str = "offline"
    value_template: str | None = None


class HAEntity(Strict):
    unique_id: str = Field(min_length=1)
    name: str
    state_topic: str = Field(pattern=TOPIC)
    availability: list[HAAvailability] = Field(min_length=1)
    availability_mode: Literal["all", "any", "latest"] = "latest"
    value_template: str | None = None
    icon: str | None = Field(None, pattern="^mdi:[a-z-]+$")
    enabled_by_default: bool = True


class HASensor(HAEntity):
    platform: Literal["sensor"]
    device_class: Literal["enum"] | None = None
    """Of the many there are, those without a unit of their own."""
    options: list[str] | None = None
    state_class: Literal["measurement", "total", "total_increasing", "measurement_angle"] | None = None
    unit_of_measurement: str | None = None
    suggested_display_precision: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _options_stand_alone(self) -> HASensor:
        if self.options is not None:
            assert self.options
            assert self.device_class == "enum"
            assert self.state_class is None
            assert self.unit_of_measurement is None
        else:
            assert self.device_class != "enum"
        return self


class HABinarySensor(HAEntity):
    platform: Literal["binary_sensor"]
    device_class: Literal["occupancy", "presence", "sound", "running", "connectivity", "problem"] | None = None


class HAEvent(HAEntity):
    platform: Literal["event"]
    device_class: Literal["button", "doorbell", "motion"] | None = None
    event_types: list[str] = Field(min_length=1)


class HADevice(Strict):
    identifiers: list[str] = Field(min_length=1)
    name: str
    manufacturer: str
    model: str


class HAOrigin(Strict):
    name: str
    sw_version: str | None = None


class HADiscovery(Strict):
    device: HADevice
    origin: HAOrigin
    components: dict[str, HASensor | HABinarySensor | HAEvent]
    qos: Literal[0, 1, 2] = 0


def rendered(template: str, payload: str) -> str:
    """As Home Assistant does: `value` is the text, `value_json` what it says if it is JSON."""
    environment = ImmutableSandboxedEnvironment()
    environment.filters["to_json"] = json.dumps
    try:
        known = {"value": payload, "value_json": json.loads(payload)}
    except ValueError:
        known = {"value": payload}
    return environment.from_string(template).render(known)


def told(stream: str = "hall") -> HADiscovery:
    return HADiscovery.model_validate_json(announcement(stream).model_dump_json(exclude_none=True))


def test_the_device_is_one_that_home_assistant_takes() -> None:
    device = told()
    platforms = {name: component.platform for name, component in device.components.items()}
    assert platforms == {
        **dict.fromkeys(["emotion", "probability", "sentiment", "valence", "arousal", "words"], "sensor"),
        **dict.fromkeys(["influence_face", "influence_voice", "influence_words"], "sensor"),
        **dict.fromkeys(["face", "speech"], "binary_sensor"),
        "event": "event",
    }
    identities = [component.unique_id for component in device.components.values()]
    assert len(set(identities)) == len(identities)
    emotion = device.components["emotion"]
    assert isinstance(emotion, HASensor)
    assert emotion.options == list(EMOTIONS)
    assert [name for name, component in device.components.items() if not component.enabled_by_default] == [
        *("words", "influence_face", "influence_voice", "influence_words")
    ]


def test_values_read_as_home_assistant_wants_them() -> None:
    components = told().components
    percent, words = components["probability"].value_template, components["words"].value_template
    assert percent
    assert words
    assert [rendered(percent, text) for text in ("0.93", "0.07", "1.00", "None")] == ["93", "7", "100", "None"]
    assert rendered(words, "x" * 300) == "x" * 255
    assert rendered(words, "None") == "None"


def test_events_say_their_type_and_all_types_are_announced() -> None:
    event = told().components["event"]
    assert isinstance(event, HAEvent)
    assert event.value_template
    changed = EmotionChanged(t=1.5, emotion=None, before="sad", probability=None)
    for happened in (changed, FaceAppeared(t=2.0)):
        read = json.loads(rendered(event.value_template, happened.model_dump_json()))
        assert read.pop("event_type") == happened.event
        assert read == happened.model_dump()
    kinds = re.findall(r'"event": "(\w+)"', (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text())
    assert event.event_types == list(dict.fromkeys(kinds))


def test_what_cannot_be_known_is_unavailable() -> None:
    def available(component: str, status: str, **workers: WorkerState) -> bool:
        entity = told().components[component]
        assert entity.availability_mode == "all"
        says = {"dhmd/hall/status": status} | {
            f"dhmd/hall/status/{name}": WorkerReport(state=state, reason="", restarts=0).model_dump_json()
            for name, state in workers.items()
        }
        # Home Assistant takes what it has not heard of as not available.
        return all(
            one.topic in says and rendered(one.value_template or "", says[one.topic]) == one.payload_available
            for one in entity.availability
        )

    runs, lost = WorkerState.RUNNING, WorkerState.RESTARTING
    assert available("emotion", "online")
    assert not available("emotion", "stopped")
    assert not available("emotion", "offline")
    assert available("face", "online", video=runs, face=runs)
    assert not available("face", "offline", video=runs, face=runs)
    assert not available("face", "online", video=lost, face=runs)
    assert not available("face", "online", audio=runs, voice=runs)
    assert available("speech", "online", audio=runs, voice=runs)
    assert available("speech", "online", audio=runs, voice=WorkerState.BEHIND)
    assert not available("speech", "online", audio=runs, voice=WorkerState.LATE)
    assert not available("words", "online", audio=runs, transcript=WorkerState.PAUSED)


@pytest.mark.parametrize("stream", ["hall", "Flur-1", "böse", "a.b", "a_b", "ключ"])
def test_every_name_of_a_stream_gives_a_topic_that_is_allowed(stream: str) -> None:
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", announced_at(stream))
    assert told(stream).device.name == f"DHMD {stream}"


def test_names_that_read_alike_are_devices_of_their_own() -> None:
    assert len({announced_at(stream) for stream in ("a.b", "a_b", "a:b")}) == 3


class Announced:
    """A publisher that announces its stream, on an event loop of its own."""

    def __init__(self, url: str, prefix: str = "homeassistant") -> None:
        self._address, self._prefix = BrokerAddress.parse(url), prefix
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._publisher = Publisher(self._address, "hall", lambda _: None)
        self._announcer = Announcer(self._publisher, "hall", self._prefix)
        self._state = _State(self._publisher)
        self._publisher.publish_worker(WorkerStatus("video", WorkerState.RUNNING))
        self._publisher.keep(STATE, b"happy", value="emotion")
        self._ready.set()
        await self._publisher.run()

    def estimates(self, made: Emission) -> None:
        """Another estimate is there."""

        def told() -> None:
            self._announcer.on_estimate(made)
            self._state.show(made.estimate, Events())

        self._loop.call_soon_threadsafe(told)

    def people(self, view: PeopleInView) -> None:
        """Somebody is in view."""

        def told() -> None:
            self._announcer.on_people(view)
            PublisherSink(self._publisher, StreamClock(), Statistics(), state=True).on_people(view)

        self._loop.call_soon_threadsafe(told)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._publisher.close)
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_it_is_retained_and_told_again_when_home_assistant_starts(
    mosquitto: Any, subscribe: Callable[..., Any], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version == "3.1.1":
        monkeypatch.setattr(BrokerAddress, "parse", _only_311(BrokerAddress.parse))
    listener = subscribe(mosquitto.port)
    stream = Announced(mosquitto.url)
    listener.wait_for(lambda: listener.payloads(CONFIG))
    HADiscovery.model_validate_json(listener.payloads(CONFIG)[0])
    listener.say("homeassistant/status", b"offline")
    for times in (2, 3):
        listener.say("homeassistant/status", b"online")
        listener.wait_for(lambda times=times: len(listener.payloads(CONFIG)) == times)
    stream.close()
    listener.wait_for(lambda: listener.statuses("hall")[-1:] == ["stopped"])
    late = subscribe(mosquitto.port)
    late.wait_for(lambda: late.payloads(CONFIG))
    assert [retained for topic, _, retained in late.received if topic == CONFIG] == [True]
    assert len(set(listener.payloads(CONFIG))) == 1


def test_what_heads_of_ones_own_say_becomes_entities_with_the_first_estimate(
    mosquitto: Any, subscribe: Callable[..., Any]
) -> None:
    mood = ExtraClasses(top="bored", probabilities={"engaged": 0.2, "bored": 0.7, "contempt": 0.1})
    rating = ExtraNumber(value=3.25, low=2.5, high=4.0, range=(1, 5), unit="points")
    listener = subscribe(mosquitto.port)
    stream = Announced(mosquitto.url)
    listener.wait_for(lambda: listener.payloads(CONFIG))
    stream.estimates(emission(1.0, extra={"mood": mood, "self_rating": rating}))
    listener.wait_for(lambda: len(listener.payloads(CONFIG)) == 2)
    stream.estimates(emission(1.1, extra={"mood": mood, "self_rating": rating}))
    listener.say("homeassistant/status", b"online")
    listener.wait_for(lambda: len(listener.payloads(CONFIG)) == 3)
    stream.close()
    before, *after = (HADiscovery.model_validate_json(told).components for told in listener.payloads(CONFIG))
    for components in after:
        assert components.keys() - before.keys() == {"extra_mood", "extra_self_rating"}
    moods, ratings = components["extra_mood"], components["extra_self_rating"]
    assert isinstance(moods, HASensor)
    assert isinstance(ratings, HASensor)
    assert (moods.name, moods.options) == ("Mood", ["engaged", "bored", "contempt"])
    assert (ratings.name, ratings.unit_of_measurement) == ("Self rating", "points")
    listener.wait_for(lambda: listener.payloads(moods.state_topic)[:1] == [b"bored"])
    listener.wait_for(lambda: listener.payloads(ratings.state_topic)[:1] == [b"3.25"])


def test_people_are_counted_and_none_of_them_becomes_a_device(mosquitto: Any, subscribe: Callable[..., Any]) -> None:
    listener = subscribe(mosquitto.port)
    stream = Announced(mosquitto.url)
    listener.wait_for(lambda: listener.payloads(CONFIG))
    two = tuple(PersonInView(number, 1.0, (0.1 * number, 0.2, 0.1 * number + 0.1, 0.4)) for number in (1, 2))
    stream.people(PeopleInView(2.0, two, Turn(1.5, 2.0, None, overlapped=False)))
    listener.wait_for(lambda: len(listener.payloads(CONFIG)) == 2)
    stream.people(PeopleInView(2.5, two))
    listener.wait_for(lambda: listener.payloads("dhmd/hall/state/speaker")[1:])
    stream.close()
    before, after = (HADiscovery.model_validate_json(told) for told in listener.payloads(CONFIG))
    assert after.components.keys() - before.components.keys() == {"people", "speaker"}
    assert after.device == before.device
    speaker, people = after.components["speaker"], after.components["people"]
    assert isinstance(speaker, HASensor)
    assert listener.payloads(people.state_topic)[0] == b"2"
    said = [payload.decode() for payload in listener.payloads(speaker.state_topic)]
    assert said[:2] == ["outside", "nobody"]
    assert set(said[:2]) <= set(speaker.options or ())
    assert forget(BrokerAddress.parse(mosquitto.url), "hall")
    assert not forget(BrokerAddress.parse(mosquitto.url), "hall"), "nothing is left"


def _only_311(parse: Callable[[str], BrokerAddress]) -> Callable[[str], BrokerAddress]:
    from dataclasses import replace

    return lambda url: replace(parse(url), only_311=True)


def test_forgetting_clears_all_that_is_retained(
    mosquitto: Any, subscribe: Callable[..., Any], live: Callable[..., Any]
) -> None:
    stream = Announced(mosquitto.url, prefix="home/ha")
    listener = subscribe(mosquitto.port)
    config = "home/ha/device/dhmd_hall/config"
    listener.wait_for(lambda: listener.payloads(config) and listener.payloads("dhmd/hall/state/emotion"))
    forgetting = ("forget", "hall", "--broker", mosquitto.url, "--discovery-prefix", "home/ha")
    refused = live(*forgetting)
    assert refused.code == 1
    assert refused.line == "error: hall is online and would be announced again; end its run first"
    stream.close()
    listener.say("dhmd/desk/status", b"stopped", retain=True)

    done = live(*forgetting)
    assert (done.code, done.err) == (0, "")
    kept = [config, "dhmd/hall/state/emotion", "dhmd/hall/status", "dhmd/hall/status/video"]
    assert done.out.split() == sorted(kept)
    for topic in kept:
        listener.wait_for(lambda topic=topic: listener.payloads(topic)[-1] == b"")
    late = subscribe(mosquitto.port)
    late.say("dhmd/hall/now", b"")
    late.wait_for(lambda: late.payloads("dhmd/hall/now"))
    assert {topic for topic, _, _ in late.received} == {"dhmd/desk/status", "dhmd/hall/now"}
    assert live(*forgetting).out == f"{mosquitto.url} keeps nothing of hall\n"


def test_forgetting_without_a_broker(mosquitto: Any, live: Callable[..., Any]) -> None:
    mosquitto.stop()
    outcome = live("forget", "hall", "--broker", mosquitto.url)
    assert outcome.code == 1
    assert outcome.line.startswith(f"error: {mosquitto.url} is away (")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--broker", "none"], "--discovery announces a live stream at a broker"),
        (["--source", str(CLIP), "--pace", "max"], "--discovery announces a live stream at a broker"),
        (["--discovery-prefix", "home/#"], "--discovery-prefix: expected levels of a topic"),
    ],
)
def test_wrong_requests(refuse: Callable[..., str], flags: list[str], complaint: str) -> None:
    assert complaint in refuse(2, "run", "--discovery", *flags)


def test_visitors_are_no_devices(refuse: Callable[..., str]) -> None:
    assert "--discovery: each visitor" in refuse(2, "web", "--discovery")


def test_a_run_announces_itself_with_its_values(
    mosquitto: Any, subscribe: Callable[..., Any], start_live: Callable[..., Any], untrained_checkpoint: Path
) -> None:
    listener = subscribe(mosquitto.port)
    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall", "--discovery",
        "--checkpoint", str(untrained_checkpoint),
    )  # fmt: skip
    command.wait_for(lambda: listener.payloads(CONFIG))
    device = HADiscovery.model_validate_json(listener.payloads(CONFIG)[0])
    topics = {entity.state_topic for name, entity in device.components.items() if name not in {"event", "words"}}
    topics |= {one.topic for entity in device.components.values() for one in entity.availability}
    # All that Home Assistant then waits for does come.
    command.wait_for(lambda: all(listener.payloads(topic) for topic in topics))
    command.interrupt()
    assert command.wait() == 0


def test_the_manuals_automation_reads_an_event() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text()
    found = re.search(r"```yaml\n(automation:.*?)```", manual, re.DOTALL)
    assert found
    (automation,) = yaml.safe_load(found[1])["automation"]
    event = told().components["event"]
    assert event.value_template
    attributes = json.loads(rendered(event.value_template, json.dumps(shown("event"))))
    entity = automation["triggers"][0]["entity_id"]
    assert entity == "event.dhmd_hall_event"

    environment = ImmutableSandboxedEnvironment()
    condition = environment.from_string(automation["conditions"])
    assert condition.render(trigger={"to_state": {"attributes": attributes}}) == "True"
    assert condition.render(trigger={"to_state": {"attributes": attributes | {"emotion": "sad"}}}) == "False"


def test_the_configuration_file_knows_it(tmp_path: Path) -> None:
    file = tmp_path / "live.yaml"
    file.write_text("source: camera:0\ndiscovery: true\ndiscovery_prefix: home\n")
    settings = read_settings(file, {})
    assert settings.discovery
    assert settings.discovery_prefix == "home"
