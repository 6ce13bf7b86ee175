"""The server of the page: Starlette under uvicorn, in the event loop of the run.

Loopback alone unless asked for; beyond it a token is required. Pages of other origins are refused, and the page itself
may load nothing from anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from realtime import languages
from realtime.allowance import Allowances
from realtime.errors import SettingsInvalid
from realtime.web.address import WebAddress
from realtime.web.connections import AT_ONCE, HttpConnection, Listener, WebSocketConnection
from realtime.web.protocol import BUSY, LARGEST_MESSAGE, REFUSED
from realtime.web.recordings import Recordings
from realtime.web.streams import Streams

logger = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"
MOST_PAGES, MOST_PAGES_OF_ONE_ADDRESS = 64, 16
REQUESTS_HZ, REQUESTS_AT_ONCE = 50.0, 200.0
"""Requests of one address; what comes faster waits."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self)",
    "Cache-Control": "no-store",
}
FRAMED: Final = {
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace("ancestors 'none'", "ancestors 'self'")
}
"""Behind a proxy the page may stand in a frame of a page that has the same origin, as in Home Assistant."""


class Audience(Protocol):
    """Party that is served: pages that look at one stream, or visitors with streams of their own."""

    async def attend(self, socket: WebSocket, /) -> None:
        """Serve one page until it leaves."""

    def events(self) -> AsyncGenerator[str, None] | None:
        """Return the estimates as server-sent events; None where there is no one stream."""

    def end(self) -> None:
        """Tell every page that this is the end."""


A = TypeVar("A", bound=Audience)


class WebServer(Generic[A]):
    """Serves one audience. recordings: what its pages can fetch. streams: of a broker, on a page beside it."""

    def __init__(
        self,
        audience: A,
        address: WebAddress,
        recordings: Recordings | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.audience = audience
        self.address = address
        self.recordings = recordings
        self.streams = audience if isinstance(audience, Streams) else streams
        self._pages: Counter[str] = Counter()
        """By address: those that look now."""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Serve for as long as the context lasts; gives the page's address. Raises SettingsInvalid for a taken port."""
        listener, certificate = self._listen(), self.address.certificate
        config = uvicorn.Config(
            self._app(),
            log_level="warning",
            backlog=AT_ONCE,
            http=HttpConnection,
            ws=WebSocketConnection,
            ws_max_size=LARGEST_MESSAGE,
            proxy_headers=False,  # they are read behind the door
            ws_per_message_deflate=False,  # a few bytes would unpack to the largest message; pictures do not shrink
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate.cert if certificate else None,
            ssl_keyfile=certificate.key if certificate else None,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="web")
        try:
            yield self.address.url(listener.getsockname()[1])
        finally:
            self.audience.end()
            if self.streams is not None:
                self.streams.end()
            await asyncio.sleep(0.05)  # the last word to the pages
            server.should_exit = True
            await task

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address.host else socket.AF_INET
        listener = Listener(family)
        if sys.platform != "win32":  # where this lets two programs have the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.address.host, self.address.port))
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise SettingsInvalid(
                f"--host {self.address.host} --port {self.address.port}: {error.strerror}; "
                "name another --port, or 0 for a free one"
            ) from None
        return listener

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._index),
                WebSocketRoute("/stream", self._stream),
                Route("/events", self._events),
                Route("/static/languages/{code}.json", self._language),
                Mount("/static", StaticFiles(directory=STATIC)),
                *([self.recordings.route] if self.recordings else []),
                *([Route("/streams", self._streams), Route("/streams/events", self._told)] if self.streams else []),
            ],
            middleware=[
                *([Middleware(_Door, proxy)] if (proxy := self.address.proxy) else []),
                Middleware(ProxyHeadersMiddleware, proxy or "127.0.0.1"),
                Middleware(_Guard, HEADERS | (FRAMED if proxy else {})),
            ],
        )

    def _language(self, request: Request) -> Response:
        if (code := request.path_params["code"]) not in languages.LANGUAGES:
            return PlainTextResponse("there is no such language", 404)
        return FileResponse(languages.FILES / f"{code}.json")

    def _index(self, request: Request) -> Response:
        page = "streams.html" if self.streams is self.audience else "index.html"
        return self.address.refusal(request) or FileResponse(STATIC / page)

    def _streams(self, request: Request) -> Response:
        return self.address.refusal(request) or FileResponse(STATIC / "streams.html")

    async def _events(self, request: Request) -> Response:
        return self._sent(request, self.audience)

    async def _told(self, request: Request) -> Response:
        return self._sent(request, self.streams)

    def _sent(self, request: Request, source: Audience | None) -> Response:
        """The events as an EventSource or `curl -N` reads them: own page, or no page at all, and the token."""
        if "origin" in request.headers and not self.address.is_own_page(request):
            return PlainTextResponse("wrong origin; pages of others may not look at this stream", 403)
        if (refusal := self.address.refusal(request)) is not None:
            return refusal
        if source is None or (events := source.events()) is None:
            return PlainTextResponse("each visitor has a stream of their own; subscribe to it over MQTT", 404)
        if full := self._full(host := _host(request)):
            return PlainTextResponse(full, 503)
        return StreamingResponse(self._counted(host, events), media_type="text/event-stream")

    async def _counted(self, host: str, events: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        with self._looking(host):
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event

    def _full(self, host: str) -> str:
        """Say why there is no room for another page; empty where there is."""
        if self._pages.total() >= MOST_PAGES:
            return f"{MOST_PAGES} pages look at this stream already; close one"
        if self._pages[host] >= MOST_PAGES_OF_ONE_ADDRESS:
            return f"{MOST_PAGES_OF_ONE_ADDRESS} pages look at this stream from your address already; close one"
        return ""

    @contextlib.contextmanager
    def _looking(self, host: str) -> Iterator[None]:
        self._pages[host] += 1
        try:
            yield
        finally:
            self._pages -= Counter((host,))  # leaves no address behind that has none

    async def _stream(self, socket: WebSocket) -> None:
        await socket.accept()
        if not self.address.is_own_page(socket) or self.address.refusal(socket) is not None:
            await socket.close(REFUSED, "wrong origin or token; open the address that dhmd-live printed")
            return
        if full := self._full(host := _host(socket)):
            await socket.close(BUSY, full)
            return
        with self._looking(host):
            await self.audience.attend(socket)


class _Server(uvicorn.Server):
    """Leaves the signals to the run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _host(connection: HTTPConnection) -> str:
    """Return the address that a connection comes from; empty for a local socket."""
    return connection.client.host if connection.client is not None else ""


class _Door:
    """Answers one proxy alone."""

    def __init__(self, app: ASGIApp, proxy: str) -> None:
        self._app = app
        self._proxy = proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _host(HTTPConnection(scope)) != self._proxy:
            refusal = PlainTextResponse("this page is for those whom its proxy lets in: ask there", 403)
            await refusal(scope, receive, send)
        elif scope["type"] == "websocket" and _host(HTTPConnection(scope)) != self._proxy:
            await WebSocket(scope, receive, send).close(REFUSED)
        else:
            await self._app(scope, receive, send)


class _Guard:
    """Adds the headers that keep a page to itself, and lets who asks too fast wait."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers
        self._pace = Allowances(REQUESTS_HZ, REQUESTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = ((name.lower().encode(), value.encode()) for name, value in self._headers.items())
                message["headers"] = [*message["headers"], *(one for one in added if one[0] not in own)]
            await send(message)

        if scope["type"] in {"http", "websocket"}:
            await asyncio.sleep(self._pace.of(_host(HTTPConnection(scope))).wait_s(time.monotonic()))
        await self._app(scope, receive, guarded if scope["type"] == "http" else send)
