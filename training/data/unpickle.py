"""Pickles of plain data, read without executing anything that is in them.

A pickle names functions and classes and calls them. Here a name is looked up in a table of stand-ins of our own, which
only take notes, and everything else is refused by its name. numpy's own constructors are never called with what a
pickle gives them: an array is made from its bytes after type, shape and length were checked.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from dhmd.untrusted import shown
from training.errors import PickleRefused

READ: Final = "only numpy arrays, str, bytes, numbers, bool, None, lists, tuples and dicts are read"
MADE_AT_LEAST: Final = 2**24
_PLAIN: Final = re.compile(r"[<>=|]?(b1|\?|[iu][1248]|f[248]|[SU]\d{1,6})")
_DAMAGED: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


def load(path: Path) -> Any:
    """Returns what the pickle holds. Arrays come read-only; an array of objects comes as a list, of several
    dimensions as lists within lists, and its objects are data themselves.

    Raises PickleRefused, naming what the pickle asked for, or that it is damaged.
    """
    try:
        with path.open("rb") as file:
            _check_memo(file)
            file.seek(0)
            _Made.left = MADE_AT_LEAST + 4 * path.stat().st_size
            return _settled(_Unpickler(file).load(), 0, {})
    except OSError as error:
        raise PickleRefused(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except _Refused as refused:
        raise PickleRefused(f"{path}: refused, it holds {refused}; {READ}, and nothing was executed") from None
    except _DAMAGED as error:
        raise PickleRefused(f"{path}: no pickle, or a damaged one ({shown(str(error), 120)}); fetch it again") from None


def _check_memo(file: IO[bytes]) -> None:
    """Raise _Refused for a memo with holes: it is made as long as the largest number that is named, of five bytes."""
    numbered = 0
    for opcode, number, _ in pickletools.genops(file):
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            numbered += 1
            if isinstance(number, int) and number > 2 * numbered + 1000:
                raise _Refused("a memo with holes")


class _Made:
    """Bytes that the stand-ins may still make of one pickle: it may name the same text a million times."""

    left = 0

    @classmethod
    def spend(cls, count: int) -> None:
        cls.left -= count
        if cls.left < 0:
            raise _Refused("many copies of the same")


class _Refused(Exception):
    """The argument completes "it holds ..."."""


class _Function:
    """A function of ours, under the name of the one a pickle asks for; a pickle can neither change nor subclass it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __setstate__(self, state: object) -> NoReturn:
        raise _Refused("changes to a function or class")

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)


class _Type:
    """A dtype."""

    __slots__ = ("dtype", "of_objects")

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str):
            raise _Refused("an array of an unknown type")
        self.of_objects = code in {"O", "O8", "O4", "|O"}
        if not self.of_objects and not _PLAIN.fullmatch(code):
            raise _Refused(f"an array of type {code[:20]!a}")
        self.dtype = np.dtype("O" if self.of_objects else code)

    def __setstate__(self, state: object) -> None:
        """state: (version, byte order, subarray, names, fields, ...), of which only the byte order may be given."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _Refused("an array of a structured type")
        match state[1]:
            case "<" | ">" | "=" as order if not self.of_objects:
                self.dtype = self.dtype.newbyteorder(order)
            case "|":
                pass
            case _:
                raise _Refused("an array of unknown byte order")


class _Array:
    """An array whose parts are being read."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None

    def __setstate__(self, state: object) -> None:
        """state: (version, shape, dtype, column-major, bytes or the list of objects)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array of an unknown form")
        _, shape, kind, column_major, data = state
        self.fill(data, kind, shape, column_major=bool(column_major))

    def fill(self, data: object, kind: object, shape: object, *, column_major: bool) -> None:
        if not isinstance(kind, _Type) or not isinstance(shape, tuple):
            raise _Refused("an array of an unknown form")
        if len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
            raise _Refused(f"an array of shape {str(shape)[:60]}")
        count = math.prod(shape)
        if kind.of_objects:
            if not isinstance(data, list) or len(data) != count:
                raise _Refused("an array of objects that are not as many as its shape says")
            for size in reversed(shape[1:]):
                data = [data[i : i + size] for i in range(0, len(data), size)] if size else []
            self.value = data
        elif not isinstance(data, (bytes, bytearray)) or len(data) != count * kind.dtype.itemsize:
            raise _Refused(f"an array of shape {shape} whose bytes are not as many")
        else:
            _Made.spend(len(data) if isinstance(data, bytearray) else 0)
            flat: NDArray[Any] = np.frombuffer(bytes(data), kind.dtype) if count else np.empty(0, kind.dtype)
            self.value = flat.reshape(shape, order="F" if column_major else "C")
            self.value.flags.writeable = False


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _ARRAY_CLASS:
        raise _Refused("an array of an unknown class")
    return _Array()


def _from_buffer(data: object, kind: object, shape: object, order: object, *_: object) -> _Array:
    array = _Array()
    array.fill(data, kind, shape, column_major=order == "F")
    return array


def _scalar(kind: object, data: object) -> object:
    if not isinstance(kind, _Type) or not isinstance(data, bytes) or kind.of_objects:
        raise _Refused("a number of an unknown form")
    if len(data) != kind.dtype.itemsize:
        raise _Refused("a number whose bytes are not as many as its type has")
    return np.frombuffer(data, kind.dtype)[0].item() if data else kind.dtype.type().item()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Reads bytes as they are written below protocol 3."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("bytes of an unknown form")
    _Made.spend(len(text))
    return text.encode("latin1")


def _no_bytes(*arguments: object) -> bytes:
    """Reads empty bytes as they are written below protocol 3."""
    if arguments:
        raise _Refused("bytes of an unknown form")
    return b""


def _no_array(*_: object) -> NoReturn:
    raise _Refused("an array without its numbers")


_ARRAY_CLASS: Final = _Function(_no_array)
"""numpy.ndarray, where it is named as the class of an array."""

_KNOWN: Final[dict[tuple[str, str], _Function]] = {
    ("numpy", "ndarray"): _ARRAY_CLASS,
    ("numpy", "dtype"): _Function(_Type),
    ("_codecs", "encode"): _Function(_encode),
    ("__builtin__", "bytes"): _Function(_no_bytes),
    ("builtins", "bytes"): _Function(_no_bytes),
} | {
    (f"numpy.{core}.{module}", name): _Function(call)
    for core in ("core", "_core")  # before and since numpy 2
    for module, name, call in (
        ("multiarray", "_reconstruct", _reconstruct),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_buffer),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _Refused(shown(f"{module}.{name}", 120)) from None


def _settled(value: Any, depth: int, done: dict[int, Any]) -> Any:
    """The value with arrays in the place of their stand-ins; whatever is no plain data is refused.

    done: what was settled already, by identity: a list that is named in a thousand places is gone through once.
    """
    if value is None or type(value) in {str, bytes, bool, int, float}:
        return value
    if id(value) in done:
        return done[id(value)]
    if depth > 50:
        raise _Refused("lists within lists, deeper than 50")
    settled: Any
    if isinstance(value, _Array) and value.value is not None:
        settled = value.value if isinstance(value.value, np.ndarray) else _settled(value.value, depth + 1, done)
    elif type(value) is dict and all(key is None or type(key) in {str, bytes, bool, int, float} for key in value):
        settled = {key: _settled(part, depth + 1, done) for key, part in value.items()}
    elif type(value) is list:
        settled = [_settled(part, depth + 1, done) for part in value]
    elif type(value) is tuple:
        settled = tuple(_settled(part, depth + 1, done) for part in value)
    elif value is _ARRAY_CLASS:
        raise _Refused("the class numpy.ndarray")
    else:
        raise _Refused(_NAMES.get(type(value), f"a {type(value).__name__}"))
    done[id(value)] = settled
    return settled


_NAMES: Final[dict[type, str]] = {
    _Array: "an array without its numbers",
    _Function: "a function",
    _Type: "a type",
    dict: "a dict whose keys are neither str nor numbers",
}
