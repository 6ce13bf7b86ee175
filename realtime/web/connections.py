"""Connections to the page's server: how many there may be, how long they may be silent, and how fast they may talk.

What comes faster is not refused at full speed but left in the sender's own queue, by TCP: a flood costs its sender.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from dhmd.machine import open_files
from realtime.allowance import Allowance

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent
    from websockets.frames import Frame

MOST_CONNECTIONS: Final = 256
MOST_OF_ONE_ADDRESS: Final = 64
AT_ONCE: Final = 8
"""Connections that are taken in one after the other before anything else is done."""
HEADERS_S: Final = 10.0
"""Time in which a request has to come, from the connection's or its own first byte."""
MESSAGES_HZ: Final = 120.0
MESSAGE_BYTES: Final = 128 * 1024
"""A message counts once for each begun one of these."""
FRAMES_HZ: Final = 500.0
"""Pings, pongs and parts of messages, which cost their receiver and bring nothing by themselves."""
MOST_AFTER_CLOSE: Final = 256
"""Messages that may be on their way when a page is sent away."""
PIECE: Final = 4096
"""Bytes that are parsed at once: hundreds of the smallest frames."""
NO_TEXT: Final = "\N{REPLACEMENT CHARACTER}".encode()
POLICY: Final = 1008  # "policy violation", RFC 6455


class Listener(socket.socket):
    """A listening socket that has so many connections at most, in all and of one address: those that have not said
    anything yet count too, and those whose TLS handshake is under way."""

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._open: list[tuple[str, socket.socket]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError for one too many, which is closed."""
        connection, address = super().accept()
        self._open = [(host, one) for host, one in self._open if one.fileno() >= 0]
        own = sum(host == address[0] for host, _ in self._open)
        most = min(MOST_CONNECTIONS, open_files() // 4)
        if len(self._open) >= most or own >= min(MOST_OF_ONE_ADDRESS, most // 2):
            connection.close()
            raise ConnectionAbortedError
        self._open.append((address[0], connection))
        return connection, address


class HttpConnection(H11Protocol):
    """HTTP whose requests have to come in time."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._watch()

    def _watch(self) -> None:
        """Wait for a request while there is none."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing() or self.transport.get_protocol() is not self:
            if self._due is not None:
                self._due.cancel()
            self._due = None
        elif self._due is None:
            self._due = self.loop.call_later(HEADERS_S, self.transport.abort)


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket that is read as fast as its page may talk."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._unread: deque[bytes] = deque()
        self._pace = Allowance(MESSAGES_HZ, 2 * MESSAGES_HZ)
        self._frames = Allowance(FRAMES_HZ, 2 * FRAMES_HZ)
        self._after_close = 0

    def data_received(self, data: bytes) -> None:
        self._unread.extend(data[begin : begin + PIECE] for begin in range(0, len(data), PIECE))
        self._parse()

    def _parse(self) -> None:
        while self._unread and not self.read_paused and not self.transport.is_closing():
            super().data_received(self._unread.popleft())

    async def receive(self) -> ASGIReceiveEvent:
        while (message := await super().receive())["type"] == "websocket.receive" and self.close_sent:
            pass  # the page was sent away: what it said before is heard no more
        self._parse()
        if message["type"] == "websocket.receive":
            size = len(message.get("bytes") or message.get("text") or "")
            await asyncio.sleep(self._pace.wait_s(time.monotonic(), 1 + size // MESSAGE_BYTES))
        return message

    def send_receive_event_to_app(self) -> None:
        self._after_close += self.close_sent
        if self._after_close > MOST_AFTER_CLOSE:
            self.transport.abort()
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = [NO_TEXT]  # which is refused and counted like all that is no message
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        self._count_frame()
        super().handle_cont(event)

    def handle_ping(self) -> None:
        self._count_frame()
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self._count_frame()
        super().handle_pong(event)

    def _count_frame(self) -> None:
        if not self._frames.takes(time.monotonic()) and not self.transport.is_closing():
            self.conn.fail(POLICY, "too many frames")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()
