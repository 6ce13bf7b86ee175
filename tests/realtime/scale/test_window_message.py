"""What travels is what was there, within bounds; what no edge sends is told apart."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from dhmd import protobuf
from dhmd.contract import Language, Rows, Word
from dhmd.features.landmarks import MOST_PEOPLE
from dhmd.modality import Modality
from realtime.messages.estimate import Dropped
from realtime.perception.attention import Attention
from realtime.recognition.steadiness import Steadiness
from realtime.scale.people_log import PersonWindow
from realtime.scale.window_log import NOTHING
from realtime.scale.window_message import (
    _CLASSES,
    _MESSAGES,
    LARGEST,
    LONGEST_WORD,
    MOST_ROWS,
    MOST_WORDS,
    SCHEMA,
    PersonPart,
    WindowInvalid,
    WindowMessage,
)

LATE = Attention({Modality.AUDIO: 3.5}, frozenset({Modality.VISION}), far=True, covered=True)


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
        {"words": (Word("früh", 1.0, 1.25, 0.5, "de"), Word("up", 2.0, 2.5, 1.0, overlapped=True))},
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


def test_people_come_as_they_went() -> None:
    sent = a_message()
    speaks = PersonPart(2, sent.rows, sent.words, anew=True, far=True, covered=True)
    listens = PersonPart(5, {Modality.VISION: sent.rows[Modality.VISION]}, None, silent="another")
    came = WindowMessage.decode(a_message(people=(speaks, listens)).encode()).people
    for went, there in zip((speaks, listens), came, strict=True):
        assert replace(there, rows={}) == replace(went, rows={})
        assert there.rows.keys() == went.rows.keys()
        for m, rows in went.rows.items():
            np.testing.assert_array_equal(there.rows[m].times_s, rows.times_s)
            np.testing.assert_array_equal(there.rows[m].values, rows.values)


def test_who_knows_of_no_people_reads_the_stream_alone() -> None:
    """As a program of an older version: and of one person it reads every byte."""
    before = {name: dict(fields) for name, fields in _MESSAGES.items() if name != "Person"}
    del before["Window"]["people"]
    older = protobuf.message_classes("dhmd/window_of_before.proto", "dhmd.window_of_before", before)["Window"]
    alone = a_message().encode()
    assert older.FromString(alone).SerializeToString() == alone
    assert not UnknownFieldSet(older.FromString(alone))
    several = older.FromString(a_message(people=(PersonPart(1, a_message().rows, None),)).encode())
    several.DiscardUnknownFields()
    assert several.SerializeToString() == alone


def test_sixteen_people_fit_in_a_message(made_up: Callable[..., Any]) -> None:
    edge = made_up()
    hops = [edge.hop() for _ in range(6)]
    whole = edge.log.since(NOTHING, edge.end_s)[0]
    nothing = {m: Rows.empty(spec.width) for m, spec in edge.features.items()}
    silent = {**nothing, Modality.VISION: whole[Modality.VISION]}
    people = [PersonWindow(number, 0.0, whole if number == 1 else silent, ()) for number in range(1, MOST_PEOPLE + 1)]
    _, payload = edge.stream.window(replace(hops[-1], people=people), edge.now_s)
    assert len(WindowMessage.decode(payload).people) == MOST_PEOPLE


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
        {"rows": rows(np.linspace(0, 1, 500), width=600)},
        {"words": (Word("a", 0.0, 1.0),) * (MOST_WORDS + 1)},
        {"words": (Word("a" * (LONGEST_WORD + 1), 0.0, 1.0),)},
        {"words": (Word("a", float("nan"), 1.0),)},
        {"words": (Word("a", 0.0, float("nan")),)},
        {"words": (Word("a", 0.0, 1e9),)},
        {"people": (PersonPart(0, {}, None),)},
        {"people": (PersonPart(3, {}, None), PersonPart(3, {}, None))},
        {"people": tuple(PersonPart(number, {}, None) for number in range(1, MOST_PEOPLE + 2))},
        {"people": (PersonPart(1, rows([1.0, 1e9]), None),)},
        {"people": (PersonPart(1, {}, (Word("a", 0.0, 1e9),)),)},
        {"people": (PersonPart(1, {}, None, silent="shy"),)},  # type: ignore[arg-type]
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
    with pytest.raises(WindowInvalid, match="larger than 512 kB"):
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
