"""Nothing phones home: the whole demo, where only loopback exists, tries to reach nobody else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dhmd.assets.store import ASSETS, fetch
from realtime.demo import CLIP

CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(
    r"sin_port=htons\((?P<port>\d+)\), sin_addr=inet_addr\(\"(?P<v4>[^\"]+)\"\)"
    r"|sin6_port=htons\((?P<port6>\d+)\).*?inet_pton\(AF_INET6, \"(?P<v6>[^\"]+)\""
)
NAME_SERVICE_PORT = "53"


@dataclass(frozen=True)
class Watched:
    """A command that has ended, and every address that it or its children spoke to or tried to."""

    code: int
    out: str
    err: str
    addresses: list[tuple[str, str]]
    """(address, port) of each call, in order."""

    @property
    def strangers(self) -> list[tuple[str, str]]:
        """Addresses outside this machine; name servers count, wherever they are: a name was to be looked up."""
        return [
            (address, port)
            for address, port in self.addresses
            if port == NAME_SERVICE_PORT or not (address.startswith("127.") or address in {"::1", "::ffff:127.0.0.1"})
        ]


def confinement() -> list[str]:
    """A command that runs what follows it where only loopback exists; empty where that is not allowed."""
    if shutil.which("unshare") and shutil.which("ip"):
        for unshare in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
            command = [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
    return []


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Watched]:
    """watched(*command): run it, confined to loopback where that is allowed, with its calls to others noted."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace; sudo apt install strace")
    trace = tmp_path / "calls"
    tracer = ["strace", "--follow-forks", "--seccomp-bpf", "--trace", CALLS, "--output", str(trace)]
    if subprocess.run([*tracer, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not trace here (ptrace is forbidden in this container)")

    def run(*command: str) -> Watched:
        done = subprocess.run([*confinement(), *tracer, *command], capture_output=True, text=True, check=False)
        found = [match.groupdict() for line in trace.read_text().splitlines() for match in ADDRESS.finditer(line)]
        addresses = [(f["v4"] or f["v6"], f["port"] or f["port6"]) for f in found]
        return Watched(done.returncode, done.stdout, done.stderr, addresses)

    return run


@pytest.mark.parametrize(
    ("attempt", "stranger"),
    [
        ("s.socket().connect_ex(('192.0.2.7', 443))", ("192.0.2.7", "443")),
        ("s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'?', ('192.0.2.7', 53))", ("192.0.2.7", "53")),
        ("s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'?', ('127.0.0.1', 53))", ("127.0.0.1", "53")),
        ("s.socket(s.AF_INET6).connect_ex(('2001:db8::7', 443))", ("2001:db8::7", "443")),
    ],
    ids=["TCP", "UDP", "name server", "IPv6"],
)
def test_an_attempt_to_reach_somebody_is_seen(
    watched: Callable[..., Watched], attempt: str, stranger: tuple[str, str]
) -> None:
    script = f"""
import socket as s
s.socket().connect_ex(('127.0.0.1', 9))
try:
    {attempt}
except OSError:
    pass
"""
    seen = watched(sys.executable, "-c", script)
    assert seen.code == 0, seen.err
    assert seen.strangers == [stranger]
    assert ("127.0.0.1", "9") in seen.addresses


DEMO = """
import sys
from pathlib import Path
import realtime.demo
from realtime.cli import program
realtime.demo.CLIP = Path(sys.argv.pop())
program()
"""


def test_the_demo_reaches_nobody(watched: Callable[..., Watched], make_media: Callable[..., Path]) -> None:
    """Face, voice, words, model, embedded broker and publisher: all of it, on the first third of the clip that ships,
    as nothing else is done in the rest."""
    for asset in ASSETS.values():
        if not asset.chosen:
            fetch(asset.name)
    third = make_media("third.mp4", "-i", str(CLIP), "-t", "8", "-c", "copy")
    seen = watched(sys.executable, "-c", DEMO, "demo", str(third))
    assert seen.code == 0, seen.err
    assert seen.strangers == []
    broker = re.search(r"embedded broker on mqtt://127\.0\.0\.1:(\d+)", seen.out)
    assert broker is not None
    assert ("127.0.0.1", broker[1]) in seen.addresses
    # And it did its work: three modalities were perceived, and none of it waited for a network in vain.
    assert re.search(r"face\+ voice\+ words\+", seen.out)
    assert "capture to published" in seen.out
    assert "found no broker" not in seen.out
    assert seen.err == ""


@pytest.mark.parametrize("module", ["dhmd", "dhmd.features.speech", "realtime.cli", "training.cli"])
def test_libraries_are_told_not_to_report_before_they_load(module: str) -> None:
    script = f"""
import sys, {module}, os
print(os.environ["ORT_DISABLE_TELEMETRY"], "onnxruntime" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n"
