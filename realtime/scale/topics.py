"""The topics between edges and servers."""

from __future__ import annotations

from typing import Final

from realtime.mqtt import check_stream_name

RESYNC: Final = "resync"
REFUSED: Final = "refused"
OPENINGS: Final = "dhmd/+/window"
"""What servers share: see `shared`."""
SERVERS: Final = "dhmd/serve/+"
HERE, GONE = b"here", b"gone"
"""What a server says on its own topic; the latter is its last will, too."""


def shared(group: str) -> str:
    """The subscription of a group of servers: each opening goes to one of them."""
    return f"$share/{group}/{OPENINGS}"


def check_group_name(group: str) -> str:
    """Raises SettingsInvalid."""
    return check_stream_name(group, "--group")


def estimates(stream: str) -> str:
    return f"dhmd/{stream}/emotion"


def opening(stream: str) -> str:
    """Full windows, for any server."""
    return f"dhmd/{stream}/window"


def directed(stream: str, server: str) -> str:
    """Windows for one server; with + for the stream, all of them."""
    return f"dhmd/{stream}/window/{server}"


def resync(stream: str) -> str:
    """A server misses rows: JSON {"server", "session"}."""
    return directed(stream, RESYNC)


def refused(stream: str) -> str:
    """A server does not take a stream: JSON {"server", "session", "reason"}."""
    return directed(stream, REFUSED)


def presence(server: str) -> str:
    return f"dhmd/serve/{server}"


def stream_of(topic: str) -> str:
    return topic.split("/", 2)[1]
