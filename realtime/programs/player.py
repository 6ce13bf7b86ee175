"""`dhmd-live replay ... --web`: a player of recorded sessions on the page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from realtime import event_loop
from realtime.errors import SettingsInvalid
from realtime.pipeline.interrupts import stop_when_asked
from realtime.recognition.steadiness import Steadiness
from realtime.web.address import WebAddress
from realtime.web.feed import Feed
from realtime.web.player import Listed, Player
from realtime.web.server import WebServer
from realtime.web.viewers import Viewers


def play(paths: Sequence[Path], address: WebAddress, steadiness: Steadiness | None, console: Console) -> None:
    """Serve the player until Ctrl-C. Raises SettingsInvalid and SessionInvalid where there is nothing to play."""
    listed = [Listed.of(path) for path in sessions_in(paths)]
    if not any(one.session for one in listed):
        raise SettingsInvalid(f"{listed[0].name}: {listed[0].problem}" if listed else f"{paths[0]}: no session in it")
    feed = Feed(listed[0].name)
    server = WebServer(Viewers(feed, Player(listed, feed, steadiness)), address)
    event_loop.run(_serve(server, console))


def sessions_in(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are, and of folders the sessions in them, by name."""
    return [found for path in paths for found in (sorted(path.glob("*.mcap")) if path.is_dir() else [path])]


async def _serve(server: WebServer[Viewers], console: Console) -> None:
    stop = stop_when_asked()
    async with server.open() as page, asyncio.TaskGroup() as group:
        console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)
        console.print("it plays once somebody looks; Ctrl-C ends it", highlight=False)
        playing = group.create_task(server.audience.play(), name="player")
        stopping = group.create_task(stop.wait(), name="stop")
        await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        playing.cancel()
        stopping.cancel()
