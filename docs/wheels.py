"""Write the table of wheels in docs/install.md: for which systems and Pythons the locks' own files are built.

.venv/bin/python docs/wheels.py [--check]

A file counts if its sha256 stands in a lock. The names of such files come from the package index, PyPI or the one that
PIP_INDEX_URL names.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename
from pip._internal.models.index import PyPI

from dhmd.untrusted import read_json

TOP: Final = Path(__file__).resolve().parents[1]
PAGE: Final = TOP / "docs" / "install.md"
BEGIN, END = "<!-- wheels -->\n", "<!-- end of wheels -->\n"
LOCKS: Final = {
    "A live run": ("requirements.lock", "requirements-torch.lock"),
    "The extras": ("requirements-extras.lock",),
}
PYTHONS: Final = ((3, 11), (3, 12), (3, 13), (3, 14))
MANYLINUX: Final = [
    "manylinux1_{}",
    "manylinux2010_{}",
    "manylinux2014_{}",
    *(f"manylinux_2_{n}_{{}}" for n in range(5, 37)),
]
SYSTEMS: Final = {
    "Windows x86-64": ["win_amd64"],
    "macOS arm64": list(mac_platforms((14, 0), "arm64")),
    "Linux x86-64": [tag.format("x86_64") for tag in MANYLINUX],
    "Linux aarch64": [tag.format("aarch64") for tag in MANYLINUX],
}
"""Platform tags that Windows 10, macOS 14 and Debian 12 take."""
KIND: Final = "application/vnd.pypi.simple.v1+json"
LARGEST: Final = 64 * 2**20


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    name: str
    version: str
    hashes: frozenset[str]


def pins(lock: Path) -> Iterator[Pin]:
    for entry in re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]:
        name, version = re.match(r"(\S+?)==(\S+)", entry).groups()  # type: ignore[union-attr]
        yield Pin(name, version, frozenset(re.findall(r"--hash=sha256:(\w+)", entry)))


def tags(pin: Pin) -> frozenset[Tag]:
    """The tags of all wheels of a pin."""
    index = os.environ.get("PIP_INDEX_URL", PyPI.simple_url).rstrip("/")
    request = urllib.request.Request(f"{index}/{canonicalize_name(pin.name)}/", headers={"Accept": KIND})
    with urllib.request.urlopen(request, timeout=60) as reply:
        files = read_json(reply.read(), largest=LARGEST)["files"]
    own = [file for file in files if file["hashes"].get("sha256") in pin.hashes]
    wheels = [parse_wheel_filename(file["filename"]) for file in own if file["filename"].endswith(".whl")]
    return frozenset(tag for _, version, _, of in wheels if str(version) == pin.version for tag in of)


def pythons(offered: frozenset[Tag], platforms: list[str]) -> list[tuple[int, int]]:
    """The Pythons that have a wheel on one of the platforms."""
    return [
        python
        for python in PYTHONS
        if not offered.isdisjoint(cpython_tags(python, platforms=platforms))
        or not offered.isdisjoint(compatible_tags(python, f"cp{python[0]}{python[1]}", platforms))
    ]


def shown(found: list[tuple[int, int]]) -> str:
    names = [f"{major}.{minor}" for major, minor in found]
    if len(found) == len(PYTHONS):
        return "all"
    return ", ".join(names) or "none"


def table() -> str:
    lines = []
    for title, locks in LOCKS.items():
        named = sorted((pin for lock in locks for pin in pins(TOP / lock)), key=lambda pin: pin.name)
        with ThreadPoolExecutor(8) as pool:
            offered = dict(zip(named, pool.map(tags, named), strict=True))
        rows = {pin: [pythons(of, platforms) for platforms in SYSTEMS.values()] for pin, of in offered.items()}
        anywhere = [pin for pin, cells in rows.items() if all(len(cell) == len(PYTHONS) for cell in cells)]
        *first, last = SYSTEMS
        lines += [f"**{title}**, {len(rows)} packages. On {', '.join(first)} and {last}, for Python {shown_range()}: "]
        lines[-1] += ", ".join(f"{pin.name} {pin.version}" for pin in anywhere) + "."
        if rest := {pin: cells for pin, cells in rows.items() if pin not in anywhere}:
            lines += ["", f"| the others | {' | '.join(SYSTEMS)} |", "| --- |" + " --- |" * len(SYSTEMS)]
            lines += [f"| {pin.name} {pin.version} | {' | '.join(map(shown, cells))} |" for pin, cells in rest.items()]
        lines.append("")
    return "\n".join(lines)


def shown_range() -> str:
    return f"{PYTHONS[0][0]}.{PYTHONS[0][1]} to {PYTHONS[-1][0]}.{PYTHONS[-1][1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page says something else")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    made = before + BEGIN + table() + END + rest.partition(END)[2]
    if check:
        sys.exit(0 if made == page else f"{PAGE}: other wheels than the index has; run docs/wheels.py")
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
