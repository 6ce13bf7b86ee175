"""What each modality says alone and how far it moves the estimate are measured on the window itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dhmd.checkpoint import load
from dhmd.contract import Rows
from dhmd.influence import influence
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality
from realtime.perception.window import SlidingWindow, WindowCut
from realtime.recognition.attribution import Attribution, parts_of
from realtime.recognition.engine import Engine, Inference, Sentiment, Share

FACE, VOICE, WORDS = Modality.VISION, Modality.AUDIO, Modality.TEXT
EVERY = frozenset(Modality)
CUT = SlidingWindow(load("base").features, torch.device("cpu")).cut(1.0)
SAYS = {FACE: "happy", VOICE: "angry", WORDS: "sad"}


def sure(name: str, p: float) -> tuple[float, ...]:
    return tuple(p if name == one else (1 - p) / 6 for one in EMOTIONS)


class Voting:
    """Stand-in for an engine: the emotions are the mean of what is present; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[frozenset[Modality]] = []

    def infer(self, cut: WindowCut) -> Inference | None:
        self.asked.append(cut.present)
        said = [sure(SAYS[m], 0.9) for m in cut.present]
        emotions = tuple(sum(column) / len(said) for column in zip(*said, strict=True))
        none: dict[Modality, float] = {}
        return Inference(Sentiment(0.0, 0.0, 0.0), emotions, none, (0.0,) * 6, (0.0,) * 6, none, 1.0)


def told(engine: Voting, attribution: Attribution, present: frozenset[Modality]) -> dict[Modality, Share]:
    cut: Any = WindowCut(CUT.start_s, CUT.end_s, CUT.inputs, CUT.masks, CUT.newest_s, present)
    inference = engine.infer(cut) if present else None
    attribution.measure(engine, cut, inference)
    inference = attribution.known(cut, inference)
    return {} if inference is None else dict(inference.shares)


@pytest.mark.parametrize("present", [EVERY, frozenset({FACE, VOICE}), frozenset({VOICE, WORDS})])
def test_each_share_is_measured_once_in_as_many_calls_as_there_are_parts(present: frozenset[Modality]) -> None:
    engine = Voting()
    attribution = Attribution()
    for _ in parts_of(present):
        shares = told(engine, attribution, present)
    asked = [part for part in engine.asked if part != present]
    assert sorted(map(sorted, asked)) == sorted(map(sorted, parts_of(present)))
    for m, share in shares.items():
        assert share.emotions == pytest.approx(sure(SAYS[m], 0.9))
        others = [sure(SAYS[other], 0.9) for other in present - {m}]
        without = [sum(column) / len(others) for column in zip(*others, strict=True)]
        whole = [sum(column) / len(present) for column in zip(*others, sure(SAYS[m], 0.9), strict=True)]
        assert share.influence == pytest.approx(influence(whole, without))


def test_who_is_alone_makes_all_of_it() -> None:
    engine = Voting()
    shares = told(engine, Attribution(), frozenset({VOICE}))
    assert shares == {VOICE: Share(sure("angry", 0.9), 1.0)}
    assert engine.asked == [{VOICE}]


def test_a_newcomer_is_measured_first_and_who_has_left_is_let_go_of() -> None:
    engine = Voting()
    attribution = Attribution()
    for _ in range(4):
        told(engine, attribution, frozenset({FACE, VOICE}))
    shares = told(engine, attribution, EVERY)
    assert engine.asked[-1] in ({WORDS}, {FACE, VOICE})
    assert shares[FACE].emotions
    assert WORDS not in told(engine, attribution, frozenset({FACE, VOICE}))
    assert not told(engine, attribution, frozenset())
    assert told(engine, attribution, EVERY)[FACE] in (Share(None, None), Share(sure("happy", 0.9), None))


def test_what_is_measured_on_a_window_is_known_from_the_next_one_on() -> None:
    engine, present = Voting(), frozenset({FACE, VOICE})
    attribution = Attribution()
    cut: Any = WindowCut(CUT.start_s, CUT.end_s, CUT.inputs, CUT.masks, CUT.newest_s, present)
    inference = engine.infer(cut)
    first = attribution.known(cut, inference)
    assert first is not None
    assert set(first.shares.values()) == {Share(None, None)}
    assert engine.asked == [present], "nothing but the window itself is inferred before it is told"
    attribution.measure(engine, cut, inference)
    second = attribution.known(cut, inference)
    assert second is not None
    assert set(second.shares.values()) != {Share(None, None)}


def test_the_model_itself_is_asked() -> None:
    engine = Engine(load("base"), torch.device("cpu"))
    window = SlidingWindow(engine.checkpoint.features, torch.device("cpu"))
    for m, spec in engine.checkpoint.features.items():
        rows = Rows(torch.linspace(0.5, 0.9, 3).double().numpy(), torch.randn(3, spec.width).numpy())
        window.append(m, rows)
    attribution, cut = Attribution(), window.cut(1.0)
    for _ in parts_of(cut.present):
        attribution.measure(engine, cut, engine.infer(cut))
    inference = attribution.known(cut, engine.infer(cut))
    assert inference is not None
    alone = engine.infer(WindowCut(0.0, 1.0, cut.inputs, cut.masks, cut.newest_s, frozenset({VOICE})))
    assert alone is not None
    assert inference.shares[VOICE].emotions == alone.emotions
    assert all(share.influence is not None for share in inference.shares.values())
