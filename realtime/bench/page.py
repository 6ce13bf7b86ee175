"""Cost and delay of the page: visitors that are simulated, and one in a real browser where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from realtime import event_loop
from realtime.bench.row import Row
from realtime.bench.simulated_visitor import SimulatedVisitor
from realtime.capture.media import MediaFile
from realtime.memory import MemoryLog
from realtime.percentiles import percentiles

VISITORS: Final = 4
VISITORS_HOP_S: Final = 0.2
HOP_S: Final = 0.1
POLL_S: Final = 10.0
SETTLED_S: Final = 10.0
"""What is measured begins so long after a page was opened."""
OBSERVE: Final = """
    window.bench = {frames: 0, long: []};
    new PerformanceObserver((list) => bench.long.push(...list.getEntries().map((entry) => entry.duration)))
      .observe({type: "longtask"});
    const count = () => { bench.frames += 1; requestAnimationFrame(count); };
    requestAnimationFrame(count);
"""


def visitor_rows(media: Path, seconds: float) -> list[Row]:
    """Measure four simulated visitors at once. media: somebody who is seen and talks, for as long as that."""

    async def all_of_them(address: str) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(_visit(address, media, seconds) for _ in range(VISITORS)))

    words = ("--max-streams", str(VISITORS), "--hop", str(VISITORS_HOP_S))
    with served(*words) as (address, process_id), MemoryLog(process_id) as memory:
        visits = event_loop.run(all_of_them(address))
    rates = [(len(visit) - 1) / (visit[-1]["at"] - visit[0]["at"]) for visit in visits]
    told = [one["data"] for visit in visits for one in visit]
    seen = [face["age_s"] * 1000 for one in told if (face := one["modalities"]["vision"])["present"]]
    p50, p95, _ = percentiles(seen) or (0.0, 0.0, 0.0)
    rows = [
        ("four visitors", f"{min(rates):.2f} to {max(rates):.2f} estimates /s each", ">= 5 /s"),
        ("four visitors, age of the face", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", ""),
        ("four visitors, face in the estimate", f"{len(seen) / len(told):.0%} of the time", ""),
    ]
    last = len(memory.samples_mb) // 60
    if (second := memory.minute(2)) and last > 2 and (newest := memory.minute(last)):
        rows.append((f"server memory, minute {last} / minute 2", f"{100 * (newest / second - 1):+.2f} %", "within 1 %"))
    return rows


async def _visit(address: str, media: Path, seconds: float) -> list[dict[str, Any]]:
    """The estimates that one visitor is told, once settled."""
    async with SimulatedVisitor.at(address) as visitor:
        await visitor.join()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await visitor.play(MediaFile(str(media)))
        estimates = visitor.all("estimate")
        await visitor.say("leave")
        await visitor.told("ended")
    return [one for one in estimates if one["at"] > estimates[0]["at"] + SETTLED_S]


def page_rows(media: Path, seconds: float) -> list[Row]:
    """Measure one visitor in Chromium, whose camera and microphone play the media: from the camera to what is drawn."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        return [("page", "not measured: needs Debian's chromium and pip install playwright", "")]
    with (
        tempfile.TemporaryDirectory() as folder,
        served() as (address, _),
        sync_playwright() as playwright,
    ):
        flags = ["--no-sandbox", *fake_devices(media, Path(folder))]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(OBSERVE)
        page.goto(address)
        page.get_by_role("button", name=re.compile("^start", re.IGNORECASE)).click()
        page.wait_for_function("() => window.dhmd?.delays.length > 0", timeout=60_000)
        page.wait_for_timeout(SETTLED_S * 1000)
        page.evaluate("() => { bench.frames = 0; bench.long = []; bench.from = performance.now(); }")
        delays: list[float] = []
        for _ in range(max(1, round(seconds / POLL_S))):
            page.wait_for_timeout(POLL_S * 1000)
            delays += page.evaluate("(count) => dhmd.delays.slice(-count)", round(POLL_S / HOP_S))
        seen = page.evaluate("() => ({...bench, seconds: (performance.now() - bench.from) / 1000})")
        browser.close()
    p50, p95, _ = percentiles(delays) or (0.0, 0.0, 0.0)
    return [
        ("page, camera to drawn", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", "p95 <= 250 ms"),
        ("page, drawing", f"{seen['frames'] / seen['seconds']:.0f} frames /s", ">= 30 /s"),
        ("page, longest task", f"{max(seen['long'], default=0):.0f} ms ({len(seen['long'])} over 50 ms)", "<= 50 ms"),
    ]


def fake_devices(media: Path, folder: Path) -> list[str]:
    """Flags with which Chromium takes a file for its camera and microphone. Needs ffmpeg."""
    picture, sound = folder / "camera.mjpeg", folder / "microphone.wav"
    convert = ["ffmpeg", "-v", "error", "-i", str(media)]
    scale = "scale=640:480:force_original_aspect_ratio=decrease,pad=640:480:(ow-iw)/2:(oh-ih)/2,fps=30"
    subprocess.run(
        [*convert, "-an", "-vf", scale, "-pix_fmt", "yuvj420p", "-q:v", "4", "-c:v", "mjpeg", str(picture)], check=True
    )
    subprocess.run([*convert, "-vn", "-ar", "48000", "-ac", "1", str(sound)], check=True)
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={picture}",
        f"--use-file-for-fake-audio-capture={sound}",
        "--autoplay-policy=no-user-gesture-required",
    ]


@contextlib.contextmanager
def served(*words: str) -> Iterator[tuple[str, int]]:
    """A server of visitors; gives its address and the number of its process."""
    command = [sys.executable, "-m", "realtime", "web", "--port", "0", "--broker", "none", "--stream", "bench", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        found = next((found for line in process.stdout if (found := re.search(r"page: (\S+)", line))), None)
        if found is None:
            raise RuntimeError(f"dhmd-live web ended with status {process.wait()} before it served a page")
        try:
            yield found[1], process.pid
        finally:
            process.terminate()
            process.stdout.read()
