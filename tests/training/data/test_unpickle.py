"""Pickles: data comes back whole, and anything else is refused by its name with nothing executed."""

from __future__ import annotations

import builtins
import collections
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data import unpickle
from training.errors import PickleRefused

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Calls:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def written(folder: Path, value: Any, protocol: int = 4) -> Path:
    path = folder / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PickleRefused) as raised:
        unpickle.load(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_comes_back_as_it_was_written(protocol: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {
        "float32": draw.standard_normal((3, 4, 2)).astype(np.float32),
        "column-major": np.asfortranarray(draw.standard_normal((3, 5))),
        "big-endian": np.arange(5, dtype=">i4"),
        "strided": np.arange(12.0).reshape(3, 4)[:, ::2],
        "text": np.array(["a", "héé", ""]),
        "bytes": np.array([b"ab", b"c"]),
        "bool": np.array([True, False]),
        "none": np.empty((0, 7), np.float32),
        "one": np.array(3, np.int64),
    }
    plain = {
        "train": {"id": ["a$_$1", "b"], "n": [1, -2.5, None, True, 2**70], "empty": b"", "raw": bytes(range(256))},
        "nested": ([], {}, (), ("x", [{}])),
    }
    read = unpickle.load(written(tmp_path, {"arrays": arrays, "plain": plain}, protocol))
    assert read["plain"] == plain
    for name, array in arrays.items():
        assert isinstance(read["arrays"][name], np.ndarray)
        assert read["arrays"][name].dtype == array.dtype
        np.testing.assert_array_equal(read["arrays"][name], array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_and_arrays_of_str_objects_become_plain(protocol: int, tmp_path: Path) -> None:
    value = {"labels": [np.float32(0.5), np.int64(-3), np.str_("ab")], "text": np.array(["x", "yz"], object)}
    read = unpickle.load(written(tmp_path, value, protocol))
    assert read == {"labels": [0.5, -3, "ab"], "text": ["x", "yz"]}
    assert [type(label) for label in read["labels"]] == [float, int, str]


def test_modules_are_named_as_before_numpy_2(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    text = pickle.dumps({"x": np.arange(3.0)}, 2).replace(b"numpy._core.", b"numpy.core.")
    path.write_bytes(text)
    np.testing.assert_array_equal(unpickle.load(path)["x"], np.arange(3.0))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "system"),
        (builtins.eval, "eval"),
        (builtins.exec, "exec"),
        (builtins.getattr, "getattr"),
        (builtins.__import__, "__import__"),
        (np.load, "numpy.load"),
        (np.frombuffer, "frombuffer"),
        (collections.OrderedDict, "OrderedDict"),
        (complex, "complex"),
        (Path, "Path"),
    ],
)
@pytest.mark.parametrize("place", ["alone", "in a list", "in an array", "as state", "as a key"])
def test_functions_and_classes_are_refused_by_name(
    function: Callable[..., Any], name: str, place: str, protocol: int, tmp_path: Path
) -> None:
    proof = tmp_path / "executed"
    argument = f"touch {proof}" if function is os.system else f"__import__('pathlib').Path({str(proof)!r}).touch()"
    hostile: Any = Calls(function, argument)
    if place == "in a list":
        hostile = {"train": {"id": ["a", (1, hostile)]}}
    elif place == "in an array":
        hostile = {"audio": np.array(["a", hostile], object)}
    elif place == "as state":
        hostile = Calls(np.dtype, "f4", state=hostile)
    elif place == "as a key":
        hostile = {hostile: 1}
    message = refusal(written(tmp_path, hostile, protocol))
    assert name in message
    assert "nothing was executed" in message
    assert not proof.exists()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.array([{1, 2}, "b"], object), "set"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "type 'V12'"),
        (np.array(["2020-01-01"], "datetime64[D]"), "type 'M8'"),
        (np.zeros(2, np.complex64), "type 'c8'"),
        (np.ma.masked_array([1.0], [True]), "numpy.ma"),
        (np.dtype("f4"), "holds a type;"),
        ({1, 2}, "set"),
        (os.path.join, "posixpath.join"),
        (np.ndarray, "the class numpy.ndarray"),
        (Calls(np.dtype, "f4", True, False, state=(3, "<", None, ("a",), {"a": ()}, 4, 1, 0)), "structured"),
    ],
)
def test_other_values_are_refused(value: Any, named: str, tmp_path: Path) -> None:
    if isinstance(value, np.ndarray) and value.dtype.names:
        named = "type 'V"
    assert named in refusal(written(tmp_path, {"x": value}))


@pytest.mark.parametrize(
    "shape_and_data",
    [((3,), b"\0" * 8), ((2**40, 2**40), b""), ((-1,), b"\0" * 4), (("a",), b""), ((1,), None)],
)
def test_arrays_that_lie_about_their_size_are_refused(shape_and_data: tuple[Any, Any], tmp_path: Path) -> None:
    shape, data = shape_and_data
    reconstruct = np.empty(0).__reduce__()[0]
    lie = Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, shape, np.dtype("f4"), False, data))
    assert "an array of shape" in refusal(written(tmp_path, lie))


def test_stand_ins_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    # numpy.dtype, then BUILD with (None, {"_call": 1}), which would set attributes.
    path.write_bytes(b"\x80\x02cnumpy\ndtype\nN}X\x05\x00\x00\x00_callK\x01s\x86b.")
    assert "changes to a function or class" in refusal(path)
    np.testing.assert_array_equal(unpickle.load(written(tmp_path, np.arange(2))), [0, 1])


def test_damaged_files_are_called_so(tmp_path: Path) -> None:
    whole = pickle.dumps({"x": np.arange(100.0), "y": ["a"] * 20})
    path = tmp_path / "x.pkl"
    for cut in (0, 1, 20, 200, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "damaged" in refusal(path)
    path.write_bytes(b"\x80\x04\x8e" + b"\xff" * 8 + b".")
    assert "damaged" in refusal(path)
    path.write_bytes(b"not a pickle")
    assert refusal(path)
    path.unlink()
    assert "cannot be read" in refusal(path)


def test_names_are_shown_in_one_line_that_a_terminal_does_not_obey(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for name in ("a\nb", "a\x1b[2Jb", "a" * 5000):
        path.write_bytes(b"\x80\x04" + pickle.dumps(name, 4)[2:-1] + b"\x8c\x01x\x93.")
        message = refusal(path)
        assert message.isprintable()
        assert len(message) < 400 + len(str(path))
    path.write_bytes(b"\x80\x04K\x01Q.")  # a reference to something outside the pickle
    assert "damaged" in refusal(path)


def test_lists_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "deeper than 50" in refusal(written(tmp_path, endless))


def test_what_is_shared_is_gone_through_once(tmp_path: Path) -> None:
    shared: list[Any] = ["x"]
    for _ in range(40):
        shared = [shared, shared]
    read = unpickle.load(written(tmp_path, shared))
    assert read[0] is read[1]


def test_a_memo_with_holes_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    for hole in (b"r" + (2**27).to_bytes(4, "little"), b"p134217728\n"):
        path.write_bytes(b"\x80\x02]" + hole + b".")
        assert "it holds a memo with holes" in refusal(path)


def test_copies_without_end_are_refused(tmp_path: Path) -> None:
    """A text of 1 MB that is named once, and made into bytes a thousand times."""
    path = tmp_path / "x.pkl"
    text = b"X" + (2**20).to_bytes(4, "little") + b"x" * 2**20 + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01"
    copies = b"h\x01h\x00\x85R" * 1000
    path.write_bytes(b"\x80\x02(" + text + encode + copies + b"l.")
    assert "it holds many copies of the same" in refusal(path)
