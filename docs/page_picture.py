"""Take the pictures of the page: the way of a first-time visitor in Chromium, whose camera and microphone play the demo
clip, and two people side by side, one of whom speaks, for docs/web.md; the README has two of them.

.venv/bin/python docs/page_picture.py [--out docs] [--people]      --people: the last one alone
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from realtime.bench.page import fake_devices, served
from realtime.demo import CLIP

SIZE: Any = {"width": 1200, "height": 860}
ALL_THREE = "Object.values(dhmd.state.estimate?.modalities ?? {}).filter((one) => one.emotions).length === 3"
RECORDED_MS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--people", action="store_true")
    asked = parser.parse_args()
    two_people(asked.out)
    if not asked.people:
        visit(asked.out)


def two_people(folder: Path) -> None:
    """The demo clip beside a later part of itself that is not heard."""
    with tempfile.TemporaryDirectory() as scratch:
        film = Path(scratch) / "two.mp4"
        beside = (
            "[0:v]crop=iw*0.62:ih,scale=-2:480[a];[1:v]hflip,crop=iw*0.62:ih,scale=-2:480,hue=h=25[b];[a][b]hstack[v]"
        )
        command = ["ffmpeg", "-v", "error", "-i", CLIP, "-ss", "12", "-i", CLIP, "-filter_complex", beside]
        subprocess.run([*command, "-map", "[v]", "-map", "0:a", "-t", "18", film], check=True)
        with (
            served("--stream", "table", "--source", str(film), "--people", "2") as (address, _),
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(240_000)
            page.goto(address)
            speaker = page.locator("#people button.speaks", has_text="happy")
            speaker.wait_for()
            speaker.click()
            page.locator("#words").get_by_text("Wonderful").wait_for()
            page.locator("#words [data-who]").first.wait_for()
            page.screenshot(path=folder / "people.png")


def visit(folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as devices,
        served("--stream", "hall") as (address, _),
        sync_playwright() as playwright,
    ):
        flags = ["--no-sandbox", *fake_devices(CLIP, Path(devices))]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(240_000)

        def keep(name: str, of: Any = page) -> None:
            of.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=82)

        page.goto(address)
        start = page.get_by_role("button", name="Start", exact=True)
        start.wait_for()
        keep("visit-1-open")
        start.click()
        page.locator("#channels [data-name=vision] .present").wait_for()
        keep("visit-2-start")
        # The clip says good news with a happy face.
        page.locator("#words").get_by_text("wonderful").wait_for()
        page.wait_for_function(f"() => {ALL_THREE} && dhmd.state.estimate.top === 'happy'")
        keep("visit-3-see")
        page.screenshot(path=folder / "page.png", full_page=True)
        page.get_by_role("button", name="Record").click()
        page.get_by_label("Everyone who is seen or heard agrees").check()
        keep("visit-4-record")
        page.get_by_role("button", name="Start recording").click()
        page.locator("#recording").wait_for()
        page.wait_for_timeout(RECORDED_MS)
        page.get_by_role("button", name="Stop recording").click()
        report = page.get_by_role("link", name="See your report")
        report.wait_for()
        report.scroll_into_view_if_needed()
        keep("visit-5-stop")
        with page.expect_popup() as opening:
            report.click()
        opening.value.set_viewport_size(SIZE)
        opening.value.get_by_text("session", exact=True).wait_for()
        keep("visit-6-report", opening.value)


if __name__ == "__main__":
    main()
