"""One engine for many streams: what waits together is computed together, and everybody gets their own answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dhmd.checkpoint import load
from dhmd.modality import Modality
from realtime.perception.window import WindowCut
from realtime.recognition.engine import Engine
from realtime.recognition.shared_engine import SharedEngine


def cut(end_s: float, present: frozenset[Modality] = frozenset(Modality)) -> WindowCut:
    nothing = {m: torch.zeros(1, 1, 1) for m in Modality}
    return WindowCut(end_s - 5.0, end_s, nothing, nothing, dict.fromkeys(Modality), present)


class Gated:
    """Stands in for an engine that is held up: it answers with the end of each window once `go` is set."""

    def __init__(self) -> None:
        self.checkpoint = SimpleNamespace()
        self.go, self.busy = threading.Event(), threading.Event()
        self.fails = False

    def infer(self, one: WindowCut) -> Any:
        return self.infer_many([one])[0]

    def infer_many(self, cuts: Sequence[WindowCut]) -> list[Any]:
        self.busy.set()
        self.go.wait()
        if self.fails:
            raise RuntimeError("out of memory")
        return [one.end_s for one in cuts]


def asked(shared: SharedEngine, ends_s: Sequence[float]) -> tuple[list[threading.Thread], dict[float, Any]]:
    answers: dict[float, Any] = {}

    def ask(end_s: float) -> None:
        try:
            answers[end_s] = shared.infer(cut(end_s))
        except RuntimeError as error:
            answers[end_s] = error

    threads = [threading.Thread(target=ask, args=(end_s,)) for end_s in ends_s]
    for thread in threads:
        thread.start()
    return threads, answers


def test_windows_that_come_meanwhile_are_the_next_batch() -> None:
    engine = Gated()
    with SharedEngine(cast("Engine", engine), most=4) as shared:
        first, answer = asked(shared, [0.0])
        engine.busy.wait()
        others, answers = asked(shared, [1.0, 2.0, 3.0, 4.0, 5.0])
        while len(shared._waiting) < 5:
            pass
        engine.go.set()
        for thread in (*first, *others):
            thread.join()
    assert answer | answers == {end_s: end_s for end_s in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)}
    assert shared.batches == {1: 2, 4: 1}


def test_a_failure_belongs_to_those_who_asked_and_the_next_is_answered() -> None:
    engine = Gated()
    engine.fails = True
    engine.go.set()
    with SharedEngine(cast("Engine", engine)) as shared:
        with pytest.raises(RuntimeError, match="out of memory"):
            shared.infer(cut(1.0))
        engine.fails = False
        assert cast("float", shared.infer(cut(2.0))) == 2.0
        assert shared.infer(cut(3.0, frozenset())) is None
    with pytest.raises(RuntimeError, match="closed"):
        shared.infer(cut(4.0))


def test_together_they_are_told_what_each_is_told_alone() -> None:
    checkpoint = load("base")
    engine = Engine(checkpoint, torch.device("cpu"))
    random = torch.Generator().manual_seed(3)
    cuts = []
    for present in (frozenset(Modality), frozenset({Modality.VISION}), frozenset({Modality.AUDIO, Modality.TEXT})):
        specs = checkpoint.features
        inputs = {m: torch.randn(1, specs[m].steps, specs[m].width, generator=random) for m in Modality}
        masks = {m: torch.full((1, specs[m].steps), m in present) for m in Modality}
        cuts.append(WindowCut(0.0, 5.0, inputs, masks, dict.fromkeys(Modality), present))
    with SharedEngine(engine) as shared:
        answers: list[Any] = [None] * 30

        def ask(i: int) -> None:
            answers[i] = shared.infer(cuts[i % 3])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, answer in enumerate(answers):
        alone = engine.infer(cuts[i % 3])
        assert alone is not None
        assert answer.emotions == pytest.approx(alone.emotions, abs=1e-5)
        assert answer.sentiment.value == pytest.approx(alone.sentiment.value, abs=1e-5)
    assert sum(size * count for size, count in shared.batches.items()) == 30


def test_windows_that_are_asked_for_together_are_one_batch() -> None:
    engine = Gated()
    engine.go.set()
    with SharedEngine(cast("Engine", engine)) as shared:
        nobody = cut(2.0, frozenset())
        assert cast("list[Any]", shared.infer_many([cut(1.0), nobody, cut(3.0)])) == [1.0, None, 3.0]
        assert shared.infer_many([nobody]) == [None]
    assert shared.batches == {2: 1}
