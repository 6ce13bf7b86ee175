"""Visitors of a real server with real models: what each is told, and that no other notices what one does wrong."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import urllib.request
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from rich.console import Console
from websockets.exceptions import ConnectionClosed

from dhmd.checkpoint import load
from dhmd.session import Session, schema
from realtime.bench.simulated_visitor import SimulatedVisitor, picture
from realtime.capture.media import MediaFile
from realtime.mqtt.broker import BrokerAddress
from realtime.perception.extractors import StreamExtractors
from realtime.programs import visitors
from realtime.programs.visitors import assembling
from realtime.recognition.engine import Engine
from realtime.recognition.shared_engine import SharedEngine
from realtime.recognition.steadiness import MARGIN, Steadiness
from realtime.settings import BROWSER, RunSettings
from realtime.web import conversation
from realtime.web import visits as visiting
from realtime.web.address import WebAddress
from realtime.web.conversation import MOST_MALFORMED, MOST_REFUSED, Visitors
from realtime.web.protocol import LARGEST_MESSAGE, LARGEST_PICTURE, MALFORMED, SUPERSEDED
from realtime.web.recordings import Recordings
from realtime.web.server import WebServer
from realtime.web.visits import Common, Visits
from tests.realtime.waiting import until

pytestmark = pytest.mark.anyio
PATIENCE_S = 240.0
"""What only a hang reaches."""


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[StreamExtractors, SharedEngine]]:
    checkpoint, threads = load("base"), torch.get_num_threads()
    torch.set_num_threads(1)
    extractors = StreamExtractors.load(checkpoint)
    with extractors.face, SharedEngine(Engine(checkpoint, torch.device("cpu"), activations=True)) as engine:
        yield extractors, engine
    torch.set_num_threads(threads)


Serve = Callable[..., Any]


@pytest.fixture
def serve(models: tuple[StreamExtractors, SharedEngine]) -> Serve:
    """serve(most=2, broker=None): a server of visitors; gives its address and what it told the terminal."""

    @asynccontextmanager
    async def serving(most: int = 2, broker: BrokerAddress | None = None) -> AsyncIterator[tuple[str, list[str]]]:
        told: list[str] = []
        extractors, engine = models
        address = WebAddress.of("127.0.0.1", 0)
        async with asyncio.timeout(PATIENCE_S), Recordings(address) as recordings:
            assemble = assembling(broker, state=False)
            common = Common(engine, 0.1, {"checkpoint": "base"}, recordings, str(broker or ""), assemble)
            visits = Visits(extractors, common, stream="hall", most=most, tell=told.append)
            async with WebServer(Visitors(visits), address, recordings).open() as page:
                yield page, told
            await visits.ended()

    return serving


def kept_still() -> set[Steadiness]:
    """How still the answer of each visitor is kept who is here now."""
    return {one.pipeline.steadied.steadiness for one in gc.get_objects() if type(one) is visiting.Visit}


def heard(words: dict[str, Any]) -> list[Any]:
    return [*words["final"], *words["partial"]]


def greeted(visitor: SimulatedVisitor) -> bool:
    return any(said[0].startswith("Hello") for words in visitor.all("words") for said in heard(words))


def present(visitor: SimulatedVisitor, modality: str) -> bool:
    return any(one["data"]["modalities"][modality]["present"] for one in visitor.all("estimate"))


async def closed(visitor: SimulatedVisitor) -> int:
    """The code with which the server closes the connection."""
    await visitor.socket.wait_closed()
    assert visitor.socket.close_code is not None
    return visitor.socket.close_code


async def test_a_visitor_is_read_by_their_own_camera_and_microphone(
    serve: Serve, talking_clip: Path, mosquitto: Any, subscribe: Any
) -> None:
    listener = subscribe(mosquitto.port)
    async with serve(broker=BrokerAddress("127.0.0.1", mosquitto.port)) as (address, told):
        async with SimulatedVisitor.at(address) as visitor:
            assert (await visitor.told("hello"))["source"] == "browser"
            assert visitor.received == visitor.all("hello")  # nothing else before they join
            await visitor.join()
            # Over and over: a busy machine may look at none of the pictures while they are new.
            while not (present(visitor, "vision") and present(visitor, "audio") and greeted(visitor)):
                await visitor.play(MediaFile(str(talking_clip)))
            estimate = (await visitor.told("estimate"))["data"]
            clock = await visitor.told("clock")
            await visitor.say("leave")
            assert (await visitor.told("ended"))["reason"] == "this session is over"
        assert estimate["stream"] == "hall-1"
        assert present(visitor, "vision")
        assert present(visitor, "audio")
        assert visitor.all("activations")
        assert visitor.all("face")[-1]["faces"] == 1
        assert abs(time.monotonic() + clock["offset"] - visitor.all("estimate")[-1]["end"]) < 60.0
        assert clock["rtt"] < 1.0
        assert not visitor.all("refused")
        assert told[0] == "hall-1: a visitor came"
    assert told[-1].startswith("hall-1: the visitor left after ")
    listener.wait_for(lambda: listener.statuses("hall-1")[-1:] == ["stopped"])
    published = listener.estimates("hall-1")
    assert len(published) > 20
    assert all(one["stream"] == "hall-1" for one in published)
    assert len(listener.payloads("dhmd/hall-1/emotion/compact")) == len(published)
    assert any(b"Hello" in payload for payload in listener.payloads("dhmd/hall-1/transcript"))
    assert any(b"face_appeared" in payload for payload in listener.payloads("dhmd/hall-1/event"))


async def test_private_words_are_read_and_told_to_no_page(
    models: tuple[StreamExtractors, SharedEngine], talking_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RunSettings(source=BROWSER, broker="none", words="private")
    said, stop = StringIO(), asyncio.Event()
    monkeypatch.setattr(visitors, "stop_when_asked", lambda: stop)
    hosting = asyncio.create_task(
        visitors._host(settings, WebAddress.of("127.0.0.1", 0), 1, *models, None, Console(file=said, width=200))
    )
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: "Ctrl-C" in said.getvalue())
        address = said.getvalue().split()[1]
        async with SimulatedVisitor.at(address) as visitor:
            await visitor.join()
            while not present(visitor, "text"):
                await visitor.play(MediaFile(str(talking_clip)))
            assert {one["data"]["transcript"] for one in visitor.all("estimate")} == {""}
            assert not [words for words in visitor.all("words") if heard(words)]
        stop.set()
        assert await hosting == 1


async def test_a_visitor_chooses_how_still_their_own_answer_is_kept(serve: Serve) -> None:
    async with (
        serve(most=2) as (address, _),
        SimulatedVisitor.at(address) as one,
        SimulatedVisitor.at(address) as other,
    ):
        assert (await one.told("hello"))["steadiness"] == {"smoothing": 0.0, "margin": MARGIN}
        await asyncio.gather(one.join(), other.join())
        await one.say("steady", smoothing=2.0, margin=0.5)
        await one.say("choose", x=0.5, y=0.5)
        await until(lambda: kept_still() == {Steadiness(2.0, 0.5), Steadiness(0.0, MARGIN)})
        await one.say("steady", smoothing=-1.0, margin=0.5)
        assert (await one.told("refused"))["what"] == "text"


async def test_two_are_streams_of_their_own_and_a_third_is_asked_to_wait(serve: Serve) -> None:
    async with (
        serve(most=2) as (address, _),
        SimulatedVisitor.at(address) as one,
        SimulatedVisitor.at(address) as other,
        SimulatedVisitor.at(address) as third,
    ):
        await asyncio.gather(one.join(), other.join())
        assert {(await visitor.told("joined"))["stream"] for visitor in (one, other)} == {"hall-1", "hall-2"}
        await third.say("join", session=None)
        assert "please try again" in (await third.told("full"))["reason"]
        await one.say("leave")
        await one.told("ended")
        left = (await one.told("joined"))["stream"]
        while not third.all("joined"):
            await third.say("join", session=None)
            await asyncio.sleep(0.2)
        assert third.all("joined")[0]["stream"] == left
        # Nobody is seen or heard, and so it is said.
        assert (await other.told("estimate"))["data"]["top"] is None


async def test_nothing_stays_of_a_visit_that_is_over_but_its_recordings(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[visiting.Visit]] = []

    class Watched(visiting.Visit):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(weakref.ref(self))

    monkeypatch.setattr(visiting, "Visit", Watched)
    async with serve(most=1) as (address, told), SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        await visitor.say("leave")
        await visitor.told("ended")
        await until(lambda: len(told) == 2)
        await until(lambda: gc.collect() >= 0 and made[0]() is None)


async def test_who_joins_and_leaves_again_and_again_is_asked_to_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "BEGUN_A_MINUTE", 2.0)
    async with serve(most=1) as (address, told), SimulatedVisitor.at(address) as visitor:
        for begun in (1, 2):
            await visitor.join()
            await visitor.say("leave")
            await until(lambda begun=begun: len(visitor.all("ended")) == begun)  # type: ignore[misc]
        await visitor.say("join", session=None)
        assert "try again in a minute" in (await visitor.told("full"))["reason"]
        assert len(visitor.all("joined")) == 2
        async with SimulatedVisitor.at(address) as another:
            await another.say("join", session=None)
            await another.told("full")
    assert len(told) == 4


async def test_a_page_comes_back_to_its_session_and_one_that_does_not_is_given_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(most=1) as (address, told):
        async with SimulatedVisitor.at(address) as before:
            await before.join()
            await before.told("estimate")
        async with SimulatedVisitor.at(address) as after:
            await after.join(before.session)
            joined = await after.told("joined")
            assert joined["resumed"]
            assert joined["session"] == before.session
            assert (await after.told("estimate"))["data"]["seq"] > before.all("estimate")[-1]["data"]["seq"]
            lost = [one for one in after.all("status") if one["reason"].startswith("connection lost")]
            assert [one["worker"] for one in lost] == ["video", "audio"]
            async with SimulatedVisitor.at(address) as thief:
                await thief.join(before.session)
                assert await closed(after) == SUPERSEDED
                monkeypatch.setattr(visiting, "KEPT_S", 0.2)
        while len(told) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        async with SimulatedVisitor.at(address) as late:
            await late.join(before.session)
            assert not (await late.told("joined"))["resumed"]
            assert late.session != before.session


async def test_who_says_what_is_no_message_is_sent_away_and_nobody_else_notices(serve: Serve) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as other:
        await other.join()
        for nonsense in ("rm -rf", "[]", '{"type":"join","session":1}', b"", b"\x07" * 40, b"\x02" + b"\xff" * 9):
            async with SimulatedVisitor.at(address) as visitor:
                await visitor.told("hello")
                with suppress(ConnectionClosed):
                    for _ in range(MOST_MALFORMED + 5):
                        await visitor.socket.send(nonsense)
                assert await closed(visitor) == MALFORMED
        async with SimulatedVisitor.at(address) as early:
            await early.socket.send(picture(1.0, b"\xff\xd8"))
            await early.say("source", kind="video", state="on")
            await early.join()  # a few are only counted
            assert {one["reason"] for one in [await early.told("refused")]} == {"before join"}
        last = other.all("estimate")[-1]
        assert (await other.another("estimate"))["data"]["seq"] > last["data"]["seq"]


async def test_who_goes_on_after_being_sent_away_is_cut_off(serve: Serve) -> None:
    async with serve() as (address, _):
        parts = urlsplit(address)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        asked = (
            f"GET /stream HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: http://{parts.netloc}\r\nUpgrade: websocket\r\n"
        )
        writer.write(f"{asked}Connection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\n".encode())
        writer.write(b"Sec-WebSocket-Version: 13\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

        async def go_on() -> None:
            for _ in range(20_000):
                writer.write(b"\x81\x81\0\0\0\0x")  # "x", which is no message, masked by nothing
                await writer.drain()
                await asyncio.sleep(0)  # the server is in this loop

        with pytest.raises(ConnectionError):
            await go_on()


async def test_what_is_too_much_is_counted_and_not_taken(serve: Serve) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        now_s = time.monotonic
        for _ in range(300):  # ten times the rate
            await visitor.socket.send(picture(now_s(), b"\xff\xd8"))
        assert (await visitor.told("refused", reason="more than 30 pictures a second"))["count"] >= 250
        await asyncio.sleep(1.0)
        await visitor.socket.send(picture(now_s(), b"\0" * (LARGEST_PICTURE + 1)))
        await visitor.told("refused", reason="larger than 512 kB", count=1)
        await visitor.socket.send(picture(now_s() - 60, b"\xff\xd8"))
        await visitor.told("refused", reason="too old", count=1)
        await visitor.socket.send(picture(now_s(), b"no picture"))
        await visitor.told("refused", reason="not a baseline JPEG picture")
        block = b"\x02" + bytes(8) + bytes(2 * 16_000)
        for _ in range(40):
            await visitor.socket.send(block[:1] + picture(now_s(), b"")[1:] + block[9:])
        assert (await visitor.told("refused", what="audio"))["count"] >= 20
        for _ in range(200):
            await visitor.say("pong", id=0, t=0.0)
        assert (await visitor.told("refused", what="text"))["count"] >= 100
        assert (await visitor.another("estimate"))["data"]["seq"] > 0


async def test_who_floods_is_sent_away_and_another_keeps_their_estimates(serve: Serve) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as other, SimulatedVisitor.at(address) as flood:
        await asyncio.gather(other.join(), flood.join())
        with suppress(ConnectionClosed):
            while True:
                await flood.say("pong", id=0, t=0.0)
                await asyncio.sleep(0)
        assert await closed(flood) in {MALFORMED, 1006}  # its own flood may bury the reason
        # Had it not been sent away, it would go on until it misses a ping.
        assert 0 < flood.all("refused")[-1]["count"] <= 2 * MOST_REFUSED
        last = other.all("estimate")[-1]
        assert (await other.another("estimate"))["data"]["seq"] > last["data"]["seq"]


async def test_text_that_is_none_is_refused_and_counted(serve: Serve) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        await visitor.socket.send(b'{"type": "key", "key": "\xff"}', text=True)
        await visitor.told("refused", what="text", reason="not a message of this protocol", count=1)


async def test_what_is_far_too_large_is_not_even_received(serve: Serve) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        with suppress(ConnectionClosed):
            await visitor.socket.send(bytes(LARGEST_MESSAGE + 1))
        assert await closed(visitor) == 1009  # "message too big", RFC 6455
        async with SimulatedVisitor.at(address) as again:
            await again.join(visitor.session)
            assert (await again.told("joined"))["resumed"]


async def test_why_something_is_absent_is_told(serve: Serve) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        await visitor.say("source", kind="video", state="paused", reason="the tab is hidden")
        assert (await visitor.told("status", worker="video", state="paused"))["reason"] == "the tab is hidden"
        await visitor.say("source", kind="video", state="off", reason="\x1b[2J")
        assert (await visitor.told("status", worker="video", state="failed"))["reason"] == "\\x1b[2J"
        await visitor.say("source", kind="video", state="off", reason="x" * 201)
        await visitor.told("refused", what="text", count=1)
        await visitor.say("source", kind="audio", state="off", reason="no microphone found")
        assert (await visitor.told("status", worker="audio", state="failed"))["reason"] == "no microphone found"


async def test_a_visitor_records_and_fetches_the_recording(serve: Serve, talking_clip: Path, tmp_path: Path) -> None:
    async with serve() as (address, _), SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        playing = asyncio.create_task(visitor.play(MediaFile(str(talking_clip))))
        await visitor.told("face")
        await visitor.say("record", on=True, video=False, audio=False)
        assert (await visitor.told("recording", state="on"))["started"] > 0
        await playing
        await visitor.say("leave")  # the files are offered to the page that left
        files = (await visitor.told("recording", state="ready"))["files"]
        assert [Path(file["name"]).suffix for file in files] == [".mcap", ".csv", ".html"]
        for file in files:
            data = await asyncio.to_thread(fetched, address.rstrip("/") + file["url"])
            assert len(data) == file["bytes"]
            (tmp_path / file["name"]).write_bytes(data)
    command = [sys.executable, "-m", "realtime", "replay", str(tmp_path / files[0]["name"]), "--verify"]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    session = Session.open(tmp_path / files[0]["name"])
    assert session.stream == "hall-1"
    assert len(list(session.records({schema.ESTIMATE}))) >= 10
    assert not list(session.records({schema.VIDEO, schema.SOUND}))
    assert (tmp_path / files[1]["name"]).read_text().count("\n") >= 10


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:  # noqa: S310 - our own
        return bytes(answer.read())


async def test_everybody_is_told_when_the_server_closes(serve: Serve) -> None:
    async with AsyncExitStack() as stack:
        async with serve() as (address, _):
            visitor = await stack.enter_async_context(SimulatedVisitor.at(address))
            await visitor.join()
            await visitor.told("estimate")
        assert (await visitor.told("ended"))["reason"] == "the server is closing"
