"""Streams that are made up row by row, and one that was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dhmd.checkpoint import Checkpoint, encoder_path, load
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from realtime.bench.simulated_edges import RecordedSteps
from realtime.cli import main
from realtime.messages.estimate import Dropped
from realtime.perception.transcript import TranscriptUpdate
from realtime.recognition.engine import Engine
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness
from realtime.scale.edge_stream import DueWindow, EdgeStream
from realtime.scale.served import Estimator
from realtime.scale.window_log import WindowLog


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return load("base")


@pytest.fixture(scope="session")
def features(checkpoint: Checkpoint) -> Mapping[Modality, FeatureSpec]:
    return checkpoint.features


@pytest.fixture(scope="session")
def estimator(checkpoint: Checkpoint) -> Iterator[Estimator]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Estimator(checkpoint, Engine(checkpoint, torch.device("cpu")))
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def recording(checkpoint: Checkpoint, talking_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordedSteps:
    """Of the talking clip, a step a second."""
    path = tmp_path_factory.mktemp("recording") / "talk.mcap"
    flags = ["--pace", "max", "--hop", "1", "--broker", "none", "--record", str(path)]
    with pytest.raises(SystemExit) as end:
        main(["run", "--source", str(talking_clip), *flags])
    assert end.value.code == 0
    text = TextExtractor(adapter=encoder_path(checkpoint.folder, Modality.TEXT))
    return RecordedSteps.read(path, text)


class MadeUp:
    """A stream of random rows, a second a hop, with a word in each."""

    def __init__(
        self, features: Mapping[Modality, FeatureSpec], name: str = "hall", steadiness: Steadiness = BY_DEFAULT
    ) -> None:
        self.features = features
        self.end_s = 0.0
        self.now_s = 1000.0
        self._random = np.random.default_rng(7)
        self._text = Rows.empty(features[Modality.TEXT].width)
        self.log = WindowLog(features, lambda: self._text)
        self.stream = EdgeStream(name, self.log, 1_700_000_000.0, lambda: self.end_s + 0.05, steadiness)
        self.entered: list[tuple[Modality, Rows]] = []
        self.words: list[Word] = []

    def rows(self, modality: Modality, times_s: Any) -> Rows:
        values = self._random.normal(size=(len(times_s), self.features[modality].width)).astype(np.float32)
        return Rows(np.asarray(times_s, np.float64), values).halved()

    def hop(self) -> DueWindow:
        begin_s, self.end_s = self.end_s, self.end_s + 1.0
        self.now_s += 1.0
        for modality, count in ((Modality.VISION, 15), (Modality.AUDIO, 12)):
            rows = self.rows(modality, begin_s + np.arange(1, count + 1) / count)
            self.entered.append((modality, rows))
            self.log.on_rows(modality, rows)
        self.words.append(Word(f"word{len(self.words)}", begin_s + 0.2, begin_s + 0.6, 0.5))
        self._text = self.rows(Modality.TEXT, [word.end_s for word in self.words if word.end_s > self.end_s - 5.4])
        self.entered.append((Modality.TEXT, self._text))
        self.log.on_words(TranscriptUpdate((self.words[-1],), (), 0.0))
        return DueWindow(self.end_s, 1, Dropped(video=2, audio=3))

    def window(self) -> tuple[str, bytes] | None:
        """The next message."""
        return self.stream.window(self.hop(), self.now_s)

    def answered(self, server: str = "a", **others: str) -> bool:
        """An estimate of the newest window has come."""
        told = {
            "server": server,
            "session": self.stream.incarnation,
            "window": str(self.stream.last_seq),
            "held_ms": "5",
        }
        return self.stream.on_answer({**told, **others}, self.now_s + 0.1)


@pytest.fixture
def made_up(features: Mapping[Modality, FeatureSpec]) -> Callable[..., MadeUp]:
    """made_up(name="hall", steadiness=BY_DEFAULT): a stream."""
    return lambda name="hall", steadiness=BY_DEFAULT: MadeUp(features, name, steadiness)
