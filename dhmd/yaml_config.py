"""Configuration files: YAML validated against a pydantic model, with errors that name the line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dhmd.errors import DHMDError
from dhmd.untrusted import Untrusted, quoted, read_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)


class ConfigInvalid(DHMDError):
    """A configuration file has an unknown key, a wrong type, or is not YAML. Names file, line and what was expected."""

    exit_code = 2


def read_config(path: Path, model: type[Model], changes: Mapping[str, Any] | None = None) -> Model:
    """Read and validate. Raises ConfigInvalid with one line for each thing that is wrong.

    changes: values that take the place of the file's, by their key, as in "optimisation.epochs".
    """
    import yaml
    from pydantic import ValidationError

    try:
        root, data = read_yaml(path)
    except OSError as error:
        raise ConfigInvalid(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except Untrusted as error:
        raise ConfigInvalid(f"{path}: {error}; expected a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigInvalid(f"{path}{where}: not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(data, dict):
        raise ConfigInvalid(f"{path}, line 1: expected `key: value` lines, found {type(data).__name__}")
    for key, value in (changes or {}).items():
        _change(data, key.split("."), value)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            at = ".".join(map(str, problem["loc"]))
            changed = any(not at or at == key or at.startswith(f"{key}.") for key in changes or {})
            where = "as changed" if changed else f"line {_line(root, problem['loc'])}"
            lines.append(f"{path}, {where}: {_explain(problem, model)}")
        raise ConfigInvalid("\n".join(lines)) from None


def _change(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = data.get(key)
        data[key] = data = dict(inner) if isinstance(inner, dict) else {}
    data[keys[-1]] = value


def _line(node: Any, location: tuple[int | str, ...]) -> int:
    """The line (from 1) of the deepest part of `location` that stands in the file."""
    line = 1
    for part in location:
        if hasattr(node, "value") and isinstance(part, str):
            pairs = [(key, value) for key, value in node.value if getattr(key, "value", None) == part]
            if not pairs:
                break
            key, node = pairs[-1]
            line = key.start_mark.line + 1
        elif hasattr(node, "value") and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _explain(problem: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        import difflib

        known = list(model.model_fields) if len(problem["loc"]) == 1 else []
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else (f"; known keys: {', '.join(known)}" if known else "")
        return f"unknown key {quoted(where)}{hint}"
    if problem["type"] == "missing":
        return f"{quoted(where)} is missing"
    return f"{quoted(where)}: {explain(problem)}" if where else explain(problem)


def explain(problem: Any) -> str:
    """Says for people what pydantic found wrong with a value. A validator of ours says itself what it found, and how
    much of it may be shown."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{problem['msg'][0].lower()}{problem['msg'][1:]}, found {quoted(problem['input'])}"
