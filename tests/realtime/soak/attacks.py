"""Attacks on the page's server, from a process of their own: `python attacks.py ADDRESS NAME SECONDS`."""

from __future__ import annotations

import asyncio
import http.client
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from websockets.exceptions import WebSocketException

from realtime.bench.simulated_visitor import SimulatedVisitor, picture


async def text(visitor: SimulatedVisitor) -> None:
    """Flood of messages that are well formed."""
    await visitor.say("pong", id=0, t=0.0)


async def nonsense(visitor: SimulatedVisitor) -> None:
    await visitor.socket.send("[" * 4000)


async def pings(visitor: SimulatedVisitor) -> None:
    await visitor.socket.ping()


async def parts(visitor: SimulatedVisitor) -> None:
    await visitor.socket.send(["x"] * 1000)


async def large(visitor: SimulatedVisitor) -> None:
    """Messages just below what is received."""
    await visitor.socket.send(bytes(4 * 2**20 - 100))


async def pictures(visitor: SimulatedVisitor) -> None:
    """Noise of the largest size that is decoded, as fast as it is taken."""
    await visitor.socket.send(picture(time.monotonic(), NOISE))


async def scans(visitor: SimulatedVisitor) -> None:
    """Progressive pictures, of which one holds a core for minutes where it is decoded."""
    await visitor.socket.send(picture(time.monotonic(), SCANS))


async def churn(visitor: SimulatedVisitor) -> None:
    """Joins and leaves again and again."""
    await visitor.say("join", session=None)
    await asyncio.sleep(0.05)
    await visitor.say("leave")


def scanned_again_and_again(times: int) -> bytes:
    """A progressive picture whose last scan is there so many times: 440 kB that cost a decoder minutes."""
    black = np.zeros((1920, 1920, 3), np.uint8)
    whole = bytes(cv2.imencode(".jpg", black, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    begin = whole.rindex(b"\xff\xda")
    return whole[:begin] + whole[begin:-2] * times + whole[-2:]


SOURCE = "127.0.0.2"
"""Attackers have an address of their own."""
NOISE = bytes(cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 255, (700, 1000, 3)).astype(np.uint8))[1])
SCANS = scanned_again_and_again(30_000)
TALKS: dict[str, Callable[[SimulatedVisitor], Awaitable[None]]] = {
    one.__name__: one for one in (text, nonsense, pings, parts, large, pictures, scans, churn)
}


async def talk(address: str, say: Callable[[SimulatedVisitor], Awaitable[None]]) -> None:
    """Come back whenever sent away."""
    while True:
        with suppress(WebSocketException, OSError, KeyError):
            async with SimulatedVisitor.at(address, SOURCE) as visitor:
                if say is not churn:
                    await visitor.say("join", session=None)
                    await asyncio.wait_for(visitor.told("hello"), 5.0)
                    await visitor.say("source", kind="video", state="on")
                while True:
                    await say(visitor)
        await asyncio.sleep(0.2)


async def silence(address: str) -> None:
    """Connections that say nothing, or half a request."""
    held: list[Any] = []
    parts = urlsplit(address)
    while True:
        with suppress(OSError):
            one = socket.create_connection((parts.hostname or "", parts.port or 0), 5.0, (SOURCE, 0))
            one.send(b"GET / HT")
            held = [*held[-500:], one]
        await asyncio.sleep(0.01)


async def requests(address: str) -> None:
    """Requests on one connection, one after the other."""
    parts = urlsplit(address)

    def ask() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, source_address=(SOURCE, 0))
        while True:
            connection.request("GET", "/")
            connection.getresponse().read()

    while True:
        with suppress(OSError, http.client.HTTPException):
            await asyncio.to_thread(ask)


ATTACKS = (*TALKS, "silence", "requests")


async def attack(address: str, name: str, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            if name in TALKS:
                await talk(address, TALKS[name])
            else:
                await {"silence": silence, "requests": requests}[name](address)


if __name__ == "__main__":
    asyncio.run(attack(sys.argv[1], sys.argv[2], float(sys.argv[3])))
