"""One engine for many streams: windows that wait while it is busy are its next batch."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, Self

import torch

from realtime.perception.window import WindowCut
from realtime.recognition.engine import Engine, Inference

MOST: Final = 64
"""Windows in a batch: beyond it a batch costs as much a window as it does here, and all of them wait for the last."""


class SharedEngine:
    """An engine with a thread of its own, which any number of threads may ask.

    A window that comes alone is answered at once. Those that come while another is computed are computed together
    next: the busier the engine, the larger its batches, and no window waits for a batch to fill. A server of edges
    holds a batch open (see DEADLINE_S in `scale.server`); here it would save little, since the few streams of one
    process have each at most one window that waits, and each of their threads would be held up for that time.
    """

    def __init__(self, engine: Engine, most: int = MOST) -> None:
        self.checkpoint = engine.checkpoint
        self._engine = engine
        self._most = most
        self._asked = threading.Condition()
        self._waiting: deque[tuple[WindowCut, Future[Inference | None]]] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="shared engine", daemon=True)
        self.batches: Counter[int] = Counter()
        """Number of batches by their size."""

    @property
    def device(self) -> torch.device:
        return self._engine.device

    def infer(self, cut: WindowCut) -> Inference | None:
        """Infer as Engine.infer does, in turn. Raises what the engine raised, and RuntimeError once closed."""
        return self.infer_many([cut])[0]

    def infer_many(self, cuts: Sequence[WindowCut]) -> list[Inference | None]:
        """Infer several as `infer` does, in one batch unless there are too many."""
        asked: list[Future[Inference | None] | None] = [Future() if cut.present else None for cut in cuts]
        with self._asked:
            if self._closing and any(asked):
                raise RuntimeError("the shared engine is closed")
            self._waiting += [(cut, answer) for cut, answer in zip(cuts, asked, strict=True) if answer is not None]
            self._asked.notify()
        return [None if answer is None else answer.result() for answer in asked]

    def _work(self) -> None:
        while batch := self._next():
            cuts = [cut for cut, _ in batch]
            try:
                inferences = [self._engine.infer(cuts[0])] if len(cuts) == 1 else self._engine.infer_many(cuts)
            except Exception as error:  # noqa: BLE001 - belongs to those who asked
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            self.batches[len(batch)] += 1
            for (_, answer), inference in zip(batch, inferences, strict=True):
                answer.set_result(inference)

    def _next(self) -> list[tuple[WindowCut, Future[Inference | None]]]:
        """Return what waits as soon as anything does; nothing once closed and empty."""
        with self._asked:
            self._asked.wait_for(lambda: bool(self._waiting) or self._closing)
            return [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._asked:
            self._closing = True
            self._asked.notify()
        self._thread.join()
