"""A stream as a device of Home Assistant, announced over MQTT; and taking back all that a stream left with the broker.

One message holds the whole device (Home Assistant from 2024.11). It is retained, and sent again when Home Assistant
says on `PREFIX/status` that it has started: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from paho.mqtt.client import MQTTMessage
from pydantic import BaseModel, RootModel

from dhmd.labels import CHANNELS, EMOTIONS
from realtime import event_loop
from realtime.errors import BrokerUnavailable, StreamAlive
from realtime.messages.estimate import Extra, ExtraNumber, Part
from realtime.messages.stream import AnyEvent, Speech
from realtime.messages.topics import EVENT, PEOPLE, STATE, STATUS, WORKER, Topic, base_topic
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import retained
from realtime.mqtt.connection import connect
from realtime.mqtt.publisher import Publisher
from realtime.mqtt.reasons import in_words, refusal
from realtime.mqtt.reconnection import LOST

if TYPE_CHECKING:
    from realtime.perception.people import PeopleInView
    from realtime.pipeline.outputs import Emitted

PREFIX: Final = "homeassistant"
PERCENT: Final = "{{ value if value == 'None' else (100 * value | float) | round | int }}"
LONGEST_STATE: Final = 255
"""Characters that Home Assistant takes as a state, at most."""


class Availability(Part):
    """Whether there is anything to be known. The template says `online` or `offline`."""

    topic: str
    value_template: str


class Component(Part):
    """One entity of the device."""

    platform: Literal["sensor", "binary_sensor", "event"]
    unique_id: str
    name: str
    state_topic: str
    availability: tuple[Availability, ...]
    availability_mode: Literal["all"] = "all"
    value_template: str | None = None
    device_class: str | None = None
    options: tuple[str, ...] | None = None
    event_types: tuple[str, ...] | None = None
    state_class: Literal["measurement"] | None = None
    unit_of_measurement: str | None = None
    suggested_display_precision: int | None = None
    icon: str | None = None
    enabled_by_default: bool | None = None


class Device(BaseModel):
    identifiers: tuple[str, ...]
    name: str
    manufacturer: str = "DHMD"
    model: str = "Emotion from face, voice and words"


class Origin(BaseModel):
    name: str = "dhmd-live"
    sw_version: str


class Announcement(BaseModel):
    """The whole device, as Home Assistant is told of it."""

    device: Device
    origin: Origin
    components: dict[str, Component]
    qos: Literal[0, 1] = 1


class Birth(RootModel[Literal["online", "offline"]]):
    """Home Assistant has started, or it ends."""


DISCOVERY: Final = Topic(
    "discovery",
    "device/{device}/config",
    Announcement,
    1,
    "Home Assistant must find it whenever it starts, so must it be there",
    retain=True,
    root="{prefix}",
)
BIRTH: Final = Topic(
    "birth",
    "status",
    Birth,
    1,
    "who missed it would not announce itself again; kept, it would be told of a start long ago",
    content_type="text/plain",
    root="{prefix}",
)


def announced_at(stream: str, prefix: str = PREFIX) -> str:
    """Returns the topic on which Home Assistant is told of a stream."""
    return DISCOVERY.at(prefix=prefix, device=_object_id(stream))


def announcement(stream: str, extra: Mapping[str, Extra] | None = None, *, several: bool = False) -> Announcement:
    """Returns the device that a stream is to Home Assistant: its flat values, face and speech, and its events.

    extra: what heads of the checkpoint's own say, from any estimate. several: people are followed. They are counted,
    and it is told who speaks; none of them becomes a device.

    All is unavailable while the stream is not online. What face, voice or words alone say is so, too, while the
    workers that perceive them do not run, be it that a camera was pulled out or that there never was one, or are too
    late to tell.
    """
    base, identity = base_topic(stream), _object_id(stream)
    online = Availability(
        topic=f"{base}/{STATUS.levels}", value_template="{{ 'online' if value == 'online' else 'offline' }}"
    )

    def running(worker: str) -> Availability:
        template = "{{ 'online' if value_json.state in ['running', 'behind'] else 'offline' }}"
        return Availability(topic=f"{base}/{WORKER.levels.format(worker=worker)}", value_template=template)

    def value(name: str, platform: Literal["sensor", "binary_sensor"], *workers: str, **more: Any) -> Component:
        return Component(
            platform=platform,
            unique_id=f"{identity}_{name}",
            name=name.capitalize().replace("_", " of "),
            state_topic=f"{base}/{STATE.levels.format(value=name)}",
            availability=(online, *map(running, workers)),
            **more,
        )

    def measured(name: str, icon: str, digits: int = 2, **more: Any) -> Component:
        described = {"state_class": "measurement", "suggested_display_precision": digits, "icon": f"mdi:{icon}"}
        return value(name, "sensor", **described, **more)

    def share(name: str, icon: str, **more: Any) -> Component:
        return measured(name, icon, 0, unit_of_measurement="%", value_template=PERCENT, **more)

    def own(name: str, said: Extra) -> Component:
        topic, title = f"extra_{name}", name.capitalize().replace("_", " ")
        if isinstance(said, ExtraNumber):
            return measured(topic, "gauge", unit_of_measurement=said.unit or None).model_copy(update={"name": title})
        options = tuple(said.probabilities)
        made = value(topic, "sensor", device_class="enum", options=options, icon="mdi:shape-outline")
        return made.model_copy(update={"name": title})

    people: dict[str, Component] = {}
    if several:
        people["people"] = measured("people", "account-group-outline", 0)
        people["speaker"] = value(
            "speaker", "sensor", device_class="enum", options=get_args(Speech), icon="mdi:account-voice"
        )
    happening = Component(
        platform="event",
        unique_id=f"{identity}_event",
        name="Event",
        state_topic=f"{base}/{EVENT.levels}",
        availability=(online,),
        event_types=tuple(kind.model_fields["event"].default for kind in get_args(AnyEvent)),
        value_template="{{ dict(value_json, event_type=value_json.event) | to_json }}",
        icon="mdi:emoticon-happy-outline",
    )
    return Announcement(
        device=Device(identifiers=(identity,), name=f"DHMD {stream}"),
        origin=Origin(sw_version=version("dhmd")),
        components={
            "emotion": value("emotion", "sensor", device_class="enum", options=EMOTIONS, icon="mdi:emoticon-outline"),
            "probability": share("probability", "percent-outline"),
            "sentiment": measured("sentiment", "thumbs-up-down-outline"),
            "valence": measured("valence", "plus-minus-variant"),
            "arousal": measured("arousal", "pulse"),
            "face": value("face", "binary_sensor", "video", "face", device_class="occupancy"),
            "speech": value("speech", "binary_sensor", "audio", "voice", device_class="sound"),
            # What was said would be kept in Home Assistant's history: only for who asks for it there.
            "words": value(
                "words",
                "sensor",
                "audio",
                "transcript",
                icon="mdi:text",
                enabled_by_default=False,
                value_template=f"{{{{ value[:{LONGEST_STATE}] }}}}",
            ),
            **{
                f"influence_{channel}": share(f"influence_{channel}", "scale-balance", enabled_by_default=False)
                for channel in CHANNELS.values()
            },
            **{f"extra_{name}": own(name, said) for name, said in (extra or {}).items()},
            **people,
            "event": happening,
        },
    )


class Announcer:
    """A sink that keeps Home Assistant told of a stream, while its publisher lives; to be made before that connects.

    What heads of the checkpoint's own say is announced with the first estimate that has it: whoever recognises, here or
    elsewhere, knows them.
    """

    def __init__(self, publisher: Publisher, stream: str, prefix: str = PREFIX) -> None:
        self._publisher, self._stream, self._prefix = publisher, stream, prefix
        self._known: dict[str, Extra] = {}
        self._several = False
        self._announce()
        publisher.listen(BIRTH.at(prefix=prefix), self._on_status)

    def on_estimate(self, emission: Emitted) -> None:
        new = {name: said for name, said in emission.estimate.extra.items() if name not in self._known}
        if new:
            self._known |= new
            self._announce()

    def on_people(self, _: PeopleInView) -> None:
        if not self._several:
            self._several = True
            self._announce()

    def _announce(self) -> None:
        device = announcement(self._stream, self._known, several=self._several)
        payload = device.model_dump_json(exclude_none=True).encode()
        self._publisher.announce(announced_at(self._stream, self._prefix), DISCOVERY, payload)

    def _on_status(self, message: MQTTMessage) -> None:
        if message.payload == b"online":
            self._announce()


def forget(broker: BrokerAddress, stream: str, prefix: str = PREFIX) -> list[str]:
    """Remove all that the broker keeps of a stream, which takes its device out of Home Assistant, too.

    Gives the topics that were cleared. Raises StreamAlive, BrokerRefused, BrokerUnavailable.
    """
    try:
        return event_loop.run(_forget(broker, stream, prefix))
    except LOST as error:
        raise refusal(broker, error) or BrokerUnavailable(f"{broker} is away ({in_words(error)})") from error


async def _forget(broker: BrokerAddress, stream: str, prefix: str) -> list[str]:
    base = base_topic(stream)
    status = f"{base}/{STATUS.levels}"
    levels = STATUS.levels, PEOPLE.levels, WORKER.levels.format(worker="+"), STATE.levels.format(value="+")
    async with connect(broker) as client:
        patterns = (*(f"{base}/{level}" for level in levels), announced_at(stream, prefix))
        kept = await retained(client, patterns)
        if kept.get(status) == b"online":
            raise StreamAlive(f"{stream} is online and would be announced again; end its run first")
        for name in kept:
            await client.publish(name, b"", qos=1, retain=True)
    return sorted(kept)


def _object_id(stream: str) -> str:
    """Returns a stream's name in letters, digits, _ and -, all that is allowed; with a hash where it held more."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", stream)
    return f"dhmd_{plain}" if plain == stream else f"dhmd_{plain}_{hashlib.sha256(stream.encode()).hexdigest()[:6]}"
