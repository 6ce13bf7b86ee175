"""The topics of a stream as an AsyncAPI 3 document.

`python -m realtime.asyncapi` prints it; it is kept in docs/asyncapi.yaml.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import yaml
from pydantic.json_schema import models_json_schema

from realtime.mqtt.topics import COMMANDS, RESPONSE, ROOT, TOPICS, Topic

BINDING: Final = "0.2.0"
"""Version of AsyncAPI's MQTT binding."""
PARAMETERS: Final = {
    "stream": "name of the stream, --stream of the publisher; visitors of a page are STREAM-1, STREAM-2, ...",
    "worker": "video, audio, face, voice, transcript or recording",
    "value": "emotion, probability, sentiment, valence, arousal, face, speech or words",
}


def document() -> dict[str, Any]:
    """What the process publishes and what it takes, from the same models that it builds and reads payloads with."""
    sent, taken = (*TOPICS, RESPONSE), tuple(COMMANDS.values())
    models = [(topic.payload, "serialization") for topic in sent]
    models += [(topic.payload, "validation") for topic in taken]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    for schema in schemas["$defs"].values():
        if "discriminator" in schema:
            # AsyncAPI's is the name of the property alone.
            schema["discriminator"] = schema["discriminator"]["propertyName"]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DHMD live",
            "version": "1.0.0",
            "description": "Emotion of a person, from face, voice and words, as a stream over MQTT. See docs/mqtt.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {"host": "localhost:1883", "protocol": "mqtt", "description": "the one named by --broker"}
        },
        "channels": {topic.name: _channel(topic) for topic in (*sent, *taken)},
        "operations": {f"publish_{topic.name}": _operation(topic) for topic in sent}
        | {topic.name: _taking(topic) for topic in taken},
        "components": {
            "messages": {topic.name: _message(topic) for topic in (*sent, *taken)},
            "schemas": schemas["$defs"],
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    levels = ["stream", *(name for name in PARAMETERS if f"{{{name}}}" in topic.levels)]
    return {
        "address": f"{ROOT}/{{stream}}/{topic.levels}",
        "messages": {topic.name: {"$ref": f"#/components/messages/{topic.name}"}},
        "parameters": {name: {"description": PARAMETERS[name]} for name in levels},
    }


def _operation(topic: Topic) -> dict[str, Any]:
    binding: dict[str, Any] = {"qos": topic.qos, "retain": topic.retain, "bindingVersion": BINDING}
    if topic.expiry_s is not None:
        binding["messageExpiryInterval"] = topic.expiry_s
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"Delivered so because {topic.why}.",
        "bindings": {"mqtt": binding},
    }


def _taking(topic: Topic) -> dict[str, Any]:
    """Of a command, which a stream carries out if it was started with --allow-control."""
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"Sent so because {topic.why}.",
        "bindings": {"mqtt": {"qos": topic.qos, "bindingVersion": BINDING}},
        "reply": {"channel": {"$ref": f"#/channels/{RESPONSE.name}"}},
    }


def _message(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "summary": (topic.payload.__doc__ or "").split("\n\n")[0],
        "contentType": topic.content_type,
        "payload": {"$ref": f"#/components/schemas/{topic.payload.__name__}"},
    }


def text() -> str:
    """The document as YAML."""
    head = "# Made by `python -m realtime.asyncapi` from the models in realtime/; a test compares.\n"
    return head + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    sys.stdout.write(text())
