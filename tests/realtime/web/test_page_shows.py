"""What the page makes of what it is told, in Chromium: a feed says it, at moments that no camera would give."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from dhmd.contract import Language, Word
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from realtime import languages
from realtime.messages.estimate import EmotionName, ExtraClasses, ExtraNumber, Silence
from realtime.perception.attention import Attention
from realtime.perception.people import PeopleInView, PersonInView
from realtime.perception.speaking import Turn
from realtime.perception.transcript import TranscriptUpdate
from realtime.session.export import look
from realtime.web import pages
from realtime.web.address import WebAddress
from realtime.web.feed import Feed
from realtime.web.server import STATIC, WebServer
from realtime.web.viewers import Viewers
from realtime.workers import WorkerState, WorkerStatus
from tests.realtime.web.chromium import Cable, accessible, launching, needs_chromium, opened
from tests.realtime.web.test_feed import emission

EVERYTHING = frozenset(Modality)
# Machado, Oliveira & Fernandes 2009 (IEEE TVCG 15(6)), severity 1, on linear RGB.
SEEN_BY = {
    "everybody": np.eye(3),
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ],
    "protanopes": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
}  # fmt: skip
WRITTEN = """() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) found.push(walker.currentNode.data.replace(/\\s+/g, " ").trim());
  return [...found, ...[...document.querySelectorAll("[aria-label]")].map((one) => one.getAttribute("aria-label"))];
}"""
"""All that is written on the page."""
LEAST_DIFFERENCE = 15.0
"""CIEDE2000; 2 can just be told apart side by side."""


class Stage:
    """A page's server in a thread, and its feed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.feed = Feed("hall")
        self.web = WebServer(Viewers(self.feed), WebAddress.of("127.0.0.1", 0))
        self.address = ""
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self.loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(60)

    async def _run(self) -> None:
        async with self.web.open() as self.address:
            self._ready.set()
            await self._over.wait()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(60)
        self.loop.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launching() as launch:
        yield launch()


def looking(browser: Any, stage: Stage, path: str = "", **how: Any) -> Any:
    page, complaints = opened(browser, stage.address + path, **how)
    page.locator("body[data-phase=viewing]").wait_for(state="attached")
    page.complaints = complaints
    return page


def card(page: Any, modality: str) -> Any:
    return page.locator(f"#channels [data-name={modality}]")


@needs_chromium
def test_who_is_missing_is_told_from_what_is_missing(browser: Any, stage: Stage) -> None:
    page = looking(browser, stage)
    stage.feed.on_estimate(emission(1.0, present=frozenset()))
    card(page, "vision").get_by_text("○ starting").wait_for()
    for worker in ("video", "audio", "voice"):
        stage.feed.on_worker(WorkerStatus(worker, WorkerState.RUNNING))
    # There is a camera, and nobody yet who looks at what it gives.
    card(page, "vision").get_by_text("○ starting").wait_for()
    card(page, "audio").get_by_text("○ no voice").wait_for()
    card(page, "text").get_by_text("○ not recognised here").wait_for()
    stage.feed.on_worker(WorkerStatus("face", WorkerState.RUNNING))
    card(page, "vision").get_by_text("○ no face in sight").wait_for()
    page.locator("#top").get_by_text("nobody seen or heard").wait_for()
    stage.feed.on_estimate(emission(1.1, present=frozenset(), late=frozenset({Modality.VISION})))
    card(page, "vision").get_by_text("◌ behind").wait_for()
    page.locator("#top").get_by_text("the machine is behind").wait_for()
    assert page.complaints == []


@needs_chromium
def test_channels_that_disagree_are_named_and_what_lasts_is_read_out(browser: Any, stage: Stage) -> None:
    page = looking(browser, stage)
    says = {Modality.TEXT: "happy", Modality.AUDIO: "angry"}
    for tick in range(8):
        stage.feed.on_estimate(emission(tick / 10, present=EVERYTHING, says=says, top="angry"))
    page.locator("#top .differs").get_by_text("angry voice, happy words").wait_for()
    card(page, "audio").get_by_text("✖ angry 90 %").wait_for()
    card(page, "audio").get_by_text("influence 20 %").wait_for()
    # On top at once, read out once it has lasted for a second.
    page.locator("#top strong").get_by_text("angry").wait_for()
    assert page.locator("#announced").inner_text() == ""
    for tick in range(8, 12):
        stage.feed.on_estimate(emission(tick / 10, present=EVERYTHING, says=says, top="angry"))
    page.locator("#announced").get_by_text("angry").wait_for()
    accessible(page)
    assert page.complaints == []


@needs_chromium
def test_what_heads_of_ones_own_say_is_shown_as_long_as_there_is_something(browser: Any, stage: Stage) -> None:
    mood = ExtraClasses(top="bored", probabilities={"engaged": 0.2, "bored": 0.7, "contempt": 0.1})
    rating = ExtraNumber(value=3.25, low=2.5, high=4.0, range=(1, 5), unit="points")
    page = looking(browser, stage)
    stage.feed.on_estimate(emission(1.0))
    page.locator("#affect dd").first.wait_for()
    assert page.locator("#extra").is_hidden()
    stage.feed.on_estimate(emission(1.1, extra={"mood": mood, "self_rating": rating}))
    page.locator("#extra dd", has_text="bored 70 %").wait_for()
    assert page.locator("#extra dt").all_text_contents() == [
        "mood engaged, bored, contempt",
        "self rating 1 to 5 points",
    ]
    assert page.locator("#extra dd").last.text_content() == "3.25"
    assert page.locator("#extra meter").last.evaluate("meter => [meter.min, meter.value, meter.max]") == [1, 3.25, 5]
    accessible(page)
    stage.feed.on_estimate(emission(1.2, present=frozenset()))
    page.locator("#extra dd", has_text=re.compile("^-$")).last.wait_for()
    assert page.locator("#extra dd").all_text_contents() == ["-", "-"]
    assert not page.complaints


@needs_chromium
def test_speech_that_is_not_read_is_told_and_its_language(browser: Any, stage: Stage) -> None:
    page = looking(browser, stage)
    hearing, unread, told = frozenset({Modality.AUDIO}), Attention(unread=True), page.locator("#unread")
    stage.feed.on_estimate(emission(1.0, present=hearing))
    page.locator("#channels .absent").last.wait_for()
    assert told.inner_text() == ""
    stage.feed.on_estimate(emission(1.1, present=hearing, attention=unread))
    told.get_by_text("Speech is heard, and not understood").wait_for()
    page.locator("#channels .absent", has_text="not understood").wait_for()
    stage.feed.on_words(TranscriptUpdate((), (Word("hallo", 1.0, 1.4, 1.0, "de"),), 0.0), 1)
    german = replace(unread, language=Language("de", 0.98))
    stage.feed.on_estimate(emission(1.2, present=hearing, attention=german, transcript="hallo"))
    told.get_by_text("These words are shown, and not read").wait_for()
    assert page.locator("#language").inner_text() == "German"
    accessible(page)
    stage.feed.on_estimate(emission(1.25, present=EVERYTHING, attention=Attention(covered=True)))
    card(page, "vision").get_by_text("◐ mouth covered").wait_for()
    stage.feed.on_estimate(emission(1.3, present=EVERYTHING))
    page.wait_for_function("() => document.querySelector('#unread').textContent === ''")
    assert page.complaints == []


@needs_chromium
def test_the_page_speaks_the_language_of_the_browser(browser: Any, stage: Stage) -> None:
    """German as it ships; and nothing of the page's own stays English in it."""
    page = looking(browser, stage, locale="de-AT")
    says = {Modality.AUDIO: "sad", Modality.TEXT: "happy"}
    stage.feed.on_estimate(emission(1.0, present=EVERYTHING, says=says, top="happy"))
    page.locator("#top strong", has_text="fröhlich").wait_for()
    assert page.locator("#top .differs").inner_text() == "Stimme traurig, Worte fröhlich"
    assert page.locator("html").get_attribute("lang") == "de"
    assert page.locator("#connection").inner_text() == "live"
    page.locator("#health", has_text="Modell").wait_for()
    texts = json.loads((languages.FILES / "de.json").read_text())
    stage.feed.on_worker(WorkerStatus("face", WorkerState.BEHIND, "0.7 s behind; the machine is busy"))
    page.locator("#wrong", has_text="0.7 s im Rückstand; der Rechner ist beschäftigt").wait_for()
    english = {text for text, german in texts.items() if text != german and "{" not in text}
    assert not english & {*page.evaluate(WRITTEN)}
    accessible(page)
    assert page.complaints == []


def test_every_text_of_the_page_is_there_in_german() -> None:
    """Keys of the file are texts of the page, and the texts that its scripts ask for are keys."""
    texts = json.loads((languages.FILES / "de.json").read_text())
    scripts = "".join(path.read_text() for path in STATIC.glob("*.js"))
    page = re.sub(r"\s+", " ", (STATIC / "index.html").read_text())
    asked = {*re.findall(r"""\bt\("([^"]+)\"""", scripts)}
    assert asked <= texts.keys(), asked - texts.keys()
    body = page.partition("<body")[2]
    written = {text.strip() for text in re.findall(r">([^<>]*[A-Za-z][^<>]*)<", body)}
    labels = {*re.findall(r'aria-label="([^"]+)"', body)}
    assert written | labels <= texts.keys(), (written | labels) - texts.keys()
    places = [{*re.findall(r"\{\w+\}", one)} for one in (*texts.keys(), *texts.values())]
    assert places[: len(texts)] == places[len(texts) :]


@needs_chromium
def test_each_of_several_people_has_a_card_and_who_speaks_is_told(browser: Any, stage: Stage, tmp_path: Path) -> None:
    page, feed = looking(browser, stage), stage.feed
    two = tuple(PersonInView(number, 1.0, (0.4 * number - 0.3, 0.2, 0.4 * number, 0.7)) for number in (1, 2))

    def told(end_s: float, person: int, top: str, silent: Silence | None, *present: Modality) -> None:
        made = emission(end_s, present=frozenset(present), top=cast("EmotionName", top))
        feed.on_person(replace(made, estimate=made.estimate.model_copy(update={"person": person, "silent": silent})))

    feed.on_estimate(emission(2.0, present=EVERYTHING, top="angry"))
    assert not page.locator("#people button").count()
    feed.on_people(PeopleInView(2.0, two, Turn(1.5, 2.0, 2)))
    told(2.0, 1, "sad", "another", Modality.VISION)
    told(2.0, 2, "happy", None, *EVERYTHING)
    said = Word("Wonderful", 1.6, 1.9)
    feed.on_words(TranscriptUpdate((said, Word("news", 1.9, 2.0, overlapped=True)), (), 0.0), 1)
    feed.on_person_words(2, [said], 1)
    first, second = (page.locator("#people button").nth(n) for n in (0, 1))
    second.get_by_text("speaks").wait_for()
    first.get_by_text("sad").wait_for()
    assert first.inner_text().split()[:3] == ["1", "▼", "sad"]
    assert first.get_attribute("aria-pressed") == "true"
    assert page.locator("#top .whose").inner_text() == "Person 1"
    assert page.locator("#top strong").inner_text() == "sad"
    assert card(page, "audio").locator(".absent").inner_text() == "○ another speaks"
    second.click()
    page.locator("#top strong", has_text="happy").wait_for()
    page.locator("#words [data-who='2']", has_text="Wonderful").wait_for()
    assert page.locator("#words [data-who]").count() == 1
    assert page.locator("#words [data-overlapped]").all_inner_texts() == ["news"]
    accessible(page)
    page.screenshot(path=tmp_path / "people.png", full_page=True)
    feed.on_people(PeopleInView(9.0, two[:1]))
    page.locator("#top strong", has_text="angry").wait_for()
    assert not page.locator("#people button").count(), "of one person there is no choice"
    assert page.complaints == []


@needs_chromium
def test_links_of_a_server_that_is_gone_are_withdrawn(
    browser: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cable = Cable(stage.address)
    page, _ = opened(browser, cable.address)
    file = {"name": "talk.mcap", "bytes": 1000, "url": "/recordings/abc/talk.mcap"}
    ready = {"state": "ready", "reason": "", "started": None, "video": False, "audio": False, "files": [file]}
    page.locator("body[data-phase=viewing]").wait_for(state="attached")
    stage.feed.on_recording(ready)
    link = page.get_by_role("link", name="talk.mcap")
    link.wait_for()
    cable.cut()
    page.locator("#files").get_by_text("out of reach").wait_for()
    assert page.locator("#files ul").evaluate("list => list.inert")
    cable.mend()
    page.wait_for_function("() => !document.querySelector('#files ul').inert")
    cable.cut()
    # As another life of the server would greet.
    monkeypatch.setattr(pages, "SERVER", "another")
    stage.feed._recording = None
    cable.mend()
    page.locator("#files").get_by_text("the server was started anew").wait_for()
    assert page.locator("#files a").count() == 0
    cable.close()


@needs_chromium
def test_an_overlay_is_the_answer_on_nothing(browser: Any, stage: Stage) -> None:
    page = looking(browser, stage, "?overlay=1", viewport={"width": 640, "height": 480})
    for tick in range(20):
        stage.feed.on_estimate(emission(tick / 10, present=EVERYTHING, top="happy"))
    page.locator("#top strong").get_by_text("happy").wait_for()
    seen = Image.open(io.BytesIO(page.screenshot(omit_background=True))).convert("RGBA")
    assert seen.getpixel((639, 479))[3] == seen.getpixel((2, 2))[3] == 0  # type: ignore[index]
    assert seen.getchannel("A").getextrema() == (0, 255)
    assert not page.locator(".scene, .said, #model, footer").filter(visible=True).count()
    accessible(page)
    assert page.complaints == []


@needs_chromium
@pytest.mark.parametrize("how", [{"forced_colors": "active"}, {"color_scheme": "dark"}], ids=str)
def test_bars_are_seen_in_whatever_colours(browser: Any, stage: Stage, how: dict[str, str]) -> None:
    page = looking(browser, stage, **how)
    stage.feed.on_estimate(emission(1.0, present=EVERYTHING, says={Modality.TEXT: "happy"}, top="happy"))
    page.locator("#top strong").get_by_text("happy").wait_for()
    bar = page.locator("#emotions .bar").first
    colours = Image.open(io.BytesIO(bar.screenshot())).convert("RGB").getcolors()
    assert colours is not None
    assert (0x62, 0x66, 0x6B) in {colour for _, colour in colours}
    accessible(page)


@pytest.mark.parametrize("who", SEEN_BY)
def test_everybody_tells_the_emotions_colours_apart(who: str) -> None:
    style = (STATIC / "style.css").read_text()
    rgb = np.array([[int(hexes(style, name)[i : i + 2], 16) / 255 for i in (0, 2, 4)] for name in EMOTIONS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(SEEN_BY[who]), 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    least = {
        (a, b): deltaE_ciede2000(lab[i], lab[j]) for i, a in enumerate(EMOTIONS) for j, b in enumerate(EMOTIONS[:i])
    }
    assert min(least.values()) >= LEAST_DIFFERENCE, min(least, key=lambda pair: least[pair])


def test_the_report_has_the_pages_colours() -> None:
    style = (STATIC / "style.css").read_text()
    assert {name: f"#{hexes(style, name)}" for name in EMOTIONS} == look.COLOURS


def hexes(style: str, name: str) -> str:
    found = re.search(rf"--{name}: #([0-9a-f]{{6}});", style)
    assert found is not None
    return found[1]
