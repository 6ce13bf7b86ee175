"""Document of all topics that are used here, as an AsyncAPI 3 document.

`python -m realtime.programs.asyncapi` prints it; it is kept in docs/asyncapi.yaml.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import yaml
from pydantic.json_schema import models_json_schema

from realtime.messages.topics import CLAIM, COMMANDS, EMOTION, PEOPLE, PERSON, RESPONSE, TOPICS, Topic
from realtime.mqtt.discovery import BIRTH, DISCOVERY
from realtime.scale.topics import DIRECTED, PRESENCE, REFUSED, RESYNC, WINDOW

BINDING: Final = "0.2.0"
"""Version of AsyncAPI's MQTT binding."""
PROTOBUF: Final = "application/vnd.google.protobuf;version=2"
PARAMETERS: Final = {
    "stream": "name of the stream, --stream of the publisher; visitors of a page are STREAM-1, STREAM-2, ...",
    "worker": "video, audio, face, voice, transcript, recording, people or rates",
    "id": "number of a person, counted up from 1 in each run",
    "value": "emotion, probability, sentiment, valence, arousal, face, speech or words",
    "server": "name of a server: twelve random digits",
    "prefix": "below which Home Assistant looks for devices: --discovery-prefix, homeassistant",
    "device": "dhmd_STREAM",
}
RUN, EDGE, SERVE = "run", "edge", "serve"
PROGRAMS: Final = {
    RUN: "dhmd-live run, demo and web; replay sends what it replays",
    EDGE: "dhmd-live edge",
    SERVE: "dhmd-live serve; those of a group share the windows for any server: $share/GROUP/dhmd/+/window",
}
Sides = Sequence[tuple[Topic, tuple[str, ...]]]
"""Topics, and the programs on this side of them."""
SENT: Final[Sides] = (
    (EMOTION, (RUN, SERVE)),
    *((topic, (RUN, EDGE)) for topic in TOPICS if topic is not EMOTION),
    (PERSON, (RUN, SERVE)),
    (PEOPLE, (RUN, EDGE)),
    (CLAIM, (RUN, EDGE)),
    (RESPONSE, (RUN,)),
    (DISCOVERY, (RUN,)),
    (WINDOW, (EDGE,)),
    (DIRECTED, (EDGE,)),
    (RESYNC, (SERVE,)),
    (REFUSED, (SERVE,)),
    (PRESENCE, (SERVE,)),
)
TAKEN: Final[Sides] = (
    (CLAIM, (RUN, EDGE)),
    (BIRTH, (RUN,)),
    (WINDOW, (SERVE,)),
    (DIRECTED, (SERVE,)),
    (EMOTION, (EDGE,)),
    (PERSON, (EDGE,)),
    (RESYNC, (EDGE,)),
    (REFUSED, (EDGE,)),
    (PRESENCE, (EDGE,)),
)


def document() -> dict[str, Any]:
    """Return what is published and what is taken, from the same models that payloads are built and read with."""
    sent, taken = [topic for topic, _ in SENT], [*COMMANDS.values(), BIRTH]
    topics = (*sent, *taken)
    models = [(topic.payload, "serialization") for topic in sent if topic.protobuf is None]
    models += [(topic.payload, "validation") for topic in taken]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    binary = {
        topic.payload.__name__: {"schemaFormat": PROTOBUF, "schema": topic.protobuf} for topic in sent if topic.protobuf
    }
    for schema in schemas["$defs"].values():
        if "discriminator" in schema:
            # AsyncAPI's is the name of the property alone.
            schema["discriminator"] = schema["discriminator"]["propertyName"]
    reply = {"reply": {"channel": {"$ref": f"#/channels/{RESPONSE.name}"}}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DHMD live",
            "version": "1.0.0",
            "description": "The emotion that a face, a voice and words show, as a stream over MQTT. See docs/mqtt.md.",
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": program, "description": what} for program, what in PROGRAMS.items()],
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {"host": "localhost:1883", "protocol": "mqtt", "description": "the one named by --broker"}
        },
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {f"publish_{topic.name}": _publishing(topic, programs) for topic, programs in SENT}
        # A stream carries commands out if it was started with --allow-control.
        | {topic.name: _taking(topic, (RUN,)) | reply for topic in COMMANDS.values()}
        | {f"take_{topic.name}": _taking(topic, programs) for topic, programs in TAKEN},
        "components": {
            "messages": {topic.name: _message(topic) for topic in topics},
            "schemas": schemas["$defs"] | binary,
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.address,
        "messages": {topic.name: {"$ref": f"#/components/messages/{topic.name}"}},
        "parameters": {name: {"description": PARAMETERS[name]} for name in re.findall(r"{(\w+)}", topic.address)},
    }


def _publishing(topic: Topic, programs: Sequence[str]) -> dict[str, Any]:
    binding: dict[str, Any] = {"qos": topic.qos, "retain": topic.retain, "bindingVersion": BINDING}
    if topic.expiry_s is not None:
        binding["messageExpiryInterval"] = topic.expiry_s
    return _operation("send", topic, f"Delivered so because {topic.why}.", programs, binding)


def _taking(topic: Topic, programs: Sequence[str]) -> dict[str, Any]:
    binding = {"qos": topic.qos, "bindingVersion": BINDING}
    return _operation("receive", topic, f"Sent so because {topic.why}.", programs, binding)


def _operation(
    action: str, topic: Topic, summary: str, programs: Sequence[str], binding: dict[str, Any]
) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": summary,
        "tags": [{"name": program} for program in programs],
        "bindings": {"mqtt": binding},
    }


def _message(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "summary": (topic.payload.__doc__ or "").split("\n\n")[0],
        "contentType": topic.content_type,
        "payload": {"$ref": f"#/components/schemas/{topic.payload.__name__}"},
    }


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it stands, and each thing out wherever it stands."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def text() -> str:
    """The document as YAML."""
    head = "# Made by `python -m realtime.programs.asyncapi` from the models in realtime/; a test compares.\n"
    return head + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    sys.stdout.write(text())
