"""Texts for people in other languages than English: one file each, complete, and of texts that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dhmd.untrusted import read_json_object
from realtime import languages
from realtime.languages import ENGLISH, LANGUAGES, t, written_in
from realtime.session.export.html import __file__ as report

CODE = Path(languages.__file__).parent.parent
REPORT = Path(report).parent
OTHERS = [code for code in LANGUAGES if code != ENGLISH]


def asked_of(path: Path) -> Iterator[str]:
    """Texts that a module of the report looks up: arguments of `t`, names of columns, and of panels."""
    for node in ast.walk(ast.parse(path.read_text())):
        texts: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            texts = node.args[:1] if name == "t" else node.args[:2] if name in {"graph", "Panel"} else []
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "head":
            texts = [node.value]
        for text in texts:
            constants = (one.value for one in ast.walk(text) if isinstance(one, ast.Constant))
            yield from (one for one in constants if isinstance(one, str) and len(one) > 1)


@pytest.mark.parametrize("code", OTHERS)
def test_every_text_of_a_report_is_there(code: str) -> None:
    asked = {text for path in REPORT.glob("*.py") for text in asked_of(path)}
    assert len(asked) > 80
    assert asked <= read_json_object(languages.FILES / f"{code}.json").keys()


@pytest.mark.parametrize("code", OTHERS)
def test_every_text_is_one_that_is_said(code: str) -> None:
    """A text that is worded anew has a translation no longer: its parts stand somewhere in the code."""
    code_of_pages = [*CODE.rglob("*.py"), *CODE.rglob("*.html"), *CODE.rglob("*.js")]
    said = " ".join(path.read_text() for path in code_of_pages)
    joined = re.sub(r'"[\s+]*f?"', "", re.sub(r"\s+", " ", said.replace("\\n", "\n")))
    texts = read_json_object(languages.FILES / f"{code}.json")
    parts = {part for text in texts for part in re.split(r"\{\w+\}", re.sub(r"\s+", " ", text))}
    # One line says it of camera and microphone: `${name} in use by another program`.
    devices = re.sub(r"\$\{[^}]+\}", "DEVICE", joined)
    missing = {part for part in parts if part.strip() not in joined}
    assert not {part for part in missing if re.sub("camera|microphone", "DEVICE", part).strip() not in devices}


def test_texts_are_those_of_the_language_that_is_written_in() -> None:
    with written_in("de"):
        assert t("happy") == "fröhlich"
        assert t("{low} to {high}", low=1, high="{2}") == "1 bis {2}"
        assert t("no such text") == "no such text"
    assert t("happy") == "happy"
