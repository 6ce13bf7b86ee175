"""Take the picture of the README: a visitor in Chromium, whose camera and microphone play the demo clip.

.venv/bin/python docs/page_picture.py [--at 14] [--out docs/page.png]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from realtime.bench.page import fake_devices, served
from realtime.demo import CLIP


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", type=float, default=14.0, help="seconds after the visitor came")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("page.png"))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served("--stream", "hall") as (address, _),
        sync_playwright() as playwright,
    ):
        flags = ["--no-sandbox", *fake_devices(CLIP, Path(folder))]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_function("() => dhmd.state.estimate")
        page.wait_for_timeout(options.at * 1000)
        page.screenshot(path=options.out, full_page=True)


if __name__ == "__main__":
    main()
