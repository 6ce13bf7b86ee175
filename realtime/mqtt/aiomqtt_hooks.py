"""All that we need of aiomqtt 2, and of paho beneath it, beyond what they make public.

aiomqtt waits for answers that no longer come, forgets a loss that comes with the broker's answer, registers sockets
that are closed by then, and keeps what the broker says of itself. paho's callbacks, which are public, tell all of it;
private to aiomqtt are three names alone: `_client`, which is paho's client, and the futures `_connected` and
`_disconnected`. paho takes packets of any size; it asks for the rest of one by its private `_sock_recv`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import aiomqtt
from paho.mqtt.client import MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from realtime.mqtt.reasons import ClosedEarly, in_words

MOST_TAKEN: Final = 16 * 2**20
"""Bytes of a packet. A broker that announces more is hung up on."""


class HookedClient(aiomqtt.Client):
    """A connection that tells what befalls it, as it does. Of one use: it is entered once."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.lost: BaseException | None = None
        """Reason for which the connection was lost; None while it is not."""
        self._call_on_lost: Callable[[], None] = lambda: None
        self._call_on_message: Callable[[MQTTMessage], None] | None = None
        paho = self._client
        self._theirs = {
            name: getattr(paho, name) for name in ("on_connect", "on_disconnect", "on_message", "on_publish")
        }
        paho.on_connect = self._answered
        paho.on_disconnect = self._hung_up
        paho.on_message = self._came
        paho.on_publish = self._sent
        paho.on_socket_register_write = self._register_write
        self._read: Callable[[int], bytes] = paho._sock_recv  # noqa: SLF001
        paho._sock_recv = self._read_some  # type: ignore[assignment, method-assign]  # noqa: SLF001
        self._hooked_loop = asyncio.get_running_loop()
        self._disconnected.add_done_callback(self._ended)

    def on_lost(self, call: Callable[[], None]) -> None:
        """Call back once the connection is lost."""
        self._call_on_lost = call
        if self.lost is not None:
            call()

    def on_received(self, call: Callable[[MQTTMessage], None]) -> None:
        """Hand over what is subscribed to as it comes, instead of keeping it in `messages`."""
        self._call_on_message = call

    def accepted(self, said: Properties | None) -> None:
        """Take note of what the broker says of itself as it answers us; None under MQTT 3.1.1."""

    def not_taken(self, reason: ReasonCode) -> None:
        """Take note that the broker did not take a message of ours."""

    def _answered(self, client: Any, data: Any, flags: Any, reason: ReasonCode, said: Properties | None) -> None:
        self.accepted(said)
        self._theirs["on_connect"](client, data, flags, reason, said)

    def _hung_up(self, client: Any, data: Any, flags: Any, reason: ReasonCode, said: Properties | None) -> None:
        if not self._connected.done():
            # aiomqtt would wait for an answer that no longer comes.
            self._connected.set_exception(ClosedEarly("it closed the connection without an answer"))
        elif reason.is_failure and self._connected.exception() is None:
            # aiomqtt forgets a loss that comes with the answer itself.
            self._lose(aiomqtt.MqttCodeError(reason))
        self._theirs["on_disconnect"](client, data, flags, reason, said)

    def _came(self, client: Any, data: Any, message: MQTTMessage) -> None:
        if self._call_on_message is None:
            self._theirs["on_message"](client, data, message)
        else:
            self._call_on_message(message)

    def _sent(self, client: Any, data: Any, number: int, reason: ReasonCode, said: Properties | None) -> None:
        if reason.is_failure:
            self.not_taken(reason)
        self._theirs["on_publish"](client, data, number, reason, said)

    def _register_write(self, client: Any, data: Any, sock: Any) -> None:  # noqa: ARG002 - paho's signature
        # aiomqtt hands its number to the loop, which may come to it when the socket is closed, or another one's.
        descriptor = sock.fileno()

        def register() -> None:
            if sock.fileno() == descriptor >= 0:
                self._hooked_loop.add_writer(descriptor, self._write, client)

        self._hooked_loop.call_soon_threadsafe(register)

    def _read_some(self, most: int) -> bytes:
        # The whole rest of a packet is asked for, once its head has come.
        if most > MOST_TAKEN:
            words = f"it announced a packet of {most / 2**20:.0f} MB, and {MOST_TAKEN // 2**20} are taken at most"
            self._lose(aiomqtt.MqttError(words))
            raise ConnectionAbortedError(words)
        return self._read(most)

    def _write(self, client: Any) -> None:
        try:
            client.loop_write()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is lost by it
            if not self._disconnected.done():
                self._disconnected.set_exception(error)

    def _ended(self, disconnected: asyncio.Future[None]) -> None:
        if not disconnected.cancelled() and (error := disconnected.exception()) is not None:
            self._lose(error)
            if not self._connected.done():
                self._connected.set_exception(ClosedEarly(in_words(error)))

    def _lose(self, error: BaseException) -> None:
        self.lost = self.lost or error
        self._call_on_lost()
