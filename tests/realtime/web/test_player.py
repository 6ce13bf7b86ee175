"""The player of recordings: by itself, and in Chromium."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhmd.session import Session, schema
from realtime.cli.entry import main
from realtime.demo import CLIP
from realtime.web.feed import Feed
from realtime.web.player import Listed, Player, Transport
from realtime.web.protocol import Play
from realtime.web.replayed import scenes
from tests.realtime.waiting import until
from tests.realtime.web.chromium import accessible, launching, needs_chromium, opened, served

SECONDS = 7.0


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with pictures, of the clip's own time."""
    path = tmp_path_factory.mktemp("sessions") / "talk.mcap"
    words = ["run", "--source", CLIP, "--pace", "max", "--broker", "none", "--duration", f"{SECONDS:g}"]
    words += ["--record", path, "--record-video"]
    subprocess.run([sys.executable, "-m", "realtime", *words], check=True, stdout=subprocess.DEVNULL)
    return path


class Told(Feed):
    """A feed that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("talk")
        self.ends_s: list[float] = []
        self.jumps = 0

    def on_estimate(self, emission: Any) -> None:
        self.ends_s.append(emission.perceived.cut.end_s)

    def begin_again(self) -> None:
        self.jumps += 1


def test_from_any_moment_on_it_is_the_rest_of_the_session(talk: Path) -> None:
    session = Session.open(talk)
    whole = list(scenes(session))
    recorded = [record.message.end_s for record in session.records({schema.ESTIMATE})]
    assert [scene.estimate.end_s for scene in whole] == recorded
    for since_s in (0.0, 4.05, recorded[-1], recorded[-1] + 1):
        rest = list(scenes(session, since_s))
        assert [scene.estimate.end_s for scene in rest] == [end_s for end_s in recorded if end_s >= since_s]
        if rest:
            # What holds by then is told with the first: words, face and picture, though no key picture is near.
            assert {tell.func.__name__ for tell in rest[0].told} >= (  # type: ignore[attr-defined]
                {"on_frame", "on_face", "on_words"} if since_s else set()
            )


def test_records_since_a_moment_are_those_of_the_whole(talk: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(talk.read_bytes()[:-4000])
    for path in (talk, cut):
        session = Session.open(path)
        whole = [(record.topic, record.arrived_s) for record in session.records()]
        for since_s in (-1.0, 2.5, 1e6):
            found = [(record.topic, record.arrived_s) for record in session.records(since_s=since_s)]
            assert found == [one for one in whole if one[1] >= since_s]


@pytest.mark.anyio
async def test_a_position_moves_while_it_plays_at_its_speed_and_waits_for_a_machine_that_cannot_follow() -> None:
    now_s = 100.0
    transport = Transport(lambda: now_s)
    transport.steer(on=True, speed=2.0)
    now_s += 1
    assert transport.position_s == 2.0
    assert await transport.reach(1.9)
    transport.steer(on=False)
    now_s += 5
    assert transport.position_s == 2.0
    waiting = asyncio.create_task(transport.reach(2.1))
    await asyncio.sleep(0)
    transport.jump(7.0)
    assert not await waiting
    transport.steer(on=True)
    now_s += 10
    assert await transport.reach(7.5)
    assert transport.position_s == 7.5


@pytest.mark.anyio
async def test_it_waits_for_somebody_who_looks_and_pauses_without(talk: Path) -> None:
    feed = Told()
    player = Player([Listed.of(talk)], feed)
    playing = asyncio.create_task(player.run())
    player.on_asked(Play(type="play", speed=16.0))
    assert feed.ends_s == []
    with player.watched():
        await until(lambda: len(feed.ends_s) > 5)
    transport = player._transport
    assert not transport.on
    with player.watched():
        assert transport.on
        await until(lambda: player._at_end)
        assert not transport.on
        player.on_asked(Play(type="play", on=True))
        await until(lambda: feed.ends_s[-1] < 1.0)  # at the end it plays from the beginning
        player.on_asked(Play(type="play", at=3.0, on=False))
        await until(lambda: feed.ends_s[-1] == 3.0)
        jumps = feed.jumps
        player.on_asked(Play(type="play", at=1e6))
        await until(lambda: feed.jumps > jumps and feed.ends_s[-1] == SECONDS)
        player.on_asked(Play(type="play", loop=True, on=True))
        await until(lambda: not player._at_end and feed.ends_s[-1] > 1.0)
        jumps = feed.jumps
        await until(lambda: feed.jumps > jumps)
    playing.cancel()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--checkpoint", "base"], "--checkpoint: --web plays sessions as they were recorded"),
        (["--broker", "mqtt://127.0.0.1"], "--broker: --web plays to those who look"),
        (["--pace", "2"], "--pace: --web plays"),
    ],
)
def test_what_makes_something_else_of_a_session_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["replay", "talk.mcap", "--web", *words])
    assert told in capsys.readouterr().err


def test_nothing_to_play_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["replay", str(tmp_path), "--web"])
    assert "no session in it" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launching() as launch:
        yield launch()


@needs_chromium
@pytest.mark.timeout(900)  # many waits, one after the other
def test_recordings_are_played_in_the_browser(browser: Any, talk: Path, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("DHMD_SCREENSHOTS") or tmp_path)
    folder = tmp_path / "sessions"
    folder.mkdir()
    for name in ("talk.mcap", "walk.mcap"):
        shutil.copy(talk, folder / name)
    (folder / "empty.mcap").write_bytes(b"nothing")
    with served("replay", str(folder), "--web", "--port", "0") as address:
        page, complaints = opened(browser, address, viewport={"width": 1280, "height": 900})
        page.get_by_role("heading", name=re.compile("Recording of .* talk")).wait_for()
        page.locator("#words").get_by_text("Hello").wait_for()
        drawn = "[...document.querySelector('#picture').getContext('2d').getImageData(0, 0, 64, 64).data]"
        assert len(set(page.evaluate(drawn))) > 16
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Play").wait_for()
        page.get_by_label("Position").fill("6")
        page.wait_for_function("() => Math.abs(dhmd.state.estimateEnd - 6) < 0.2")
        page.locator("#top strong", has_text="happy").wait_for()
        page.locator("#words").get_by_text("Hello").wait_for()  # said before, and still true
        page.locator("#position").get_by_text("0:06 of 0:07").wait_for()
        accessible(page)
        page.screenshot(path=pictures / "player.png", full_page=True)
        page.reload()
        page.wait_for_function("() => Math.abs(dhmd.state.estimateEnd - 6) < 0.2")  # where it stands, for who comes
        page.get_by_label("Speed").select_option("4")
        page.get_by_label("again and again").check()
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("() => dhmd.state.estimateEnd > 0 && dhmd.state.estimateEnd < 5")
        assert page.get_by_role("button", name=re.compile("empty · not an MCAP file")).is_disabled()
        page.get_by_role("button", name="walk").click()
        page.get_by_role("heading", name=re.compile("Recording of .* walk")).wait_for()
        assert page.locator("#sessions [aria-current=true]").inner_text() == "walk"
    assert complaints == []
