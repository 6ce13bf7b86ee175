"""A visitor in Debian's Chromium, whose camera and microphone play the demo clip: from the invitation to leaving."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhmd.session import Session, schema
from realtime.bench.page import fake_devices
from realtime.demo import CLIP
from tests.realtime.metrics.test_prometheus import free_address, port_of, scrape, value
from tests.realtime.web.chromium import PATIENCE_MS, Cable, accessible, launching, needs_chromium, opened, served

pytestmark = needs_chromium
TOP = "() => document.querySelector('#top strong').textContent"


@pytest.fixture(scope="module")
def metrics() -> str:
    """Where the server answers Prometheus."""
    return free_address()


@pytest.fixture(scope="module")
def address(metrics: str) -> Iterator[str]:
    """A server for at most two visitors."""
    flags = ("--broker", "none", "--stream", "hall", "--max-streams", "2", "--metrics-port", str(port_of(metrics)))
    with served("web", "--port", "0", *flags) as address:
        yield address


@pytest.fixture(scope="module")
def launch() -> Iterator[Any]:
    with launching() as launch:
        yield launch


@pytest.fixture(scope="module")
def browser(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launch(*fake_devices(CLIP, tmp_path_factory.mktemp("devices")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: in the folder that DHMD_SCREENSHOTS names, else with pytest's own files."""
    return Path(os.environ.get("DHMD_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


def start(page: Any) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


def present(page: Any, modality: str) -> None:
    page.locator(f"#channels [data-name={modality}] .present").wait_for()


def absent(page: Any, modality: str, reason: str) -> None:
    page.locator(f"#channels [data-name={modality}] .absent").get_by_text(reason).wait_for()


@pytest.mark.timeout(900)  # many waits, one after the other
def test_a_visitor_is_understood_and_sees_why_something_is_not_there(
    browser: Any, address: str, metrics: str, pictures: Path
) -> None:
    page, complaints = opened(browser, address, viewport={"width": 1280, "height": 900})
    page.get_by_text("Nothing is stored unless you press Record").wait_for()
    page.screenshot(path=pictures / "invitation.png", full_page=True)
    accessible(page)
    shown = "main > :is(section, details), footer"
    assert [one.get_attribute("id") for one in page.locator(shown).all() if one.is_visible()] == ["invitation"]
    start(page)
    # The clip's own order: it says good news with a happy face, then is taken by surprise.
    page.locator("#words").get_by_text("wonderful").wait_for()
    page.wait_for_function(f"() => ({TOP})() === 'happy'")
    for modality in ("vision", "audio", "text"):
        present(page, modality)
    stream = page.locator("#stream").inner_text()
    assert stream in {"hall-1", "hall-2"}
    page.wait_for_function("() => dhmd.delays.length >= 20")
    read = scrape(metrics)
    assert value(read, "dhmd_estimates_total", stream=stream) >= 20
    assert value(read, "dhmd_worker_state", stream=stream, worker="video", state="running") == 1
    assert min(page.evaluate("() => dhmd.delays")) > 0
    page.screenshot(path=pictures / "visitor.png", full_page=True)
    page.locator("#settings summary").click()
    page.locator("#model > summary").click()
    page.locator("#modalities [data-name=vision] td").first.get_by_text(" s").wait_for()
    accessible(page)
    drawn = page.evaluate("[...document.querySelector('#picture').getContext('2d').getImageData(0, 0, 64, 64).data]")
    assert len(set(drawn)) > 16
    used = page.evaluate("() => atob(Object.values(dhmd.state.activations.homo)[0]).length")
    assert used == page.evaluate("() => dhmd.state.atoms") > 0
    page.wait_for_function(f"() => ({TOP})() === 'surprise'")

    page.get_by_role("button", name="Camera").click()
    absent(page, "vision", "switched off")
    page.screenshot(path=pictures / "covered.png", full_page=True)
    accessible(page)
    page.get_by_role("button", name="Camera").click()
    present(page, "vision")
    page.get_by_role("button", name="Microphone").click()
    absent(page, "audio", "switched off")
    page.get_by_role("button", name="Microphone").click()

    # Chromium tells of a lost device by this event; to pull a fake one out there is no way.
    page.evaluate("() => document.querySelector('#own').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
    absent(page, "vision", "the camera was taken away")
    page.get_by_role("button", name="Start the camera").click()
    present(page, "vision")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    page.evaluate(f"() => {{ {hide % 'true'}; document.dispatchEvent(new Event('visibilitychange')); }}")
    absent(page, "vision", "the tab is hidden")
    page.evaluate(f"() => {{ {hide % 'false'}; document.dispatchEvent(new Event('visibilitychange')); }}")
    present(page, "vision")
    page.get_by_role("button", name="Leave").click()
    page.get_by_role("button", name="Start", exact=True).wait_for()
    page.close()
    assert complaints == []


def test_a_session_is_recorded_with_consent_marked_and_downloaded(
    browser: Any, address: str, pictures: Path, tmp_path: Path
) -> None:
    page, complaints = opened(browser, address)
    start(page)
    present(page, "vision")
    page.get_by_role("button", name="Record").click()
    page.get_by_text("Everyone who is seen or heard agrees").wait_for()
    page.screenshot(path=pictures / "consent.png", full_page=True)
    accessible(page)
    assert page.get_by_role("button", name="Start recording").is_disabled()
    page.get_by_label("Everyone who is seen or heard agrees").check()
    page.get_by_role("button", name="Start recording").click()
    page.locator("#recording").wait_for()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="happy").click()
    page.locator("#marked").get_by_text(re.compile("marked .* s: happy")).wait_for()
    page.screenshot(path=pictures / "recording.png", full_page=True)
    accessible(page)
    page.get_by_role("button", name="Stop recording").click()
    links = page.locator("#files a[download]")
    links.first.wait_for()
    saved = {}
    for link in links.all():
        with page.expect_download() as download:
            link.click()
        saved[Path(download.value.suggested_filename).suffix] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[Path(download.value.suggested_filename).suffix])
    page.screenshot(path=pictures / "recorded.png", full_page=True)
    accessible(page)
    with page.expect_popup() as opening:
        page.get_by_role("link", name="See your report").click()
    report = opening.value
    report.get_by_text("session", exact=True).wait_for()
    report.screenshot(path=pictures / "report.png")
    # Its style is its own, which the page's rules would not allow.
    assert report.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") != "none"
    page.get_by_role("button", name="Leave").click()
    page.close()
    session = Session.open(saved[".mcap"])
    assert [record.message.emotion for record in session.records({schema.MARK})] == ["happy"]
    assert len(list(session.records({schema.ESTIMATE}))) > 5
    assert not list(session.records({schema.VIDEO, schema.SOUND}))
    assert saved[".csv"].read_text().count("\n") > 5
    assert complaints == []


@pytest.mark.timeout(900)  # many waits, one after the other
def test_two_tabs_are_two_visitors_and_a_third_is_asked_to_wait(browser: Any, address: str, pictures: Path) -> None:
    tabs = [opened(browser, address, viewport={"width": 390, "height": 844}, color_scheme="dark") for _ in range(3)]
    for page, _ in tabs[:2]:
        start(page)
        present(page, "vision")
    assert {page.locator("#stream").inner_text() for page, _ in tabs[:2]} == {"hall-1", "hall-2"}
    third = tabs[2][0]
    start(third)
    third.locator("#why").get_by_text("please try again in a while").wait_for()
    third.screenshot(path=pictures / "full.png", full_page=True)
    accessible(third)
    tabs[0][0].screenshot(path=pictures / "phone.png", full_page=True)
    accessible(tabs[0][0])
    assert tabs[0][0].evaluate("document.documentElement.scrollWidth <= innerWidth")
    tabs[0][0].get_by_role("button", name="Leave").click()
    tabs[0][0].get_by_role("button", name="Start", exact=True).wait_for()
    start(third)
    present(third, "vision")
    for page, complaints in tabs:
        page.close()
        assert complaints == []


@pytest.mark.timeout(900)  # many waits, one after the other
def test_a_cut_of_the_network_is_told_and_the_session_goes_on(browser: Any, address: str, pictures: Path) -> None:
    cable = Cable(address)
    page, _ = opened(browser, cable.address)
    start(page)
    present(page, "vision")
    seq, stream = page.evaluate("() => dhmd.state.estimate.seq"), page.locator("#stream").inner_text()
    cable.cut()
    page.get_by_text("connection lost; trying again").wait_for()
    page.screenshot(path=pictures / "cut.png", full_page=True)
    accessible(page)
    cable.mend()
    page.locator("#connection").get_by_text("live", exact=True).wait_for()
    page.wait_for_function(f"() => dhmd.state.estimate.seq > {seq + 20}")
    present(page, "vision")
    assert page.locator("#stream").inner_text() == stream
    page.close()
    cable.close()


@pytest.mark.parametrize(
    ("flags", "told"),
    [(("--use-fake-device-for-media-stream",), "camera not allowed"), ((), "no camera found")],
    ids=["permission denied", "no camera"],
)
def test_without_a_camera_it_says_why(launch: Any, address: str, flags: tuple[str, ...], told: str) -> None:
    page, complaints = opened(launch(*flags), address)
    start(page)
    page.locator("#why").get_by_text(re.compile(told)).wait_for()
    assert page.get_by_role("button", name="Start", exact=True).is_enabled()
    assert complaints == []


def test_a_camera_alone_is_enough_and_another_can_be_chosen(launch: Any, address: str) -> None:
    devices = launch("--use-fake-device-for-media-stream=device-count=2")
    page = devices.new_context(permissions=["camera"]).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    start(page)
    page.locator("#connection").get_by_text("live", exact=True).wait_for()
    page.locator("#microphone-reason").get_by_text("microphone not allowed").wait_for()
    absent(page, "audio", "microphone not allowed")
    page.get_by_text("Settings").click()
    used = "document.querySelector('#own').srcObject?.getTracks()[0].getSettings().deviceId"
    cameras = page.locator("#camera-choice")
    assert cameras.locator("option").count() == 2
    offered = "[...document.querySelector('#camera-choice').options]"
    another = page.evaluate(f"{offered}.find((one) => one.value !== {used}).value")
    cameras.select_option(another)
    page.wait_for_function(f"() => {used} === {another!r}")
    page.locator("#camera-notice").wait_for(state="hidden")
    page.get_by_label("Average over").select_option("2")
