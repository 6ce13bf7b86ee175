"""JSON, YAML and numbers that others wrote, read within limits of size, depth, digits and range.

All that comes from a file, a broker or a browser is read here, or by a pydantic model that says what it takes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

LARGEST: Final = 2**20
"""Bytes of a text, unless said otherwise."""
DEEPEST: Final = 32
"""Lists and objects within one another."""
MOST_DIGITS: Final = 64
LONGEST_QUOTE: Final = 200
"""Characters of what was sent that are told to people."""
LONGEST_LINE: Final = 5000
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_YAML_LONG: Final = re.compile(rf"[-+0-9_:.]{{{MOST_DIGITS + 1},}}")


class Untrusted(ValueError):
    """What was read goes beyond a limit, or is not what it should be. Says in a few words why."""


T = TypeVar("T", str, bytes)


def within(text: T, largest: int = LARGEST) -> T:
    """Pass a text on. Raises Untrusted where it is too large to be read."""
    if len(text) > largest:
        raise Untrusted(f"larger than {largest // 1024} kB")
    return text


def read_json(source: str | bytes | Path, *, largest: int = LARGEST) -> Any:
    """Read JSON of a text or a file. Raises Untrusted, and OSError for a file."""
    text = _text(source, largest)
    try:
        told = _DECODER.decode(text)
    except RecursionError:
        raise Untrusted(f"nested deeper than {DEEPEST}") from None
    except json.JSONDecodeError as error:
        raise Untrusted(f"not JSON ({error})") from None
    _walk(told)
    return told


def read_json_object(source: str | bytes | Path, *, largest: int = LARGEST) -> dict[str, Any]:
    """Read a JSON object. Raises Untrusted, and OSError for a file."""
    told = read_json(source, largest=largest)
    if not isinstance(told, dict):
        raise Untrusted(f"expected an object, found {type(told).__name__}")
    return told


def read_yaml(path: Path, *, largest: int = LARGEST) -> tuple[Any, Any]:
    """Read YAML of a file: its nodes, which know their lines, and its values.

    Raises Untrusted, OSError, and yaml.YAMLError, whose mark knows the line.
    """
    return _yaml(_text(path, largest))


def read_yaml_text(text: str, *, largest: int = LARGEST) -> Any:
    """Read the value of YAML. Raises Untrusted, and yaml.YAMLError."""
    return _yaml(within(text, largest))[1]


def _yaml(text: str) -> tuple[Any, Any]:
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _wrong(event, "an alias, and none are read here; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _wrong(event, f"nested deeper than {DEEPEST}")
        if isinstance(event, yaml.ScalarEvent) and event.style is None and _YAML_LONG.fullmatch(event.value):
            raise _wrong(event, f"a number of more than {MOST_DIGITS} digits")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node is not None else None
    except yaml.YAMLError:
        raise
    except (ValueError, OverflowError) as error:
        raise Untrusted(str(error)) from None  # such as the thirteenth month
    finally:
        loader.dispose()


def number(value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Read a finite number, or the text of one, from `low` to `high`. Raises Untrusted."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > MOST_DIGITS:
            raise ValueError  # noqa: TRY301 - told below, with the rest
        if not math.isfinite(found := float(value)):
            raise ValueError  # noqa: TRY301
    except (ValueError, OverflowError):
        raise Untrusted(f"{quoted(value, 60)} is not a number") from None
    if not low <= found <= high:
        raise Untrusted(f"{quoted(value, 60)} is not a number from {low:g} to {high:g}")
    return found


def whole(value: object, low: int, high: int) -> int:
    """Read a whole number, or the text of one, from `low` to `high`. Raises Untrusted."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Untrusted(f"{quoted(value, 60)} is not a whole number from {low} to {high}")
    return value


def texts(value: object, most: int = 64, longest: int = 256) -> Mapping[str, str]:
    """Read an object whose values are texts. Raises Untrusted."""
    if not isinstance(value, Mapping) or len(value) > most:
        raise Untrusted(f"expected an object of at most {most} texts")
    for one in (*value.keys(), *value.values()):
        if not isinstance(one, str) or len(one) > longest:
            raise Untrusted(f"{quoted(one, 60)} is not a text of at most {longest} characters")
    return dict(value)


def shown(text: str, longest: int = LONGEST_QUOTE) -> str:
    """Show a text of others in a line for people: nothing that a terminal obeys, and no more than they can read."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: longest + 1])
    return plain if len(plain) <= longest else f"{plain[: longest - 3]}..."


def plain(text: str) -> str:
    """Show lines for people, whatever stands in them: nothing that a terminal obeys."""
    return "\n".join(shown(line, LONGEST_LINE) for line in text.split("\n"))


def quoted(value: object, longest: int = LONGEST_QUOTE) -> str:
    """Show what was found in place of something else, likewise."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * longest:
        return f"a number of about {value.bit_length() * 0.301:.0f} digits"
    if isinstance(value, str | bytes):
        value = value[: longest + 1]
    return shown(repr(value), longest)


def _text(source: str | bytes | Path, largest: int) -> str:
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(largest + 1)
    try:
        return within(source, largest) if isinstance(source, str) else within(source, largest).decode()
    except UnicodeDecodeError:
        raise Untrusted("not text in UTF-8") from None


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise Untrusted(f"a number of more than {MOST_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(found := float(text)):
        raise Untrusted("a number that is too large")
    return found


def _constant(text: str) -> float:
    raise Untrusted(f"{text}, which is no number")


def _walk(told: Any) -> None:
    """Raise Untrusted for what is nested too deep, or no text."""
    level, depth = [told], 0
    while level:
        if any(isinstance(one, str) and _SURROGATE.search(one) for one in level):
            raise Untrusted("not text in UTF-8")
        level, depth = [inside for one in level if isinstance(one, dict | list) for inside in _inside(one)], depth + 1
        if level and depth > DEEPEST:
            raise Untrusted(f"nested deeper than {DEEPEST}")


def _inside(one: dict[str, Any] | list[Any]) -> list[Any]:
    return one if isinstance(one, list) else [*one.keys(), *one.values()]


_DECODER: Final = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_constant)


def _wrong(event: Any, problem: str) -> Exception:
    import yaml

    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
