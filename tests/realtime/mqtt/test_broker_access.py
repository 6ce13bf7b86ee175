"""How a broker lets us in: TLS with a CA of its own, certificates of ours, passwords that no process list shows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from amqtt.broker import Broker

from realtime.errors import BrokerRefused, SettingsInvalid
from realtime.layers import read_settings
from realtime.messages.topics import STATUS
from realtime.mqtt import connection
from realtime.mqtt.broker import BrokerAccess, BrokerAddress, named_broker
from realtime.mqtt.publisher import Publisher

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_is_known_of_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_known", {})
    for name in ("DHMD_BROKER_USER", "DHMD_BROKER_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """A CA made for a test."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.ca, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2,
                "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca)  # fmt: skip

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate of a name, for loopback, and its key."""
        cert, key, request, extensions = (self._folder / f"{name}.{kind}" for kind in ("pem", "key", "csr", "ext"))
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-subj", f"/CN={name}", "-keyout", key, "-out", request)  # fmt: skip
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", 2,
                "-extfile", extensions, "-out", cert)  # fmt: skip
        return cert, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "theirs")


@pytest.fixture
def start_tls(start_mosquitto: Callable[..., Any], authority: Authority) -> Callable[..., Any]:
    """start_tls(*lines): a broker of our CA."""
    cert, key = authority.sign("broker")

    def start(*lines: str) -> Any:
        return start_mosquitto(tls=[f"certfile {cert}", f"keyfile {key}", *lines])

    return start


async def outcome(address: BrokerAddress) -> str:
    """`connected`, or why not."""
    told: list[str] = []
    publisher = Publisher(address, "test", told.append)
    task = asyncio.create_task(publisher.run())
    tried = asyncio.create_task(publisher.tried.wait())
    async with asyncio.timeout(60):
        await asyncio.wait({task, tried}, return_when=asyncio.FIRST_COMPLETED)
        tried.cancel()
        publisher.close()
        try:
            await task
        except BrokerRefused as refused:
            return str(refused)
    return told[0]


async def test_a_broker_of_an_own_ca_is_trusted_by_its_file(
    start_tls: Callable[..., Any], authority: Authority
) -> None:
    broker = start_tls()
    assert broker.url.startswith("mqtts://")
    assert await outcome(named_broker(broker.url, BrokerAccess(ca=str(authority.ca)))) == "connected"


async def test_a_broker_of_another_ca_is_not_trusted_and_told_in_one_line(
    start_tls: Callable[..., Any], stranger: Authority
) -> None:
    broker = start_tls()
    for access in (BrokerAccess(ca=str(stranger.ca)), BrokerAccess()):
        line = await outcome(named_broker(broker.url, access))
        assert line.startswith(f"{broker.url}: its certificate is not trusted (unable to get local issuer certificate)")
        assert line.endswith("name the CA that signed it with --broker-ca")


async def test_a_broker_under_another_name_is_not_trusted(start_tls: Callable[..., Any], authority: Authority) -> None:
    broker = start_tls()
    address = named_broker(f"mqtts://localhost:{broker.port}", BrokerAccess(ca=str(authority.ca)))
    assert "Hostname mismatch" in await outcome(address)


async def test_a_broker_that_asks_for_certificates_gets_ours(
    start_tls: Callable[..., Any], authority: Authority, stranger: Authority
) -> None:
    broker = start_tls(f"cafile {authority.ca}", "require_certificate true")

    def address(signer: Authority | None) -> BrokerAddress:
        cert, key = map(str, signer.sign("client")) if signer else (None, None)
        return named_broker(broker.url, BrokerAccess(ca=str(authority.ca), cert=cert, key=key))

    assert await outcome(address(authority)) == "connected"
    connection._known.clear()
    for signer in (None, stranger):
        line = await outcome(address(signer))
        assert (
            line
            == f"{broker.url}: it does not accept our certificate, or asks for one; give --broker-cert and --broker-key"
        )


async def test_a_port_without_tls_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    assert await outcome(BrokerAddress("127.0.0.1", server.sockets[0].getsockname()[1], tls=True)) == "away"
    assert "is away (TLS fails (wrong version number); is it the port for TLS?)" in caplog.text
    server.close()


@pytest.mark.parametrize("how", ["environment", "file", "address"])
async def test_a_password_comes_from_the_environment_or_a_file(
    start_mosquitto: Callable[..., Any], tmp_path: Path, how: str
) -> None:
    broker = start_mosquitto(password="s3cret")
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    url = f"mqtt://127.0.0.1:{broker.port}"
    address = {
        "environment": lambda: named_broker(
            url, environment={"DHMD_BROKER_USER": "recogniser", "DHMD_BROKER_PASSWORD": "s3cret"}
        ),
        "file": lambda: named_broker(
            url.replace("//", "//recogniser@"), BrokerAccess(password_file=str(file)), {"DHMD_BROKER_PASSWORD": "other"}
        ),
        "address": lambda: named_broker(broker.url, environment={"DHMD_BROKER_PASSWORD": "other"}),
    }[how]()
    assert "s3cret" not in f"{address} {address!r}"
    assert await outcome(address) == "connected"


@pytest.mark.parametrize(
    ("access", "url", "told"),
    [
        ({"ca": "missing.pem"}, "mqtts://there", "--broker-ca missing.pem: No such file or directory"),
        ({"ca": "empty"}, "mqtts://there", "--broker-ca empty: holds no certificate"),
        ({"ca": "empty"}, "mqtt://there", "--broker-ca: is for TLS; give --broker mqtts://"),
        ({"cert": "missing.pem"}, "mqtts://there", "--broker-cert missing.pem, --broker-key missing.pem: No such file"),
        ({"cert": "empty"}, "mqtts://there", "--broker-cert empty, --broker-key empty: no pair"),
        ({"key": "empty"}, "mqtts://there", "--broker-key: belongs to a certificate"),
        ({"password_file": "missing"}, "mqtt://me@there", "--broker-password-file missing: cannot be read"),
        ({"password_file": "empty"}, "mqtt://me@there", "--broker-password-file empty: its first line is empty"),
        ({"password_file": "full"}, "mqtt://there", "--broker: a password without a user; set DHMD_BROKER_USER"),
    ],
)
def test_what_does_not_let_in_is_refused_before_anything_runs(
    access: dict[str, str], url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_text("s3cret\n")
    flags = {f"broker_{name}": value for name, value in access.items()}
    with pytest.raises(SettingsInvalid) as refused:
        read_settings(None, {"broker": url, **flags})
    assert str(refused.value).startswith(told)
    assert "s3cret" not in str(refused.value)


def test_access_to_no_broker_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="go with --broker mqtt"):
        read_settings(None, {"broker": "embedded", "broker_ca": "ca.pem"})


def test_the_configuration_file_takes_them_too_and_what_is_shown_holds_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DHMD_BROKER_PASSWORD", "s3cret")
    (tmp_path / "password").write_text("s3cret\n")
    config = tmp_path / "live.yaml"
    config.write_text(f"broker: mqtt://me@there\nbroker_password_file: {tmp_path / 'password'}\n")
    settings = read_settings(config, {})
    assert settings.access == BrokerAccess(password_file=str(tmp_path / "password"))
    assert "s3cret" not in repr(settings) + str(settings.shown())


async def test_the_password_is_in_no_log_however_much_is_logged(
    start_mosquitto: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    broker = start_mosquitto(password="s3cret")
    caplog.set_level(logging.DEBUG)
    beneath = logging.getLogger("realtime.mqtt.connection.paho")
    beneath.setLevel(logging.DEBUG)
    try:
        assert await outcome(named_broker(broker.url)) == "connected"
        with contextlib.suppress(BrokerRefused):
            await outcome(named_broker(broker.url.replace("recogniser", "nobody")))
    finally:
        beneath.setLevel(logging.CRITICAL)
    assert [record for record in caplog.records if record.name == beneath.name]
    assert "s3cret" not in caplog.text


async def test_the_access_list_of_the_manual_lets_each_do_its_own(
    start_mosquitto: Callable[..., Any], subscribe: Callable[..., Any], tmp_path: Path
) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "mqtt.md").read_text()
    acl = tmp_path / "acl"
    acl.write_text(manual.split("```acl\n")[1].split("```")[0])
    acl.chmod(0o700)
    broker = start_mosquitto(password="s3cret", lines=[f"acl_file {acl}"])
    listener = await asyncio.to_thread(subscribe, broker.port, broker.USER, "s3cret")
    told: list[str] = []
    for stream in ("desk", "hall"):
        publisher = Publisher(named_broker(broker.url), stream, told.append)
        task = asyncio.create_task(publisher.run())
        await publisher.tried.wait()
        publisher.keep(STATUS, b"online")
        publisher.close()
        await task
    await asyncio.to_thread(listener.wait_for, lambda: "stopped" in listener.statuses("desk"))
    # This user is the publisher of one stream, and of no other.
    assert listener.statuses("hall") == []


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_broker_behind_websockets(authority: Authority, scheme: str) -> None:
    """amqtt's, as Mosquitto is built without them here."""
    cert, key = authority.sign("websockets")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tls = {"ssl": True, "certfile": str(cert), "keyfile": str(key)} if scheme == "wss" else {}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listener = {"type": "ws", "bind": f"127.0.0.1:{port}", **tls}
    broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
    await broker.start()
    try:
        access = BrokerAccess(str(authority.ca)) if scheme == "wss" else BrokerAccess()
        address = named_broker(f"{scheme}://127.0.0.1:{port}", access)
        assert str(address) == f"{scheme}://127.0.0.1:{port}/mqtt"
        async with connection.connect(address) as client:
            await client.subscribe("here")
            await client.publish("here", b"x" * 40_000, 1)
            assert (await anext(aiter(client.messages))).payload == b"x" * 40_000
    finally:
        await broker.shutdown()


def test_an_ipv6_address_is_shown_as_one_can_use_it() -> None:
    for url in ("mqtt://me@[::1]:1884", "wss://[2001:db8::1]:443/broker"):
        assert str(BrokerAddress.parse(url)) == url


def test_a_password_file_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes("\ufeffs3cret\r\n".encode())
    assert named_broker("mqtt://me@there", BrokerAccess(password_file=str(path)), {}).password == "s3cret"  # noqa: S105
