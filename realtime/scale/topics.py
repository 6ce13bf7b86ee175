"""The topics between edges and servers."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, RootModel

from realtime.messages.estimate import Part
from realtime.messages.topics import ROOT, Topic
from realtime.scale.window_message import SCHEMA

HERE, GONE = b"here", b"gone"
"""Words of a server on its own topic; the latter is its last will, too."""
PROTOBUF: Final = "application/x-protobuf"


class WindowPayload(RootModel[bytes]):
    """What a stream's window gained since the message before, or all of it: a message Window."""


class Resync(Part):
    """A server misses rows, and asks for a full window."""

    server: str
    session: str = Field(description="of the edge that is asked")


class Refusal(Resync):
    """A server does not take a stream; another one may."""

    reason: str


class Presence(RootModel[Literal["here", "gone"]]):
    """A server takes streams, or does no longer."""


WINDOW: Final = Topic(
    "window",
    "window",
    WindowPayload,
    0,
    "the next one comes a moment later, and what a lost one held is asked for",
    content_type=PROTOBUF,
    protobuf=SCHEMA,
)
DIRECTED: Final = Topic(
    "window_directed",
    "window/{server}",
    WindowPayload,
    0,
    "as the windows for any server",
    content_type=PROTOBUF,
    protobuf=SCHEMA,
)
RESYNC: Final = Topic("resync", "window/resync", Resync, 0, "it is asked for again as long as rows are missing")
REFUSED: Final = Topic("refused", "window/refused", Refusal, 0, "it is told again when the stream is opened again")
PRESENCE: Final = Topic(
    "presence",
    "{server}",
    Presence,
    1,
    "a server that goes must be known at once; who comes later finds one by opening its stream",
    content_type="text/plain",
    root=f"{ROOT}/serve",
)

OPENINGS: Final = WINDOW.at(stream="+")
"""Topics of the openings, which servers share: see `shared`."""
SERVERS: Final = PRESENCE.at(server="+")


def shared(group: str) -> str:
    """The subscription of a group of servers: each opening goes to one of them."""
    return f"$share/{group}/{OPENINGS}"


def stream_of(topic: str) -> str:
    return topic.split("/", 2)[1]
