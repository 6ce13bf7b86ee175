"""The page in a real browser: Debian's Chromium."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dhmd.session import Session, schema
from realtime.demo import CLIP
from tests.realtime.web.chromium import accessible, launching, needs_chromium, opened, served

WEB = ("web", "--port", "0", "--broker", "none")

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launching() as launch:
        yield launch()


@pytest.mark.timeout(900)  # many waits, one after the other
def test_two_pages_follow_the_clip_and_see_its_end(
    browser: Any, tmp_path: Path, make_media: Callable[..., Path]
) -> None:
    # Twice, so that pages that open late, or hear of the words late, still see the happy face.
    twice = make_media("twice.mp4", "-stream_loop", "1", "-i", str(CLIP), "-c", "copy")
    with served(*WEB, "--source", str(twice), "--duration", "40") as address:
        (wide, complaints), (phone, others) = (
            opened(browser, address, viewport=size, color_scheme=scheme)
            for size, scheme in (({"width": 1280, "height": 900}, "light"), ({"width": 390, "height": 844}, "dark"))
        )
        for page in (wide, phone):
            page.locator("#words").get_by_text("wonderful").wait_for()
        for page in (wide, phone):
            # Not wait_for_function: it would need the eval that the page forbids.
            page.locator("#top strong", has_text="happy").wait_for()
            page.locator("#channels [data-name=vision] .present").wait_for()
        shares = wide.locator("#emotions .number").all_inner_texts()
        assert abs(sum(int(share.removesuffix(" %")) for share in shares) - 100) < 5
        drawn = wide.evaluate(
            "[...document.querySelector('#picture').getContext('2d').getImageData(0, 0, 64, 64).data]"
        )
        assert len(set(drawn)) > 16
        for page in (wide, phone):
            page.screenshot(path=tmp_path / f"{page.viewport_size['width']}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            accessible(page)
        # Nobody speaks any more at the end of the sentence: absent looks absent, and says why.
        wide.locator("#connection").get_by_text("the run has ended").wait_for()
        accessible(wide)
    assert complaints == others == []


def test_buttons_mark_what_is_recorded(browser: Any, tmp_path: Path) -> None:
    session = tmp_path / "talk.mcap"
    with served(*WEB, "--source", str(CLIP), "--duration", "12", "--record", str(session)) as address:
        page, complaints = opened(browser, address)
        page.locator("#words").get_by_text("Hello").wait_for()
        page.get_by_role("button", name="happy").click()
        page.locator("#marked").get_by_text(re.compile("marked .* s: happy")).wait_for()
    marks = [record.message for record in Session.open(session).records({schema.MARK})]
    assert [mark.emotion for mark in marks] == ["happy"]
    assert 0 <= marks[0].start_s < marks[0].end_s < 12
    assert complaints == []


def test_what_is_not_there_looks_absent_with_its_reason(browser: Any, tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(CLIP), "-vn", "-t", "8", str(sound)], check=True)
    with served(*WEB, "--broker", "embedded", "--source", str(sound)) as address:
        page, complaints = opened(browser, address)
        page.locator("#channels [data-name=audio] .present").wait_for()
        assert page.locator("#channels [data-name=vision] .absent").inner_text() == "○ no camera"
        assert page.locator("#channels [data-name=vision]").get_attribute("class") == "card away"
        page.locator("#health").get_by_text("broker connected").wait_for()
    assert complaints == []


@pytest.mark.timeout(900)  # many waits, one after the other
def test_of_several_people_the_one_is_read_who_is_pointed_at(
    browser: Any, tmp_path: Path, make_media: Callable[..., Path]
) -> None:
    scale = "[0:v]scale=480:-2,split[a][b];[b]hflip[c];[a][c]hstack"
    once = make_media("pair.mp4", "-i", str(CLIP), "-an", "-filter_complex", scale, "-preset", "ultrafast")
    pair = make_media("pairs.mp4", "-stream_loop", "3", "-i", str(once), "-c", "copy")
    with served(*WEB, "--source", str(pair)) as address:
        page, complaints = opened(browser, address)
        other = page.get_by_role("button", name="read this person")
        other.wait_for()
        page.locator("#read").get_by_text("reading this person").wait_for()
        accessible(page)
        page.screenshot(path=tmp_path / "pair.png", full_page=True)
        side = "() => (dhmd.state.face.box[0] + dhmd.state.face.box[2]) / 2 > 0.5"
        before = page.evaluate(side)
        other.click()
        page.wait_for_function(f"() => dhmd.state.face?.box && ({side})() !== {str(before).lower()}")
        page.get_by_text("Settings").click()
        # What is laid over the picture is mirrored with it.
        on_the_right = "() => parseFloat(document.querySelector('#read').style.left) > 50"
        before = page.evaluate(on_the_right)
        page.get_by_label("Mirror the picture").check()
        page.wait_for_function(f"() => ({on_the_right})() !== {str(before).lower()}")
    assert complaints == []
