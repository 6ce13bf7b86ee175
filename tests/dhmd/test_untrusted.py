"""What others wrote is read within limits, and what goes beyond them is one short line."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from dhmd.untrusted import (
    DEEPEST,
    LARGEST,
    LONGEST_QUOTE,
    MOST_DIGITS,
    Untrusted,
    number,
    quoted,
    read_json,
    read_json_object,
    shown,
    texts,
    whole,
)
from dhmd.yaml_config import ConfigInvalid, read_config

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=5), inside, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(values)
def test_what_is_json_is_read_as_python_reads_it(value: Any) -> None:
    assert read_json(json.dumps(value)) == value


@given(st.text() | st.binary() | st.text('[]{},:0123456789eE+-."ntrufals \\uNI'))
def test_whatever_comes_is_a_value_or_a_line(text: str | bytes) -> None:
    told = ""
    try:
        read_json(text)
    except Untrusted as error:
        told = str(error)
    assert len(told) < LONGEST_QUOTE


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * (DEEPEST + 1) + "1" + "]" * (DEEPEST + 1), "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("9" * (MOST_DIGITS + 1), "digits"),
        ("-" + "9" * 5000, "digits"),
        ("1e999", "too large"),
        ("NaN", "no number"),
        ("-Infinity", "no number"),
        ('"\\ud800"', "UTF-8"),
        ('{"\\udfff": 1}', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        (" " * (LARGEST + 1), "larger than 1024 kB"),
        ("", "not JSON"),
    ],
    ids=itertools.count(),
)
def test_what_goes_beyond_a_limit_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(Untrusted, match=why):
        read_json(text)


def test_a_file_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match="larger"):
        read_json(Path("/dev/zero"))
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(Untrusted, match="expected an object, found list"):
        read_json_object(tmp_path / "list.json")


@pytest.mark.parametrize("value", ["inf", "nan", "1e999", "9" * 400, 10**400, True, None, "x", "", [], -0.1, 7])
def test_a_number_is_finite_and_in_its_range(value: object) -> None:
    with pytest.raises(Untrusted, match="is not a number"):
        number(value, 0.0, 6.0)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", 1e999, "1e999"])
def test_what_is_not_finite_is_no_number_in_any_range(value: object) -> None:
    with pytest.raises(Untrusted, match="is not a number"):
        number(value)


@pytest.mark.parametrize("value", ["٣", "1.0", 1.0, True, "-1", "9" * 5000, 10**400, None, 7])
def test_a_whole_number_is_one_and_in_its_range(value: object) -> None:
    with pytest.raises(Untrusted, match="is not a whole number"):
        whole(value, 0, 6)


def test_numbers_are_read_from_text_too() -> None:
    assert number("2.5", 0, 6) == 2.5
    assert whole("3", 0, 6) == whole(3, 0, 6) == 3


@pytest.mark.parametrize("value", [None, [], {"a": 1}, {"a": "x" * 300}, {str(n): "" for n in range(100)}])
def test_texts_are_few_and_short(value: object) -> None:
    with pytest.raises(Untrusted):
        texts(value)


@given(st.text() | st.binary() | st.integers())
@example("x" * (LONGEST_QUOTE + 1))
def test_what_is_shown_is_short_and_cannot_command_a_terminal(value: str | bytes | int) -> None:
    for line in (quoted(value), shown(str(value)[:5000])):
        assert len(line) <= LONGEST_QUOTE
        assert line.isprintable()


def test_a_number_without_end_can_be_shown() -> None:
    assert quoted(10**5000) == "a number of about 5000 digits"


class Settings(BaseModel):
    """One key, of any type."""

    key: Any = None


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, r", line 2: not YAML \(an alias, and none are read here"),
        ("key: " + "[" * 50_000, r", line 1: not YAML \(nested deeper than 32"),
        ("x: 1\nkey: " + "9" * 5000, r", line 2: not YAML \(a number of more than 64 digits"),
        ("key: 2024-13-45", ": month must be in 1..12"),
        ("key: !!python/object/apply:os.system [ls]", ", line 1: not YAML"),
        ("key: '" + "x" * LARGEST + "'", ": larger than 1024 kB"),
        ("key: \x00", ", line|not YAML"),
        ("", ", line 1: expected `key: value` lines"),
    ],
    ids=["aliases", "depth", "digits", "date", "object", "size", "control", "empty"],
)
def test_yaml_that_would_be_a_bomb_is_one_line(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid, match=why) as caught:
        read_config(path, Settings)
    assert len(str(caught.value)) < len(str(path)) + 300


@given(st.text("ab: -[]{}#&*!|>'\"\n\t0123456789.e?,%@`~"))
def test_whatever_yaml_comes_is_settings_or_a_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    with suppress(ConfigInvalid):
        read_config(path, Settings)
