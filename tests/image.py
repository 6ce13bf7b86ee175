"""Carry out the Dockerfile where no image can be built, and run what it makes: as root, with debootstrap.

.venv/bin/python tests/image.py [--into DIR] [--arg TORCH_INDEX=ADDRESS]

Its steps are done in a root of Debian, with the network and pip's configuration of this machine. Then, as its user and
with its file system read-only, it reads a file, serves a page beside Mosquitto, is asked how it fares, and is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = "python3,python3-venv,ca-certificates"
"""What the image that ours begins with has."""
LENT: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/root/.config/pip", "/etc/ssl/certs", "/opt")
"""Of this machine, while the steps are done: the way to the network, and what pip is told here."""
WEIGHTS: Final = Path.home() / ".cache" / "dhmd"
CHROOT: Final = shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin") or "chroot"
ESTIMATES: Final = 200
WAIT_S: Final = 600.0


class Image:
    """A root folder, and what the Dockerfile says of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive"}
        self.folder = "/"
        self.command: dict[str, list[str]] = {}

    def sh(self, line: str) -> None:
        """One RUN."""
        print(f"  {line[:110]}", flush=True)
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        lent = [path for path in LENT if Path(path).exists()]
        # /opt is where the image's own program lies: what this machine has there is lent beside it.
        binds = [f"mount -t proc proc {self.root}/proc", f"mount --rbind /dev {self.root}/dev"]
        binds += [f"mount --bind {path} {self._place(path)}" for path in lent if path != "/opt"]
        binds += [f"mount --bind {path} {self._place(str(path))}" for path in Path("/opt").iterdir() if path.is_dir()]
        inside = f"cd {shlex.quote(self.folder)} && {line}"
        command = self.words(binds, [CHROOT, str(self.root), "/bin/sh", "-ec", inside])
        subprocess.run(command, env={**self.environment, **pip}, check=True)

    def take(self, word: str, rest: str) -> None:
        """One of the other instructions."""
        match word:
            case "RUN":
                self.sh(rest)
            case "ENV":
                self.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
            case "WORKDIR":
                self.folder = rest
                (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
                self.command[word] = json.loads(rest[rest.index("[") :])
            case "USER" | "VOLUME" | "EXPOSE":
                pass
            case _:
                raise SystemExit(f"Dockerfile: {word} is not known here")

    def _place(self, path: str) -> Path:
        """Where something of this machine is mounted."""
        place = self.root / path.lstrip("/")
        if not place.exists() and not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir() if Path(path).is_dir() else place.touch()
        return place

    def words(self, binds: Sequence[str], command: list[str]) -> list[str]:
        """The command, with mounts of its own."""
        return ["unshare", "--mount", "sh", "-ec", "; ".join([*binds, f"exec {shlex.join(command)}"])]

    def started(self, *words: str) -> subprocess.Popen[str]:
        """`docker run --read-only --cap-drop ALL`, as its user."""
        root = str(self.root)
        binds = [
            f"mount --bind {root} {root}",
            f"mount -o remount,ro,bind {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"mount -t tmpfs tmpfs {root}/tmp",  # noqa: S108 - of its own
            f"mount --bind {self.weights} {root}/weights",
        ]
        user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        entry = [CHROOT, root, *user, *self.command["ENTRYPOINT"], *words]
        return subprocess.Popen(
            self.words(binds, entry), env=self.environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )

    weights: Path


def steps(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions, each with what follows it."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def build(base: Path, into: Path, arguments: dict[str, str]) -> Image:
    stages: dict[str, Image] = {}
    image = Image(base)
    for word, rest in steps(TOP / "deploy" / "Dockerfile"):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            subprocess.run(["cp", "-a", "--reflink=auto", base, into / name], check=True)
            image = stages[name] = Image(into / name)
        elif word == "COPY":
            words = rest.split()
            source = stages[words.pop(0).removeprefix("--from=")].root if words[0].startswith("--from=") else TOP
            for one in words[:-1]:
                copy(source / one.lstrip("/"), image.root / str(Path(image.folder, words[-1])).lstrip("/"))
        elif word == "ARG":
            name, _, default = rest.partition("=")
            image.environment[name] = arguments.get(name, default)
        else:
            image.take(word, rest)
    return image


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ours = shutil.ignore_patterns("__pycache__") if source.is_relative_to(TOP) else None
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ours)
    else:
        shutil.copy2(source, target / source.name if target.is_dir() else target)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def try_out(image: Image) -> None:
    clip = "/opt/dhmd/lib/python3.11/site-packages/realtime/demo/demo.mp4"
    with image.started("run", "--source", clip, "--pace", "max", "--broker", "none", "--estimates", "-") as run:
        made = len(run.communicate(timeout=WAIT_S)[0].splitlines())
    assert run.returncode == 0
    assert made > ESTIMATES
    print(f"read the demo clip: {made} estimates")
    port = free_port()
    broker = ["mosquitto", "-p", str(port)]
    with subprocess.Popen(broker, stderr=subprocess.DEVNULL) as mosquitto:
        image.environment |= {"DHMD_BROKER": f"mqtt://127.0.0.1:{port}", "DHMD_STREAM": "visitor"}
        with image.started("web", "--port", "0") as web:
            address = next(found[1] for line in web.stdout or () if (found := re.match(r"page: (\S+)", line)))
            with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - our own
                assert answer.status == 200
            assert healthy(image) == 0
            web.terminate()
            web.communicate(timeout=60)
        assert web.returncode == 0, web.returncode
        assert healthy(image) == 1
        mosquitto.terminate()
    print("served the page, was well, was stopped, and was not well any more")


def healthy(image: Image) -> int:
    with image.started(*image.command["HEALTHCHECK"][1:]) as asked:
        asked.communicate(timeout=60)
    return asked.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, help="folder for the roots, kept (default: a temporary one)")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="an argument of the build")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("error: needs root and debootstrap; apt-get install debootstrap")
    with tempfile.TemporaryDirectory() as scratch:
        into = (options.into or Path(scratch)).resolve()
        base = into / "base"
        if not base.exists():
            into.mkdir(parents=True, exist_ok=True)
            print("debootstrap", flush=True)
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", base],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        for old in ("build", "last"):
            shutil.rmtree(into / old, ignore_errors=True)
        begun_s = time.monotonic()
        image = build(base, into, dict(one.split("=", 1) for one in options.arg))
        size = subprocess.run(["du", "-sm", image.root], capture_output=True, text=True, check=True).stdout.split()[0]
        print(f"built in {time.monotonic() - begun_s:.0f} s, {size} MB")
        image.weights = into / "weights"
        shutil.copytree(WEIGHTS, image.weights, dirs_exist_ok=True)
        subprocess.run(["chown", "-R", "1000:1000", image.weights], check=True)
        try_out(image)


if __name__ == "__main__":
    main()
