"""The page of all streams at a broker, in a real browser."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.realtime.web.chromium import accessible, launching, needs_chromium, opened

pytestmark = needs_chromium


def say(port: int, topic: str, payload: bytes, *flags: str) -> None:
    command = ["mosquitto_pub", "-p", str(port), "-t", f"dhmd/{topic}", "-q", "1", "-s" if payload else "-n", *flags]
    subprocess.run(command, input=payload, check=True, timeout=30)


def compact(emotion: str | None, share: float, number: int = 0) -> bytes:
    said = {"v": 1, "n": number, "t": time.time(), "e": emotion, "p": share, "q": [], "s": 0.5, "va": 0.6, "ar": 0.3}
    return json.dumps(said | {"m": "fv" if emotion else ""}).encode()


def test_every_stream_has_a_card_that_says_how_it_is(
    start_live: Callable[..., Any], mosquitto: Any, tmp_path: Path
) -> None:
    late = {"state": "late", "reason": "3.0 s behind; the machine is busy", "restarts": 0, "v": 1}
    say(mosquitto.port, "attic/status", b"offline", "-r")
    say(mosquitto.port, "hall/status", b"online", "-r")
    say(mosquitto.port, "hall/status/face", json.dumps(late).encode(), "-r")
    say(mosquitto.port, "porch/status", b"\xff" * 100_000, "-r")
    say(mosquitto.port, "kitchen/status", b"online", "-r")
    watching = start_live("watch", "--page", "--port", "0", "--broker", mosquitto.url)
    watching.wait_for(lambda: "Ctrl-C" in watching.out)
    address = watching.out.split(": ")[1].split()[0]
    with launching() as launch:
        page, complaints = opened(launch(), address, viewport={"width": 900, "height": 700})
        hall, attic, kitchen = (page.locator(".stream", has=page.get_by_role("heading", name=n, exact=True))
                                for n in ("hall", "attic", "kitchen"))  # fmt: skip
        attic.get_by_text("connection lost").wait_for()
        kitchen.get_by_text("silent").wait_for()

        say(mosquitto.port, "hall/emotion/compact", b'{"v": 1, "e": "hungry"}')
        while not hall.get_by_text("live").is_visible():
            say(mosquitto.port, "hall/emotion/compact", compact("happy", 0.82))
            page.wait_for_timeout(500)
        assert hall.locator("strong").inner_text() == "happy"
        assert hall.locator(".sure").inner_text() == "82 % sure"
        assert hall.locator(".channels").inner_text() == "face, voice · valence +0.60 · arousal +0.30"
        assert hall.locator(".bad").inner_text() == "face late: 3.0 s behind; the machine is busy"
        assert page.locator(".stream h2").all_inner_texts() == ["attic", "hall", "kitchen"], "what is none has no card"
        hall.get_by_text("last hour: happy 100 %").wait_for()
        accessible(page)
        page.screenshot(path=tmp_path / "streams.png", full_page=True)
        hall.get_by_text("silent for").wait_for()
        say(mosquitto.port, "attic/status", b"", "-r")
        attic.wait_for(state="detached")
        mosquitto.stop()
        page.get_by_text("the broker is away").wait_for()
        mosquitto.start()
        page.locator("#connection", has_text="away").wait_for(state="detached")
        watching.interrupt()
        assert watching.wait() == 0
        page.get_by_text("the page's server has ended").wait_for()
    assert complaints == []
