"""The page over TLS: real https and wss, who is refused, and files that cannot serve."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from realtime.demo import CLIP
from realtime.errors import SettingsInvalid
from realtime.programs import run
from realtime.programs import visitors as host
from realtime.web import connections
from realtime.web.address import WebAddress
from realtime.web.certificate import Certificate
from realtime.web.feed import Feed
from realtime.web.protocol import REFUSED
from realtime.web.server import WebServer
from realtime.web.viewers import Viewers

pytestmark = pytest.mark.anyio


def openssl(*arguments: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl; sudo apt install openssl")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def made(folder: Path, name: str = "one") -> tuple[Path, Path]:
    """A certificate that signed itself, for this machine, and its key."""
    cert, key = folder / f"{name}.cert.pem", folder / f"{name}.key.pem"
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=dhmd",
        "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2",
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made(tmp_path_factory.mktemp("tls"))


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))


@pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0"])
async def test_the_page_and_its_stream_over_tls(files: tuple[Path, Path], at: str) -> None:
    def fetch(url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, context=trusting(files[0])) as answer:  # noqa: S310 - our own
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    async with WebServer(Viewers(Feed("hall")), WebAddress.of(at, 0, Certificate.of(*files))).open() as printed:
        address = re.sub(r"//[^:]+", "//127.0.0.1", printed)
        parts = urlsplit(address)
        assert parts.scheme == "https"
        status, page = await asyncio.to_thread(fetch, address)
        assert (status, "<html" in page) == (200, True)
        assert (await asyncio.to_thread(fetch, address.partition("?")[0]))[0] == (403 if parts.query else 200)
        stream = f"wss://{parts.netloc}/stream?{parts.query}"
        async with connect(stream, ssl=trusting(files[0]), origin=f"https://{parts.netloc}") as visitor:  # type: ignore[arg-type]
            assert '"hello"' in str(await visitor.recv())
        for origin in (f"http://{parts.netloc}", "https://elsewhere.example", f"https://{parts.hostname}:1"):
            with pytest.raises(ConnectionClosed) as refused:
                async with connect(stream, ssl=trusting(files[0]), origin=origin) as visitor:  # type: ignore[arg-type]
                    await visitor.recv()
            assert refused.value.rcvd is not None
            assert refused.value.rcvd.code == REFUSED


async def test_who_never_ends_the_handshake_counts_for_the_limits(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE_ADDRESS", 2)

    def hung_up_on(one: socket.socket) -> bool:
        """Whether the server ended it, which says nothing before we do."""
        with contextlib.suppress(ConnectionError):
            return one.recv(1) == b""
        return True

    async with WebServer(Viewers(Feed("hall")), WebAddress.of("127.0.0.1", 0, Certificate.of(*files))).open() as url:
        port = urlsplit(url).port or 0
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
            assert await asyncio.to_thread(hung_up_on, held[2])
            held[0].settimeout(0.2)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(hung_up_on, held[0])


async def test_another_s_name_for_us_is_refused(files: tuple[Path, Path]) -> None:
    def status(address: str) -> int:
        request = urllib.request.Request(address, headers={"Host": "elsewhere.example"})  # noqa: S310 - our own
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, context=trusting(files[0]))  # noqa: S310 - our own
        return refused.value.code

    async with WebServer(
        Viewers(Feed("hall")), WebAddress.of("127.0.0.1", 0, Certificate.of(*files))
    ).open() as address:
        assert await asyncio.to_thread(status, address) == 403


def test_neither_is_no_certificate() -> None:
    assert Certificate.of(None, None) is None


def encoded(tmp_path: Path, cert: Path) -> Path:
    """Of a certificate, as a PEM reader cannot read it."""
    openssl("x509", "-in", str(cert), "-outform", "DER", "-out", str(tmp_path / "other.der"))
    return tmp_path / "other.der"


def of_another_kind(tmp_path: Path) -> Path:
    path = tmp_path / "other.pem"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))
    return path


def locked(tmp_path: Path, key: Path) -> Path:
    openssl("pkey", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(tmp_path / "other.pem"))
    return tmp_path / "other.pem"


def damaged(tmp_path: Path, key: Path) -> Path:
    lines = key.read_text().splitlines()
    (tmp_path / "other.pem").write_text("\n".join([*lines[:5], *lines[9:]]))
    return tmp_path / "other.pem"


def outlived(tmp_path: Path, key: Path, start: str, end: str) -> Path:
    """A certificate for a key, valid between two dates, as only `openssl ca` makes them in all its versions."""
    config, asked, cert = (tmp_path / name for name in ("ca.cnf", "asked.pem", "old.pem"))
    (tmp_path / "index").touch()
    config.write_text(
        f"[ca]\ndefault_ca=one\n[one]\ndir={tmp_path}\ndatabase=$dir/index\nserial=$dir/serial\nnew_certs_dir=$dir\n"
        "default_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
    )
    openssl("req", "-new", "-key", str(key), "-out", str(asked), "-subj", "/CN=dhmd")
    openssl(
        "ca", "-batch", "-selfsign", "-notext", "-create_serial", "-config", str(config), "-in", str(asked),
        "-keyfile", str(key), "-startdate", start, "-enddate", end, "-out", str(cert),
    )  # fmt: skip
    return cert


Wrong = Callable[[Path, Path, Path], tuple[Path | None, Path | None]]
TOGETHER = "--tls-cert and --tls-key go together; give both, or neither"
OLD, NEW = ("20200101000000Z", "20200201000000Z"), ("20480101000000Z", "20490101000000Z")
WRONG: dict[str, tuple[Wrong, str]] = {
    "cert alone": (lambda _, cert, key: (cert, None), TOGETHER),
    "key alone": (lambda _, cert, key: (None, key), TOGETHER),
    "no cert": (lambda at, _, key: (at / "none", key), "cannot be read (No such file or directory); name another"),
    "a folder": (lambda at, cert, _: (cert, at), "cannot be read (Is a directory); name another file"),
    "swapped": (lambda _, cert, key: (key, cert), "holds no certificate in PEM format"),
    "DER": (lambda at, cert, key: (encoded(at, cert), key), "holds no certificate in PEM format; convert it"),
    "another key": (lambda at, cert, _: (cert, made(at, "another")[1]), "name the two that were made together"),
    "another kind": (lambda at, cert, _: (cert, of_another_kind(at)), "name the two that were made together"),
    "password": (lambda at, cert, key: (cert, locked(at, key)), "asks for a password; take that away with "),
    "damaged": (lambda at, cert, key: (cert, damaged(at, key)), "cannot be used with "),
    "expired": (lambda at, _, key: (outlived(at, key, *OLD), key), "has expired; make or fetch a new one"),
    "too new": (lambda at, _, key: (outlived(at, key, *NEW), key), "is not valid yet; make or fetch a new one"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_files_that_cannot_serve_are_one_line(tmp_path: Path, files: tuple[Path, Path], what: str) -> None:
    make, told = WRONG[what]
    cert, key = make(tmp_path, *files)
    with pytest.raises(SettingsInvalid) as caught:
        Certificate.of(cert, key)
    line = str(caught.value)
    assert line.startswith("--tls-")
    assert "\n" not in line
    assert told in line


def test_they_are_found_before_models_load(
    refuse: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run", lambda *_, **__: pytest.fail("loads"))
    monkeypatch.setattr(host, "host", lambda *_, **__: pytest.fail("loads"))
    line = refuse(2, "web", "--tls-cert", tmp_path / "none.pem", "--tls-key", tmp_path / "none.pem")
    assert line.startswith(f"--tls-cert {tmp_path}/none.pem: cannot be read")


@pytest.mark.parametrize("where", ["0.0.0.0", "127.0.0.1", "TLS"])
def test_where_browsers_give_no_camera_it_is_said(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, live: Callable[..., Any], where: str
) -> None:
    pages: list[Any] = []

    def ran(*_: Any, web: Any, **__: Any) -> None:
        pages.append(web)
        raise SettingsInvalid("enough")

    monkeypatch.setattr(run, "run", ran)
    tls = ("--tls-cert", files[0], "--tls-key", files[1]) if where == "TLS" else ()
    outcome = live("web", "--source", CLIP, "--host", "0.0.0.0" if where == "TLS" else where, *tls)
    assert outcome.code == 2
    warned = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    if where == "0.0.0.0":
        [line] = warned
        assert "browsers give a camera only to secure pages" in line
        assert "--tls-cert and --tls-key" in line
    else:
        assert not warned
    assert len(pages) == 1
