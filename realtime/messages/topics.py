"""The topics of a stream: what each carries, how it is delivered, and why so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel

from realtime.errors import SettingsInvalid
from realtime.messages.commands import Answer, Command, SetHop, SetMark, SetPause, SetRecord, SetSmoothing
from realtime.messages.estimate import Estimate
from realtime.messages.stream import (
    Claim,
    Compact,
    Event,
    Metrics,
    People,
    StateValue,
    StreamStatus,
    Transcript,
    WorkerReport,
)

ROOT: Final = "dhmd"
NO_VALUE: Final = "None"
"""Text of a flat value where there is none; Home Assistant reads it as unknown."""


@dataclass(frozen=True, slots=True)
class Topic:
    """levels: below `root`; a level in braces is filled in. why: of QoS and retain.

    expiry_s: after which a broker of MQTT 5 no longer delivers it. frequent: worth a topic alias. protobuf: the
    payload's messages, where it is binary, in the language of .proto files.
    """

    name: str
    levels: str
    payload: type[BaseModel]
    qos: Literal[0, 1]
    why: str
    retain: bool = False
    content_type: str = "application/json"
    expiry_s: int | None = None
    frequent: bool = False
    root: str = f"{ROOT}/{{stream}}"
    protobuf: str | None = None

    @property
    def address(self) -> str:
        """All of its levels, those in braces still to be filled in."""
        return f"{self.root}/{self.levels}"

    def at(self, **levels: str) -> str:
        """Its name with these levels filled in."""
        return self.address.format(**levels)


EMOTION: Final = Topic(
    "emotion",
    "emotion",
    Estimate,
    0,
    "the next one comes a moment later, and an old one is worth nothing",
    expiry_s=10,
    frequent=True,
)
COMPACT: Final = Topic(
    "compact",
    "emotion/compact",
    Compact,
    0,
    "as the full estimate",
    expiry_s=10,
    frequent=True,
)
TRANSCRIPT: Final = Topic(
    "transcript",
    "transcript",
    Transcript,
    1,
    "a final word is told once, so it must arrive; what was said is not kept for who comes later",
    expiry_s=60,
)
EVENT: Final = Topic(
    "event",
    "event",
    Event,
    1,
    "each is told once, so it must arrive; for who comes later it has passed",
    expiry_s=60,
)
METRICS: Final = Topic(
    "metrics",
    "metrics",
    Metrics,
    0,
    "the next one comes ten seconds later, and its counters go on",
    expiry_s=30,
)
STATUS: Final = Topic(
    "status",
    "status",
    StreamStatus,
    1,
    "who comes later must know at once whether the stream lives",
    retain=True,
    content_type="text/plain",
)
WORKER: Final = Topic(
    "worker",
    "status/{worker}",
    WorkerReport,
    1,
    "as the status of the stream",
    retain=True,
)
STATE: Final = Topic(
    "state",
    "state/{value}",
    StateValue,
    1,
    "a value is told when it changes, so it must arrive, and who comes later must find it",
    retain=True,
    content_type="text/plain",
)

SPOKEN: Final = Topic(
    "spoken",
    "state/words",
    StateValue,
    1,
    "final words are told once, so they must arrive; what was said is not kept for who comes later",
    content_type="text/plain",
    expiry_s=60,
)

PERSON: Final = Topic(
    "person",
    "person/{id}/emotion",
    Estimate,
    0,
    "as the estimate of the stream",
    expiry_s=10,
)
PEOPLE: Final = Topic(
    "people",
    "people",
    People,
    1,
    "it is told when it changes, so it must arrive, and who comes later must find it",
    retain=True,
)

TOPICS: Final = (EMOTION, COMPACT, TRANSCRIPT, EVENT, METRICS, STATUS, WORKER, STATE, SPOKEN)
"""Topics that every run publishes on."""

CLAIM: Final = Topic(
    "claim",
    "claim",
    Claim,
    1,
    "a run that begins has to hear of one that is there",
    expiry_s=5,
)
"""Runs speak to one another here: a stream has one at a time."""

RESPONSE: Final = Topic(
    "response",
    "response",
    Answer,
    1,
    "each command is answered once, so it must arrive; to who comes later it says nothing",
    expiry_s=60,
)


def _command(name: str, payload: type[Command]) -> Topic:
    why = "it is carried out once, so it must arrive; kept, it would be told to every new run"
    return Topic(f"set_{name}", f"set/{name}", payload, 1, why)


COMMANDS: Final = {
    "record": _command("record", SetRecord),
    "pause": _command("pause", SetPause),
    "mark": _command("mark", SetMark),
    "hop": _command("hop", SetHop),
    "smoothing": _command("smoothing", SetSmoothing),
}
"""Commands that a run obeys where that is allowed, by name. Published by others, answered on RESPONSE."""


def check_stream_name(stream: str, flag: str = "--stream") -> str:
    """A stream's name is one level of a topic. Raises SettingsInvalid."""
    if not stream or len(stream.encode()) > 64 or not stream.isprintable() or set(stream) & set("/+#$ "):
        raise SettingsInvalid(f"{flag}: expected 1 to 64 bytes without spaces and / + # $, found {stream!r}")
    return stream


def base_topic(stream: str) -> str:
    return f"{ROOT}/{stream}"
