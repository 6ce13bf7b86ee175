"""The examples of the manual, each run as they tell to, on a real broker."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from realtime.messages.topics import TOPICS
from tests.realtime.mqtt.test_client import feeding, shown
from tests.realtime.web.chromium import launching, needs_chromium, opened

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
MQTT_JS = "mqtt@5.16.0"
NODE_RED = "node-red@4.1.15"
LINES = 25
"""What one takes in at a glance."""


@pytest.fixture
def websocket(start_mosquitto: Callable[..., Any]) -> tuple[Any, str]:
    """A broker for browsers, too: (broker, its address for them)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    broker = start_mosquitto(lines=[f"listener {port} 127.0.0.1", "protocol websockets"])
    return broker, f"ws://127.0.0.1:{port}"


def installed(package: str, folder: Path) -> Path:
    """The folder, with a package of JavaScript installed in it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    (folder / "package.json").write_text("{}")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        pytest.skip(f"npm cannot install {package}: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="session")
def mqtt_js(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package mqtt installed in it, as the examples say."""
    return installed(MQTT_JS, tmp_path_factory.mktemp("mqtt-js"))


@contextlib.contextmanager
def saying(*command: object, cwd: Path | None = None) -> Iterator[Iterator[str]]:
    """Gives the lines that a program says, until the context ends."""
    words = [str(word) for word in command]
    # A process group of its own: a shell's pipeline ends as a whole.
    process = subprocess.Popen(words, cwd=cwd, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        yield (line.rstrip("\n") for line in process.stdout)
    finally:
        subprocess.run(["kill", "--", f"-{process.pid}"], check=False)
        process.wait(60)
        process.stdout.close()


def test_python(mosquitto: Any) -> None:
    with feeding(mosquitto.port), saying(sys.executable, EXAMPLES / "subscribe.py", mosquitto.url, "hall") as said:
        assert next(said) == "happy (100% sure)"


def test_javascript_over_a_websocket(websocket: tuple[Any, str], mqtt_js: Path) -> None:
    broker, address = websocket
    script = shutil.copy(EXAMPLES / "subscribe.mjs", mqtt_js)
    with feeding(broker.port) as feed, saying("node", script, address, "hall", cwd=mqtt_js) as said:
        assert next(said) == "happy (100% sure)"
        nothing = shown("emotion") | {"top": None, "emotions": None}
        feed.say("dhmd/hall/emotion", json.dumps(nothing).encode())
        assert next(said) == "nobody"


@needs_chromium
def test_a_page_in_a_browser(websocket: tuple[Any, str], mqtt_js: Path) -> None:
    broker, address = websocket
    page_file = shutil.copy(EXAMPLES / "page.html", mqtt_js)
    shutil.copy(mqtt_js / "node_modules/mqtt/dist/mqtt.min.js", mqtt_js)
    with feeding(broker.port), launching() as launch:
        page, complaints = opened(launch(), f"file://{page_file}#{address}/hall")
        page.get_by_role("heading", name="happy").wait_for(timeout=60_000)
        assert page.locator("#words").text_content() == shown("emotion")["transcript"]
        assert page.locator("#sure").evaluate("meter => meter.value") > 0.9
    assert complaints == []


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="needs Debian's mosquitto-clients")
def test_a_shell(mosquitto: Any) -> None:
    with feeding(mosquitto.port, "dhmd/hall/state/face", {}) as feed:
        feed.say("dhmd/hall/state/emotion", b"sad", retain=True)
        with saying("sh", EXAMPLES / "subscribe.sh", mosquitto.url, "hall") as said:
            assert next(said) == "sad"
            feed.say("dhmd/hall/state/emotion", b"happy", retain=True)
            assert next(said) == "happy"


def test_node_red(mosquitto: Any, tmp_path: Path) -> None:
    """Imported, with the broker named in its node: what the debug panel shows is in the log, too."""
    program = installed(NODE_RED, tmp_path) / "node_modules" / "node-red" / "red.js"
    nodes = json.loads((EXAMPLES / "node-red.json").read_text())
    (broker,) = (node for node in nodes if node["type"] == "mqtt-broker")
    broker |= {"broker": "127.0.0.1", "port": str(mosquitto.port)}
    (tmp_path / "flows.json").write_text(json.dumps(nodes))
    settings = {"flowFile": "flows.json", "userDir": str(tmp_path), "telemetry": {"enabled": False}}
    # Without editor: no port is opened.
    settings |= {"httpAdminRoot": False, "httpNodeRoot": False, "uiHost": "127.0.0.1", "uiPort": 0}
    (tmp_path / "settings.js").write_text(f"module.exports = {json.dumps(settings)}")
    happy = shown("event")
    with (
        feeding(mosquitto.port, "dhmd/hall/event", happy) as feed,
        saying("node", program, "--settings", tmp_path / "settings.js") as said,
    ):
        emotions = (line.rpartition("[debug:the emotion shown] ")[2] for line in said if "[debug:" in line)
        assert next(emotions) == happy["emotion"] == "happy"
        feed.say("dhmd/hall/event", json.dumps({"v": 1, "t": happy["t"], "event": "face_left"}).encode())
        feed.say("dhmd/hall/event", json.dumps(happy | {"emotion": "sad", "before": "happy"}).encode())
        assert next(emotion for emotion in emotions if emotion != "happy") == "sad"


def test_the_flow_for_node_red_is_whole_and_reads_topics_that_there_are() -> None:
    """Where Node-RED cannot be installed: of its nodes only what this flow uses is checked."""
    nodes = json.loads((EXAMPLES / "node-red.json").read_text())
    by_id = {node["id"]: node for node in nodes}
    assert len(by_id) == len(nodes)
    tabs = {node["id"] for node in nodes if node["type"] == "tab"}
    assert {node["type"] for node in nodes} == {"tab", "mqtt-broker", "mqtt in", "switch", "change", "debug"}
    for node in nodes:
        if node["type"] in {"tab", "mqtt-broker"}:
            continue
        assert node["z"] in tabs
        assert isinstance(node["x"], int)
        assert isinstance(node["y"], int)
        assert all(by_id[target]["z"] == node["z"] for wire in node["wires"] for target in wire)
        assert len(node["wires"]) == (0 if node["type"] == "debug" else node.get("outputs", 1))
    (source,) = (node for node in nodes if node["type"] == "mqtt in")
    assert by_id[source["broker"]]["type"] == "mqtt-broker"
    assert source["datatype"] == "json"
    (topic,) = (topic for topic in TOPICS if source["topic"] == f"dhmd/hall/{topic.levels}")
    # What the flow asks for is in the message.
    (switch,) = (node for node in nodes if node["type"] == "switch")
    (change,) = (node for node in nodes if node["type"] == "change")
    example = shown(topic.levels)
    assert example[switch["property"].removeprefix("payload.")] == switch["rules"][0]["v"]
    assert example[change["rules"][0]["to"].removeprefix("payload.")] == "happy"


@pytest.mark.parametrize("name", ["subscribe.py", "subscribe.mjs", "subscribe.sh", "page.html"])
def test_they_are_short_and_the_manual_names_them(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= LINES
    manual = (EXAMPLES.parent / "mqtt.md").read_text()
    assert re.search(rf"\(examples/{re.escape(name)}\)", manual)
