"""What travels is what was there, within bounds; what no edge sends is told apart."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from dhmd.contract import Language, Rows, Word
from dhmd.modality import Modality
from realtime.messages.estimate import Dropped
from realtime.perception.attention import Attention
from realtime.recognition.steadiness import Steadiness
from realtime.scale.window_message import (
    _CLASSES,
    LARGEST,
    LONGEST_WORD,
    MOST_ROWS,
    MOST_WORDS,
    SCHEMA,
    WindowInvalid,
    WindowMessage,
)

LATE = Attention({Modality.AUDIO: 3.5}, frozenset({Modality.VISION}), far=True)


def a_message(**changed: Any) -> WindowMessage:
    values = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
    rows = {m: Rows(np.array([1.25, 2.5, 3.75]), values + i) for i, m in enumerate(Modality)}
    fields: dict[str, Any] = {
        "incarnation": "abc",
        "seq": 7,
        "previous": 6,
        "features": None,
        "epoch_unix": 1_700_000_000.25,
        "end_s": 4.0,
        "sent_s": 4.01,
        "transit_s": 0.002,
        "timed": True,
        "rows": rows,
        "words": (Word("früh", 1.0, 1.25, 0.5), Word("up", 2.0, 2.5, 1.0)),
        "faces": 2,
        "dropped": Dropped(video=1, audio=2),
    }
    return WindowMessage(**{**fields, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"previous": None},
        {"words": ()},
        {"timed": False, "epoch_unix": 0.0},
        {"attention": LATE},
        {"attention": Attention(unread=True, language=Language("de", 0.5))},
        {"words": (Word("früh", 1.0, 1.25, 0.5, "de"), Word("up", 2.0, 2.5, 1.0))},
        {"steadiness": Steadiness(1.5, 0.0)},
    ],
)
def test_a_message_comes_as_it_went(changed: dict[str, Any]) -> None:
    sent = a_message(**changed)
    came = WindowMessage.decode(sent.encode())
    for name in ("incarnation", "seq", "previous", "features", "epoch_unix", "end_s", "sent_s", "transit_s", "timed"):
        assert getattr(came, name) == getattr(sent, name)
    assert (came.words, came.faces, came.dropped) == (sent.words, sent.faces, sent.dropped)
    assert came.attention == sent.attention
    assert came.steadiness == sent.steadiness
    for m in Modality:
        np.testing.assert_array_equal(came.rows[m].times_s, sent.rows[m].times_s)
        np.testing.assert_array_equal(came.rows[m].values, sent.rows[m].values)


def test_other_programs_are_told_of_the_messages_as_they_are() -> None:
    told = {
        name: re.findall(r"(\w+) (\w+) (\w+) = (\d+)( \[packed = true\])?;", fields)
        for name, fields in re.findall(r"message (\w+) {\n(.*?)}", SCHEMA, re.DOTALL)
    }
    file = FileDescriptorProto()
    _CLASSES["Window"].DESCRIPTOR.file.CopyToProto(file)
    assert told == {
        message.name: [
            (
                "repeated" if field.label == field.LABEL_REPEATED else "optional",
                field.type_name.rpartition(".")[2] or field.Type.Name(field.type).removeprefix("TYPE_").lower(),
                field.name,
                str(field.number),
                " [packed = true]" if field.options.packed else "",
            )
            for field in message.field
        ]
        for message in file.message_type
    }


def test_the_words_that_have_not_changed_do_not_travel() -> None:
    came = WindowMessage.decode(a_message(words=None).encode())
    assert came.words is None
    assert Modality.TEXT not in came.rows


def rows(times_s: Any, width: int = 4) -> dict[Modality, Rows]:
    times_s = np.asarray(times_s, np.float64)
    return {Modality.VISION: Rows(times_s, np.zeros((len(times_s), width), np.float32))}


@pytest.mark.parametrize(
    "changed",
    [
        {"incarnation": ""},
        {"incarnation": "s" * 65},
        {"end_s": float("nan")},
        {"end_s": 1e300},
        {"epoch_unix": -1.0},
        {"epoch_unix": float("inf")},
        {"transit_s": float("nan")},
        {"sent_s": float("inf")},
        {"steadiness": Steadiness(smoothing_s=31.0)},
        {"steadiness": Steadiness(margin=float("nan"))},
        {"rows": rows([1.0, float("nan")])},
        {"rows": rows([1.0, 1e9])},
        {"rows": rows(np.linspace(0, 1, MOST_ROWS + 1))},
        {"rows": rows(np.linspace(0, 1, 500), width=500)},
        {"words": (Word("a", 0.0, 1.0),) * (MOST_WORDS + 1)},
        {"words": (Word("a" * (LONGEST_WORD + 1), 0.0, 1.0),)},
        {"words": (Word("a", float("nan"), 1.0),)},
        {"words": (Word("a", 0.0, float("nan")),)},
        {"words": (Word("a", 0.0, 1e9),)},
    ],
)
def test_what_no_edge_sends_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(WindowInvalid):
        WindowMessage.decode(a_message(**changed).encode())


def test_words_that_are_no_text_are_refused() -> None:
    payload = a_message(words=(Word("hello", 0.0, 1.0),)).encode()
    with pytest.raises(WindowInvalid, match="UTF-8"):
        WindowMessage.decode(payload.replace(b"hello", b"hel\xff\xfe"))


def test_nothing_large_is_parsed() -> None:
    with pytest.raises(WindowInvalid, match="larger than 256 kB"):
        WindowMessage.decode(b"\0" * (LARGEST + 1))


@given(st.binary(max_size=400))
def test_noise_is_refused_or_read(noise: bytes) -> None:
    with contextlib.suppress(WindowInvalid):
        WindowMessage.decode(noise)


@given(st.data())
def test_a_message_with_wrong_bytes_is_refused_or_read(data: Any) -> None:
    payload = bytearray(a_message().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(1, len(payload)))
    with contextlib.suppress(WindowInvalid):
        WindowMessage.decode(bytes(payload[:length]))


def test_a_talking_person_takes_less_than_30_kb_a_second(made_up: Callable[..., Any]) -> None:
    edge = made_up()
    sizes = []
    for _ in range(10):
        edge.window()
        edge.answered()
        sizes.append(edge.stream.statistics.bytes)
    assert np.diff(sizes)[4:].max() < 30_000
    assert sizes[0] < 30_000
