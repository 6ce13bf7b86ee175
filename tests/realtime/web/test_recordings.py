"""Recordings that a page starts and stops: what can be fetched, by whom and for how long, and what ends them."""

from __future__ import annotations

import asyncio
import io
import os
import re
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import torch

from dhmd.checkpoint import load
from dhmd.contract import Rows
from dhmd.modality import Modality
from dhmd.session import Session, schema
from realtime.clock import StreamClock
from realtime.messages.estimate import Dropped
from realtime.perception.extractors import StreamExtractors
from realtime.perception.perception import Perception
from realtime.pipeline.pipeline import Pipeline
from realtime.recognition.engine import Engine
from realtime.session import limited, recorder
from realtime.session.recorder import describe
from realtime.web import recordings as module
from realtime.web.address import WebAddress
from realtime.web.feed import Feed
from realtime.web.recordings import PageRecording, Recordings
from realtime.web.server import WebServer
from realtime.web.viewers import Viewers
from realtime.workers import WorkerState, WorkerStatus

PATIENCE_S = 300.0

pytestmark = pytest.mark.anyio


class Stream:
    """A session of a face alone, that is driven by hand."""

    def __init__(self, recordings: Recordings, name: str = "hall") -> None:
        checkpoint = load("base")
        specs = checkpoint.features
        extractors: Any = SimpleNamespace(
            specs=specs,
            face=SimpleNamespace(spec=specs[Modality.VISION], close=lambda: None),
            text=SimpleNamespace(spec=specs[Modality.TEXT]),
            lips=None,
        )
        self.perception = Perception(cast("StreamExtractors", extractors), torch.device("cpu"))
        none = Dropped(video=0, audio=0)
        engine = Engine(checkpoint, torch.device("cpu"))
        self.pipeline = Pipeline(self.perception, engine, StreamClock(), name, lambda: none, timed=True)
        self.states: list[Mapping[str, Any]] = []
        self.marks: list[str] = []
        head = describe(checkpoint, stream=name, hop_s=0.1, timed=True, settings={"checkpoint": "base"})
        self.recording = PageRecording(
            recordings, self.pipeline, head, on_change=self.states.append, on_marks=self.marks.append
        )
        self.pipeline.outputs.add(self.recording)
        self._width = specs[Modality.VISION].width

    async def estimates(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0.02)
            now_s = self.pipeline.clock.now()
            values = np.random.default_rng(1).normal(size=(1, self._width)).astype(np.float32)
            self.perception._append(Modality.VISION, Rows(np.array([now_s]), values))
            self.pipeline.emit(self.pipeline.estimate(now_s))

    async def reached(self, *states: str) -> Mapping[str, Any]:
        while not self.states or self.states[-1]["state"] not in states:  # noqa: ASYNC110 - several may come before
            await asyncio.sleep(0.02)
        return self.states[-1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def found(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


@asynccontextmanager
async def recordings(host: str = "127.0.0.1") -> AsyncIterator[tuple[Recordings, str]]:
    """With the address of the server through which they are fetched, without its token."""
    address = WebAddress.of(host, 0)
    async with Recordings(address) as kept, WebServer(Viewers(Feed("hall")), address, kept).open() as url:
        yield kept, re.sub(r"//[^:]+", "//127.0.0.1", url.partition("?")[0]).rstrip("/")


async def fetched(url: str, host: str | None = None) -> tuple[int, bytes, Mapping[str, str]]:
    def fetch() -> tuple[int, bytes, Mapping[str, str]]:
        request = urllib.request.Request(url, headers={"Host": host} if host else {})  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    return await asyncio.to_thread(fetch)


async def test_started_and_stopped_it_is_fetched_with_its_table(folder: Path) -> None:
    async with recordings() as (kept, address):
        stream = Stream(kept)
        assert stream.recording.state() == {
            "state": "off", "reason": "", "started": None, "video": False, "audio": False, "files": [],
        }  # fmt: skip
        stream.pipeline.outputs.on_worker(WorkerStatus("face", WorkerState.RUNNING))
        await stream.estimates(5)
        stream.recording.on_request(on=True, video=False, audio=True)
        on = stream.states[-1]
        assert (on["state"], on["video"], on["audio"]) == ("on", False, True)
        assert on["started"] > 0
        await stream.estimates(10)
        stream.recording.on_key("2")
        stream.recording.on_request(on=False, video=False, audio=False)
        ready = await stream.reached("ready")
        session, table, report = ready["files"]
        [private] = found(folder, "dhmd-recordings-*")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700

        status, data, headers = await fetched(address + session["url"])
        assert (status, len(data)) == (200, session["bytes"])
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"] == f'attachment; filename="{session["name"]}"'
        copy = folder / "copy.mcap"
        copy.write_bytes(data)
        opened = Session.open(copy)
        assert opened.complete
        assert len(list(opened.records({schema.ESTIMATE}))) == 10
        assert [r.message.worker for r in opened.records({schema.STATUS})] == ["face"]
        [mark] = opened.records({schema.MARK})
        assert mark.message.emotion == "happy"
        assert mark.message.start_s == max(opened.start_s, mark.message.end_s - 5)  # never of before it
        assert any(line.startswith("m mark") and "\nmarked " in line for line in stream.marks)

        status, data, headers = await fetched(address + table["url"])
        assert status == 200
        assert headers["content-type"] == "text/csv; charset=utf-8"
        assert table["name"] == session["name"].removesuffix(".mcap") + ".csv"
        rows = pd.read_csv(io.BytesIO(data))
        assert len(rows) == 10
        assert rows["t_s"].is_monotonic_increasing
        assert rows["t_s"].between(0, PATIENCE_S).all()

        status, data, headers = await fetched(address + report["url"])
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert headers["content-disposition"].startswith("inline")
        assert "script" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert b"</html>" in data
    assert not private.exists()


async def test_only_who_knows_its_name_fetches_it() -> None:
    async with recordings() as (kept, address):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.estimates(3)
        assert (await fetched(f"{address}/recordings/guess/x.mcap"))[0] == 404
        stream.recording.on_request(on=False, video=False, audio=False)
        one = (await stream.reached("ready"))["files"][0]
        token = one["url"].split("/")[2]
        assert len(token) >= 20
        for wrong in (f"guess/{one['name']}", f"{token}/other.mcap", f"{token}/..%2F..%2Fetc%2Fpasswd", f"{token}/"):
            assert (await fetched(f"{address}/recordings/{wrong}"))[0] == 404
        assert (await fetched(address + one["url"], host="elsewhere.example"))[0] == 403
        assert (await fetched(address + one["url"]))[0] == 200


async def test_beyond_loopback_the_page_s_token_is_needed_too() -> None:
    async with recordings("0.0.0.0") as (kept, address):
        stream = Stream(kept, "größe")
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.estimates(3)
        stream.recording.on_request(on=False, video=False, audio=False)
        one = (await stream.reached("ready"))["files"][0]
        assert quote(one["name"]) in one["url"]
        assert (await fetched(address + one["url"]))[0] == 200
        assert (await fetched(address + one["url"].partition("?")[0]))[0] == 403


async def test_it_is_gone_a_while_after_its_session(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.5)
    async with recordings() as (kept, address):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.estimates(3)
        stream.recording.on_request(on=False, video=False, audio=False)
        url = address + (await stream.reached("ready"))["files"][0]["url"]
        stream.recording.close()
        stream.recording.close()
        assert (await fetched(url))[0] == 200
        await asyncio.sleep(0.6)
        assert (await fetched(url))[0] == 404
        assert not found(folder, "**/*.mcap")
        stream.recording.on_request(on=True, video=False, audio=False)
        state = stream.recording.state()
        assert (state["state"], state["files"]) == ("ready", [])


async def test_what_is_recorded_as_the_session_ends_can_be_fetched() -> None:
    async with recordings() as (kept, _):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.estimates(3)
        stream.recording.close()
        assert [file["name"][-4:] for file in (await stream.reached("ready"))["files"]] == ["mcap", ".csv", "html"]


async def test_the_end_of_the_server_ends_what_is_recorded(folder: Path) -> None:
    async with recordings() as (kept, _):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.estimates(3)
    assert not found(folder, "dhmd-recordings-*")


@pytest.mark.parametrize(("limit", "told"), [("MOST_S", "stopped after "), ("MOST_BYTES", "stopped at ")])
async def test_it_stops_itself_at_its_limit_and_says_so(monkeypatch: pytest.MonkeyPatch, limit: str, told: str) -> None:
    monkeypatch.setattr(limited, limit, 0.1 if limit == "MOST_S" else 100)
    monkeypatch.setattr(limited, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(recorder, "CHUNK_S", 0.05)
    async with recordings() as (kept, _):
        stream = Stream(kept)
        after: list[float] = []
        stream.pipeline.outputs.add(SimpleNamespace(on_estimate=lambda e: after.append(e.perceived.cut.end_s)))
        stream.recording.on_request(on=True, video=False, audio=False)
        while stream.states[-1]["state"] == "on":
            await stream.estimates(1)
        ready = await stream.reached("ready")
        assert ready["reason"].startswith(told)
        assert len(ready["files"]) == 3
        assert len(after) == stream.pipeline.statistics.estimates


async def test_where_there_is_no_room_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES_IN_ALL", 100)
    async with recordings() as (kept, _):
        stream, other = Stream(kept), Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.estimates(2)
        stream.recording.on_request(on=False, video=False, audio=False)
        await stream.reached("ready")
        other.recording.on_request(on=True, video=False, audio=False)
        failed = await other.reached("failed")
        assert "no room" in failed["reason"]
        assert not failed["files"]


async def test_of_many_the_newest_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_SESSION", 2)
    async with recordings() as (kept, address):
        stream = Stream(kept)
        urls = []
        for _ in range(3):
            stream.recording.on_request(on=True, video=False, audio=False)
            await stream.estimates(2)
            stream.recording.on_request(on=False, video=False, audio=False)
            urls.append((await stream.reached("ready"))["files"][0]["url"])
        assert [(await fetched(address + url))[0] for url in urls] == [404, 200, 200]
        assert len(found(folder, "**/*.mcap")) == 2


async def test_stopped_before_any_estimate_there_is_no_table() -> None:
    async with recordings() as (kept, _):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        stream.recording.on_key("9")
        stream.recording.on_request(on=False, video=False, audio=False)
        ready = await stream.reached("ready")
        assert [file["name"][-5:] for file in ready["files"]] == [".mcap"]
        stream.recording.on_key("2")
        assert "start one first" in stream.marks[-1]


async def test_a_full_disk_fails_the_recording_alone(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    monkeypatch.setattr(recorder, "CHUNK_S", 0.05)
    async with recordings() as (kept, address):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=False, audio=False)
        while stream.states[-1]["state"] == "on":
            await stream.estimates(1)
        failed = await stream.reached("failed")
        assert failed["reason"] == (
            "recording stopped: No space left on device; what was recorded before can be fetched"
        )
        assert [file["name"][-5:] for file in failed["files"]] == [".mcap"]
        assert (await fetched(address + failed["files"][0]["url"]))[0] == 200
        await stream.estimates(2)


HOLDING = """
import asyncio
from realtime.web.address import WebAddress
from realtime.web.recordings import Recordings

async def main():
    async with Recordings(WebAddress.of("127.0.0.1", 0)) as kept:
        (kept.make().folder / "somebody.mcap").write_bytes(b"a face")
        print("there", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_what_a_killed_server_left_is_removed_at_the_next_start(folder: Path) -> None:
    def holding() -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(folder)}
        process = subprocess.Popen([sys.executable, "-c", HOLDING], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return process

    killed = await asyncio.to_thread(holding)
    killed.kill()
    killed.wait()
    [left] = found(folder, "*/*/somebody.mcap")
    living = await asyncio.to_thread(holding)
    try:
        assert not left.exists()
        [kept] = found(folder, "*/*/somebody.mcap")
        young, other, link = (folder / name for name in ("dhmd-recordings-young", "another", "dhmd-recordings-link"))
        young.mkdir()
        other.mkdir()
        link.symlink_to(other)
        os.utime(link, (0, 0), follow_symlinks=False)
        async with recordings():
            assert kept.exists()
            assert young.exists()
            assert list(other.iterdir()) == []
    finally:
        living.kill()
        living.wait()


async def test_without_an_encoder_pictures_are_refused_and_the_rest_is_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("av.codecs_available", {"h264"})
    async with recordings() as (kept, _):
        stream = Stream(kept)
        stream.recording.on_request(on=True, video=True, audio=False)
        assert "x264" in (await stream.reached("failed"))["reason"]
        assert not found(folder, "*/*/*.mcap")
        stream.recording.on_request(on=True, video=False, audio=False)
        await stream.reached("on")
