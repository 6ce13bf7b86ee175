"""The page's server: who may look, what is sent, and that a page which falls behind holds nobody up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from realtime.capture.samples import VideoFrame
from realtime.errors import SettingsInvalid
from realtime.web import connections, server
from realtime.web.address import WebAddress
from realtime.web.feed import Feed
from realtime.web.pages import SERVER, WAITING, Page
from realtime.web.protocol import BUSY, REFUSED
from realtime.web.server import WebServer
from realtime.web.viewers import Viewers
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.waiting import until
from tests.realtime.web.test_feed import emission

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def page(address: str) -> AsyncIterator[ClientConnection]:
    parts = urlsplit(address)
    uri = f"ws://{parts.netloc}/stream" + (f"?{parts.query}" if parts.query else "")
    async with connect(uri, origin=f"http://{parts.netloc}") as connection:  # type: ignore[arg-type]
        yield connection


def fetched(address: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(address) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


async def told(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    async for message in socket:
        if isinstance(message, str) and (found := json.loads(message))["type"] == kind:
            return dict(found)
    raise AssertionError(f"no {kind}")


def served(host: str = "127.0.0.1") -> WebServer[Viewers]:
    return WebServer(Viewers(Feed("hall")), WebAddress.of(host, 0))


async def test_a_page_is_told_what_it_needs_to_know_and_then_what_happens() -> None:
    web = served()
    web.audience.feed.on_worker(WorkerStatus("video", WorkerState.RUNNING))
    web.audience.feed.atoms = 64
    async with web.open() as address, page(address) as socket:
        assert await told(socket, "hello") == {
            "type": "hello", "source": "server", "server": SERVER, "stream": "hall", "broker": "", "atoms": 64,
            "marking": False, "recordable": False, "choosing": False, "steadiness": None,
        }  # fmt: skip
        assert (await told(socket, "status"))["worker"] == "video"
        await asyncio.to_thread(web.audience.feed.on_worker, WorkerStatus("face", WorkerState.FAILED, "no model"))
        assert (await told(socket, "status"))["reason"] == "no model"


async def test_a_picture_comes_as_its_time_and_a_jpeg_and_is_made_only_for_those_who_look() -> None:
    web = served()
    frame = VideoFrame(np.full((720, 1280, 3), 128, np.uint8), 4.25, 4.3)
    web.audience.feed.on_frame(frame)
    async with web.open() as address, page(address) as socket:
        await told(socket, "hello")
        web.audience.feed.on_frame(frame)
        picture = await socket.recv()
    assert isinstance(picture, bytes)
    assert np.frombuffer(picture[:8], "<f8")[0] == 4.25
    assert picture[8:10] == b"\xff\xd8"


async def test_the_end_of_the_run_is_told() -> None:
    web = served()
    async with web.open() as address:
        socket = await connect(f"ws://{urlsplit(address).netloc}/stream", origin=address.rstrip("/"))  # type: ignore[arg-type]
    assert await told(socket, "ended")
    await socket.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"], ids=["another's script", "another's name for us"])
async def test_who_comes_from_elsewhere_is_refused(name: str) -> None:
    async with served().open() as address:
        port = urlsplit(address).port or 0
        uri, origin = f"ws://{name}:{port}/stream", "http://elsewhere.example" + (f":{port}" if name[0] == "e" else "")
        with pytest.raises(ConnectionClosed) as refused:
            async with connect(uri, host="127.0.0.1", port=port, origin=origin) as socket:  # type: ignore[arg-type]
                await socket.recv()
    assert refused.value.rcvd is not None
    assert refused.value.rcvd.code == REFUSED


async def test_beyond_loopback_a_token_is_needed() -> None:
    async with served("0.0.0.0").open() as everywhere:
        address = re.sub(r"//[^:]+", "//127.0.0.1", everywhere)
        assert "token=" in address
        assert "0.0.0.0" not in everywhere  # nobody can open that elsewhere
        bare = address.partition("?")[0]
        assert (await asyncio.to_thread(fetched, bare))[0] == 403
        assert (await asyncio.to_thread(fetched, bare + "?token=guess"))[0] == 403
        assert (await asyncio.to_thread(fetched, address))[0] == 200
        async with page(address) as socket:
            await told(socket, "hello")
        with pytest.raises(ConnectionClosed):
            async with page(bare) as socket:
                await socket.recv()


async def test_the_page_may_load_nothing_from_elsewhere() -> None:
    async with served().open() as address:
        status, text, headers = await asyncio.to_thread(fetched, address)
        named = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert len(named) >= 5
        for file in named:
            assert (await asyncio.to_thread(fetched, address + file))[0] == 200
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "://" not in text


async def test_no_more_pages_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_PAGES", 1)
    async with served().open() as address, page(address) as first:
        await told(first, "hello")
        with pytest.raises(ConnectionClosed) as refused:
            async with page(address) as second:
                await second.recv()
        assert refused.value.rcvd is not None
        assert refused.value.rcvd.code == BUSY
        assert "close one" in refused.value.rcvd.reason


async def test_a_page_that_does_not_read_loses_the_oldest_and_holds_nobody_up() -> None:
    feed, slow = Feed("hall"), Page()
    with feed.page(slow):
        slow.messages.clear()
        for restarts in range(10 * WAITING):
            feed.on_worker(WorkerStatus("video", WorkerState.RUNNING, restarts=restarts))
        assert len(slow.messages) == WAITING
        assert slow.dropped == 9 * WAITING
        assert json.loads(slow.messages[-1])["restarts"] == 10 * WAITING - 1
        sent = slow.outgoing()
        last = [json.loads(await anext(sent)) for _ in range(WAITING + 1)][-1]
        assert last == {"type": "missed", "count": 9 * WAITING}


async def test_a_page_may_press_the_keys_that_mark_and_say_nothing_else() -> None:
    web, pressed = served(), list[str]()
    web.audience.on_key = pressed.append
    async with web.open() as address:
        async with page(address) as socket:
            assert (await told(socket, "hello"))["marking"]
            await socket.send(json.dumps({"type": "key", "key": "2"}))
            await socket.send(json.dumps({"type": "key", "key": "m"}))  # too soon after the other
            web.audience.feed.on_marks("marked 1.0 to 6.0 s: happy")
            assert (await told(socket, "marks"))["line"].endswith("happy")
            await socket.send("rm -rf")
            with pytest.raises(ConnectionClosed) as refused:
                await told(socket, "never")
            assert refused.value.rcvd is not None
            assert refused.value.rcvd.code == REFUSED
        assert pressed == ["2"]
        web.audience.on_key = None
        async with page(address) as socket:
            assert not (await told(socket, "hello"))["marking"]
            await socket.send(json.dumps({"type": "key", "key": "2"}))
            with pytest.raises(ConnectionClosed):
                await told(socket, "never")
    assert pressed == ["2"]


async def test_a_port_that_is_taken_is_one_line() -> None:
    async with served().open() as address:
        taken = urlsplit(address).port or 0
        with pytest.raises(SettingsInvalid, match="name another --port"):
            async with WebServer(Viewers(Feed("hall")), WebAddress.of("127.0.0.1", taken)).open():
                pass


@pytest.mark.parametrize(("host", "port"), [("nowhere", 0), ("127.0.0.1", 70000)])
def test_an_address_that_cannot_be_served_is_one_line(host: str, port: int) -> None:
    with pytest.raises(SettingsInvalid, match="expected"):
        WebAddress.of(host, port)


def test_a_token_that_is_kept_is_the_same_at_every_start(tmp_path: Path) -> None:
    kept = tmp_path / "token"
    first, again = (WebAddress.of("0.0.0.0", 0, kept=kept) for _ in range(2))
    assert first.token
    assert (first.token, kept.read_text()) == (again.token, f"{first.token}\n")
    if os.name == "posix":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert WebAddress.of("0.0.0.0", 0).token != first.token
    assert WebAddress.of("127.0.0.1", 0, kept=tmp_path / "none").token is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 20, b"a b c d e f g h i j k l", b"a" * 200, None])
def test_a_file_that_keeps_no_token_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    kept = tmp_path / "token" if content is not None else tmp_path
    if content is not None:
        kept.write_bytes(content)
    with pytest.raises(SettingsInvalid, match=r"^--token-file .*(expected 16 to 128|cannot be read or made)"):
        WebAddress.of("0.0.0.0", 0, kept=kept)
    assert content is None or kept.read_bytes() == content


def read_events(address: str, count: int, headers: dict[str, str] | None = None) -> list[tuple[str, Any]]:
    """The next events of a stream, as a client of server-sent events reads them: (kind, data)."""
    told: list[tuple[str, Any]] = []
    request = urllib.request.Request(address, headers=headers or {})  # noqa: S310 - our own
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own
        assert answer.headers["content-type"].startswith("text/event-stream")
        while len(told) < count:
            kind, data, end = (answer.readline().decode().rstrip("\n") for _ in range(3))
            assert end == ""
            told.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return told


def estimating(feed: Feed, seq: int) -> None:
    one = emission(float(seq))
    feed.on_estimate(replace(one, estimate=one.estimate.model_copy(update={"seq": seq})))


async def test_estimates_come_as_server_sent_events_until_the_end() -> None:
    web = served()
    async with web.open() as address:
        reading = asyncio.create_task(asyncio.to_thread(read_events, address + "events", 3))
        await until(lambda: web.audience.feed._pages)
        for seq in range(2):
            estimating(web.audience.feed, seq)
        web.audience.feed.end("the run has ended")
        assert [(kind, data.get("seq")) for kind, data in await reading] == [
            ("estimate", 0), ("estimate", 1), ("ended", None),
        ]  # fmt: skip
        await until(lambda: not web.audience.feed._pages)


async def test_events_are_for_the_own_page_and_programs_with_the_token() -> None:
    web = served("0.0.0.0")
    async with web.open() as address:
        parts = urlsplit(address)
        port, query = parts.port, parts.query
        for events, headers, code in (
            (f"http://127.0.0.1:{port}/events", {}, 403),
            (f"http://127.0.0.1:{port}/events?{query}", {"Origin": "http://evil.example"}, 403),
        ):
            request = urllib.request.Request(events, headers=headers)  # noqa: S310 - our own
            with pytest.raises(urllib.error.HTTPError) as refused:
                await asyncio.to_thread(urllib.request.urlopen, request)
            assert refused.value.code == code
        own = {"Origin": f"http://127.0.0.1:{port}"}
        reading = asyncio.create_task(asyncio.to_thread(read_events, f"http://127.0.0.1:{port}/events?{query}", 1, own))
        await until(lambda: web.audience.feed._pages)
        estimating(web.audience.feed, 7)
        assert (await reading)[0][1]["seq"] == 7


async def test_what_comes_too_fast_waits_with_its_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MESSAGES_HZ", 0.001)
    web = served()
    web.audience.on_key = lambda _: None
    key = json.dumps({"type": "key", "key": "2"}) + " " * 4000
    most, sent = 16_000, 0  # 64 MB, more than all buffers on the way hold
    async with web.open() as address, page(address) as socket:

        async def flood() -> None:
            nonlocal sent
            while sent < most:
                await socket.send(key)
                sent += 1

        flooding, before = asyncio.create_task(flood()), -1
        while sent > before:
            before = sent
            await asyncio.sleep(0.5)
        assert sent < most
        flooding.cancel()
        socket.transport.abort()


async def test_a_large_message_counts_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MESSAGE_BYTES", 1)
    web, pressed = served(), list[str]()
    web.audience.on_key = pressed.append
    async with web.open() as address, page(address) as large, page(address) as small:
        await large.send(json.dumps({"type": "key", "key": "1"}) + " " * 4000)
        await told(large, "hello")
        await small.send(json.dumps({"type": "key", "key": "2"}))
        await until(lambda: pressed)
        assert pressed == ["2"]
        large.transport.abort()


@pytest.mark.parametrize("kind", ["pings", "parts"])
async def test_who_sends_frames_without_end_is_sent_away(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FRAMES_HZ", 20.0)
    web = served()
    web.audience.on_key = lambda _: None
    async with web.open() as address, page(address) as socket:

        async def flood() -> None:
            if kind == "parts":
                # Without its end it would be a message that is taken.
                await socket.send([json.dumps({"type": "key", "key": "2"}), *[""] * 50_000])
                await told(socket, "never")
            while True:
                await socket.ping()
                await asyncio.sleep(0)  # the server is in this loop

        with pytest.raises(ConnectionClosed):
            await flood()
        async with page(address) as another:
            await told(another, "hello")


def answered(port: int, *parts: bytes) -> bytes:
    """What a connection that says these parts is told until it is closed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        heard = b""
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            while more := connection.recv(4096):
                heard += more
        return heard


async def test_who_is_silent_or_never_ends_a_request_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 0.3)
    whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with served().open() as address:
        port = urlsplit(address).port or 0
        assert await asyncio.to_thread(answered, port) == b""
        assert await asyncio.to_thread(answered, port, whole[:20]) == b""
        heard = await asyncio.to_thread(answered, port, whole, whole[:20])
        assert heard.startswith(b"HTTP/1.1 200 OK")
        assert heard.endswith(b"</html>\n")


async def test_one_address_holds_some_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE_ADDRESS", 2)
    async with served().open() as address, page(address) as first, page(address) as second:
        await told(first, "hello")
        await told(second, "hello")
        assert await asyncio.to_thread(answered, urlsplit(address).port or 0, b"GET / HTTP/1.1\r\n\r\n") == b""


async def test_all_addresses_together_hold_some_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)
    async with served().open() as address, AsyncExitStack() as stack:
        parts = urlsplit(address)
        for number in (1, 1, 2, 2, 3):
            source = (f"127.0.0.{number}", 0)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=source)
            stack.callback(writer.close)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_one_address_looks_with_some_pages_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_PAGES_OF_ONE_ADDRESS", 1)
    web = served()
    async with web.open() as address:
        async with page(address) as first:
            await told(first, "hello")
            with pytest.raises(ConnectionClosed) as refused:
                async with page(address) as second:
                    await second.recv()
            assert refused.value.rcvd is not None
            assert "from your address" in refused.value.rcvd.reason
        await until(lambda: not web._pages)


async def test_who_asks_too_fast_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUESTS_HZ", 0.001)
    monkeypatch.setattr(server, "REQUESTS_AT_ONCE", 2.0)
    async with served().open() as address:
        for _ in range(2):
            assert (await asyncio.to_thread(fetched, address))[0] == 200
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(urllib.request.urlopen, address, timeout=0.5)


FEW_FILES = """
import asyncio, resource, urllib.request
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from tests.realtime.web.test_server import served, urlsplit

async def main():
    async with served().open() as address:
        print(urlsplit(address).port, flush=True)
        await asyncio.to_thread(input)
        fetched = await asyncio.to_thread(urllib.request.urlopen, address, timeout=60)
        print(fetched.status)

asyncio.run(main())
"""


def test_where_few_files_may_be_open_there_is_room_for_another_page() -> None:
    command = [sys.executable, "-c", FEW_FILES]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process, ExitStack() as stack:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        for _ in range(100):
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.2", 0))  # another address than that of the page
            held.setblocking(False)
            held.connect_ex(("127.0.0.1", port))
        assert process.communicate("go\n") == ("200\n", "")


async def test_behind_a_proxy_nobody_else_is_answered() -> None:
    """Home Assistant's ingress knows whom it lets in, and shows the page in a frame under its own name."""
    address = WebAddress.of("127.0.0.1", 0, proxy="127.0.0.2")
    async with WebServer(Viewers(Feed("hall")), address).open() as printed:
        assert "token" not in printed
        assert (await asyncio.to_thread(fetched, printed))[0] == 403
        parts = urlsplit(printed)
        uri, outside = f"ws://{parts.netloc}/stream", {"X-Forwarded-Host": "home.example"}
        with pytest.raises(InvalidStatus):
            async with connect(uri, origin=Origin(f"http://{parts.netloc}")):
                pass
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, local_addr=("127.0.0.2", 0))
        writer.write(f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\nX-Forwarded-For: 10.1.1.1\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
        assert head.startswith("HTTP/1.1 200")
        assert "frame-ancestors 'self'" in head
        for origin, answered in (("https://home.example", True), ("https://elsewhere.example", False)):
            async with connect(
                uri, origin=Origin(origin), additional_headers=outside, local_addr=("127.0.0.2", 0)
            ) as socket:
                if answered:
                    await told(socket, "hello")
                else:
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
    with pytest.raises(SettingsInvalid, match="--proxy: expected an address"):
        WebAddress.of("127.0.0.1", 0, proxy="home")
