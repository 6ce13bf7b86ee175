"""Words and voice of people, by whose turn it was."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dhmd.checkpoint import load
from dhmd.contract import Rows, Word
from dhmd.modality import Modality
from realtime.perception.attention import WHOLE
from realtime.perception.people import People, _Person, _said, _speaks, _turn_of
from realtime.perception.speaking import Turn
from realtime.perception.window import SlidingWindow
from realtime.perception.words import SpokenWords

TURNS = (Turn(0.0, 1.0, 1), Turn(1.0, 2.0, 2, overlapped=True), Turn(2.0, 3.0, 2), Turn(4.0, 5.0, None))


@pytest.mark.parametrize(
    ("start_s", "end_s", "person", "overlapped"),
    [(0.2, 0.6, 1, False), (0.8, 1.6, 2, True), (1.7, 2.9, 2, False), (4.2, 4.6, None, False), (8.0, 9.0, None, False)],
)
def test_a_word_is_of_whose_turn_it_was_for_most_of_it(
    start_s: float, end_s: float, person: int | None, overlapped: bool
) -> None:
    """Where several spoke at once, it is the loudest one's, and marked."""
    said = _said(Word("so", start_s, end_s), _turn_of(TURNS, start_s, end_s))
    assert (said.person, said.overlapped) == (person, overlapped)


def test_a_voice_of_several_at_once_is_nobodys() -> None:
    whose = [next((n for n in (1, 2) if _speaks(_turn_of(TURNS, t, t), n)), None) for t in (0.5, 1.5, 2.5, 4.5)]
    assert whose == [1, None, 2, None]


@pytest.mark.parametrize("private", [False, True])
def test_private_words_enter_the_window_of_who_said_them_and_are_told_to_nobody(private: bool) -> None:
    """Nor to who joins later, such as a recording that is begun by command."""
    specs, told = load("base").features, list[str]()
    spec = specs[Modality.TEXT]
    text: Any = SimpleNamespace(
        spec=spec,
        extract=lambda words: Rows(np.array([w.end_s for w in words]), np.ones((len(words), spec.width), "f4")),
    )
    observer: Any = SimpleNamespace(
        on_person_words=lambda _, words, __: told.extend(word.text for word in words), on_turns=lambda _: None
    )
    speakers: Any = SimpleNamespace(turns=lambda _: [TURNS[0]])
    device = torch.device("cpu")
    people = People(specs, device, text, speakers, threading.Lock(), lambda tell: tell(observer), private=private)
    people._persons[1] = _Person(SlidingWindow(specs, device), 0.0, 1.0, (0.0, 0.0, 1.0, 1.0))
    words = SpokenWords()
    words.update([Word("secret", 0.2, 0.6)], [], 5.0)
    (person,), _ = people.at(1.0, WHOLE, words)
    assert Modality.TEXT in person.cut.present
    people.join(observer, 1.0)
    assert told == ([] if private else ["secret", "secret"])
    assert [word.text for word in person.words] == ([] if private else ["secret"])
