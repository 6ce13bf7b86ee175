"""Fixtures of the live path: the command itself, a real broker, a second client, a clip of a talking face."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
import pytest
import torch

from realtime.cli import main
from realtime.demo import CLIP
from tests.realtime.waiting import PATIENCE_S

COMMAND = str(Path(sys.executable).with_name("dhmd-live"))


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Commands that run in this process keep their hands on the signals until it ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class LiveCommand:
    """A `dhmd-live` process under way."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str] | None) -> None:
        # A process group of its own: signals go to it alone.
        self._process = subprocess.Popen(
            [COMMAND, *arguments],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out = ""
        self.err = ""
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("stdout", "stderr")
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self._process, name):
            if name == "stdout":
                self.out += line
            else:
                self.err += line

    def wait_for(self, happened: Callable[[], Any]) -> None:
        """Wait until something is true; fails when the command ends before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not happened():
            assert self._process.poll() is None, f"ended early: {self.out}\n{self.err}"
            assert time.monotonic() < deadline_s, f"waited in vain: {self.out}\n{self.err}"
            time.sleep(0.02)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        """The exit code."""
        code = self._process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run under asyncio, as the product does."""
    return "asyncio"


@pytest.fixture
def start_live() -> Iterator[Callable[..., LiveCommand]]:
    """start_live(*arguments, environment=None): the command, running; killed at the end of the test."""
    started: list[LiveCommand] = []

    def start(*arguments: str, environment: dict[str, str] | None = None) -> LiveCommand:
        started.append(LiveCommand(arguments, environment))
        return started[-1]

    yield start
    for command in started:
        if not command.ended:
            command.kill()
        command.wait()


class Mosquitto:
    """A real broker on a free loopback port, with one user when `password` is given, else open to all.

    more: lines of its configuration. tls: those of its listener.
    """

    USER = "recogniser"

    def __init__(self, folder: Path, password: str | None, more: Sequence[str] = (), tls: Sequence[str] = ()) -> None:
        self.password = password
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._tls = bool(tls)
        lines = [f"listener {self.port} 127.0.0.1", *tls, "persistence false", *more]
        lines.append(f"allow_anonymous {str(not password).lower()}")
        if password:
            users = folder / "users"
            subprocess.run(["mosquitto_passwd", "-b", "-c", users, self.USER, password], check=True)
            lines.append(f"password_file {users}")
        if os.geteuid() == 0:
            lines.append("user root")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        login = f"{self.USER}:{self.password}@" if self.password else ""
        return f"mqtt{'s' if self._tls else ''}://{login}127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen([mosquitto_program(), "-c", self._config], stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            assert self._process.poll() is None, "mosquitto ended at once"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            assert time.monotonic() < deadline_s, "mosquitto does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def mosquitto_program() -> str:
    """Debian puts it where only root looks."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        pytest.skip("needs mosquitto; sudo apt install mosquitto")
    return found


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """start_mosquitto(password=None, lines=(), tls=()): a broker, stopped at the end of the test."""
    mosquitto_program()
    brokers: list[Mosquitto] = []

    def start(password: str | None = None, lines: Sequence[str] = (), tls: Sequence[str] = ()) -> Mosquitto:
        folder = tmp_path / f"mosquitto{len(brokers)}"
        folder.mkdir()
        brokers.append(Mosquitto(folder, password, lines, tls))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.stop()


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A broker open to all."""
    return start_mosquitto()


class Listener:
    """A second client, with none of our code: keeps all it receives, and comes back when the broker does."""

    def __init__(self, port: int, user: str | None, password: str | None, topic: str) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        """(topic, payload, whether it was retained), in the order of arrival."""
        self._arrived = threading.Condition()
        subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._keep
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S), "the second client could not subscribe"

    def _keep(self, client: object, data: object, message: mqtt.MQTTMessage) -> None:
        with self._arrived:
            self.received.append((message.topic, message.payload, message.retain))
            self._arrived.notify_all()

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    @property
    def topics(self) -> set[str]:
        with self._arrived:
            return {topic for topic, _, _ in self.received}

    def payloads(self, topic: str) -> list[bytes]:
        with self._arrived:
            return [payload for where, payload, _ in self.received if where == topic]

    def estimates(self, stream: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads(f"dhmd/{stream}/emotion")]

    def statuses(self, stream: str) -> list[str]:
        return [payload.decode() for payload in self.payloads(f"dhmd/{stream}/status")]

    def wait_for(self, happened: Callable[[], Any]) -> None:
        """Wait for something that a message makes true."""
        with self._arrived:
            assert self._arrived.wait_for(happened, PATIENCE_S), f"waited in vain; received: {self.received[-5:]}"

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def subscribe() -> Iterator[Callable[..., Listener]]:
    """subscribe(port, user=None, password=None, topic="#"): a second client of a broker on loopback."""
    listeners: list[Listener] = []

    def start(port: int, user: str | None = None, password: str | None = None, topic: str = "#") -> Listener:
        listeners.append(Listener(port, user, password, topic))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture(scope="session")
def talking_clip(make_media: Callable[..., Path]) -> Path:
    """The first four seconds of the demo clip: a face that says "Hello. I will tell you about my day."."""
    return make_media(
        "talking.mp4", "-i", str(CLIP), "-t", "4", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "16",
        "-bf", "0", "-c:a", "aac",
    )  # fmt: skip


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert self.err.endswith("\n")
        return lines[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs root and mount for a disk that is full")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


Live = Callable[..., Outcome]


@pytest.fixture
def live(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """live(*arguments): `dhmd-live` in this process, with all that reaches stdout and stderr."""
    root, threads = logging.getLogger(), torch.get_num_threads()
    level = root.level

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        # As in a process of its own, where nothing has set up logging.
        with monkeypatch.context() as patch:
            patch.setattr(root, "handlers", [])
            with pytest.raises(SystemExit) as end:
                main([str(argument) for argument in arguments])
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, *capfd.readouterr())

    yield run
    root.setLevel(level)
    torch.set_num_threads(threads)
    gc.unfreeze()


@pytest.fixture
def refuse(live: Live) -> Callable[..., str]:
    """refuse(code, *arguments): that nothing happens but one line of error, and the exit code."""

    def run(code: int, *arguments: object) -> str:
        outcome = live(*arguments)
        assert outcome.code == code, outcome
        assert outcome.out == ""
        assert outcome.line.startswith("error: ")
        assert "Traceback" not in outcome.line
        return outcome.line.removeprefix("error: ")

    return run
