"""Open Sound Control (opensoundcontrol.stanford.edu), for TouchDesigner, Max, SuperCollider and the like: over UDP."""

from __future__ import annotations

import logging
import re
import socket
from typing import Any, Final, Self
from urllib.parse import urlsplit

from dhmd.errors import extra
from realtime.errors import SettingsInvalid
from realtime.messages.estimate import ExtraClasses, own_numbers
from realtime.outlets.numbers import marker_of, numbers_of
from realtime.pipeline.outputs import Emitted
from realtime.recognition.events import Events

logger = logging.getLogger(__name__)
RESERVED: Final = re.compile(r"[^!-~]|[#*,/?\[\]{}]")
"""What no part of an address may hold: all but visible ASCII, and the signs of its patterns."""


class OscOutlet:
    """A sink that sends each estimate as one bundle, to be taken at once, and each event as a message.

    A number goes to `/dhmd/STREAM/NAME`, the top emotion to `/dhmd/STREAM/top`, an event to `/dhmd/STREAM/event`; what
    heads of the checkpoint's own say to `/dhmd/STREAM/extra_NAME`. What there is none of is not sent.

    Raises SettingsInvalid, LibraryMissing.
    """

    def __init__(self, stream: str, address: str) -> None:
        self._below = f"/dhmd/{RESERVED.sub('_', stream)}"
        self._address = address
        self._events = Events()
        self._told = False
        host, port = host_and_port(address)
        with extra("osc", "--osc"):
            from pythonosc.udp_client import UDPClient
        try:
            # The library would look a name up anew for each packet.
            family, *_, found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise SettingsInvalid(f"--osc {address}: {error.strerror}; name another host") from None
        self._client = UDPClient(str(found[0]), port, family=family)

    def on_estimate(self, emission: Emitted) -> None:
        from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder

        estimate = emission.estimate
        bundle: Any = OscBundleBuilder(IMMEDIATELY)
        for name, value in numbers_of(estimate).items():
            if value is not None:
                bundle.add_content(_message(f"{self._below}/{name}", value))
        bundle.add_content(_message(f"{self._below}/top", estimate.top or "none"))
        for name, value in own_numbers(estimate.extra).items():
            bundle.add_content(_message(f"{self._below}/extra_{RESERVED.sub('_', name)}", value))
        for name, one in estimate.extra.items():
            if isinstance(one, ExtraClasses):
                bundle.add_content(_message(f"{self._below}/extra_{name}", one.top))
        for event in self._events.take(estimate):
            bundle.add_content(_message(f"{self._below}/event", marker_of(event)))
        try:
            self._client.send(bundle.build())
        except OSError as error:
            if not self._told:
                logger.warning("--osc %s: %s; it is tried again with each estimate", self._address, error.strerror)
            self._told = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def host_and_port(address: str) -> tuple[str, int]:
    """Return both of HOST:PORT. Raises SettingsInvalid."""
    parts = urlsplit(f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.netloc != address or "@" in address:
        raise SettingsInvalid(f"--osc: expected HOST:PORT, such as 127.0.0.1:9000, found {address!r}")
    return host, port


def _message(address: str, value: float | str) -> Any:
    from pythonosc.osc_message_builder import OscMessageBuilder

    message = OscMessageBuilder(address)
    message.add_arg(value)
    return message.build()
