"""docs/install.md speaks of the locks as they are; what the index has, docs/wheels.py --check asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PAGE = (TOP / "docs" / "install.md").read_text()


def pins(lock: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([a-z0-9][^ =]*)==(\S+)", (TOP / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("title", "locks"),
    [("A live run", ("requirements.lock", "requirements-torch.lock")), ("The extras", ("requirements-extras.lock",))],
)
def test_the_table_of_wheels_is_that_of_the_locks(title: str, locks: tuple[str, ...]) -> None:
    """Otherwise: python docs/wheels.py, which needs the package index."""
    part = PAGE[PAGE.index(f"**{title}**") :]
    listed, _, rest = part.partition("\n\n**")[0].partition("<!--")[0].partition("\n\n|")
    named = re.findall(r"([\w-]+) (\d[\w.]*?)[,.](?=\s|$)", listed[listed.index(": ") :])
    others = re.findall(r"^\| ([\w-]+) (\d\S*) \|", rest, re.MULTILINE)
    wanted = set().union(*map(pins, locks))
    assert {*named, *others} == wanted
    assert f"{len(wanted)} packages" in part


def test_there_is_a_way_without_make_for_each_daily_target() -> None:
    without = PAGE[PAGE.index("## Without make") :]
    assert set(re.findall(r"^\| `make (\w+)`", without, re.MULTILINE)) >= {"setup", "demo", "extras", "test", "lint"}


@pytest.mark.parametrize("name", ["install.md", "deployment.md"])
def test_links_lead_to_what_there_is(name: str) -> None:
    page = TOP / "docs" / name
    for path, anchor in re.findall(r"\]\(([^)#:]*)#?([^)]*)\)", page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{path}#{anchor}"
