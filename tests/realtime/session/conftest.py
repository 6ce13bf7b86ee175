"""Recorded sessions: a real one of a few seconds, and small ones made by hand."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from dhmd.contract import Word
from dhmd.labels import EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.session import Session, schema
from realtime.cli import main
from realtime.demo import CLIP
from realtime.perception.transcript import TranscriptUpdate
from realtime.session import messages
from realtime.session.writer import SessionWriter
from realtime.workers import WorkerState, WorkerStatus

EPOCH_UNIX = 1_700_000_000.25


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first six seconds of the demo clip as a session; the published estimates beside it, in published.jsonl."""
    folder = tmp_path_factory.mktemp("session")
    path = folder / "recorded.mcap"
    threads = torch.get_num_threads()
    with pytest.raises(SystemExit) as end, redirect_stdout(io.StringIO()):
        main([
            *("run", "--source", str(CLIP), "--pace", "max", "--broker", "none", "--duration", "6"),
            *("--stream", "hall", "--record", str(path), "--estimates", str(folder / "published.jsonl")),
        ])  # fmt: skip
    torch.set_num_threads(threads)
    assert end.value.code == 0
    return path


def estimate(seq: int, end_s: float, *, perceived: bool = True, **changes: Any) -> Any:
    """An Estimate message: a face that turns from happy to sad within six seconds."""
    message = schema.Estimate(
        seq=seq,
        start_s=end_s - 5,
        end_s=end_s,
        faces=1,
        capture_to_estimate_ms=60 + seq % 7,
        inference_ms=9.5,
        dropped_video=seq // 10,
        **changes,
    )
    for m in Modality:
        getattr(message.modalities, m.value).present = perceived and m is not Modality.AUDIO
    if perceived:
        sad = min(0.7, end_s / 10)
        for name in EMOTIONS:
            setattr(message.emotions, name, {"happy": 0.75 - sad, "sad": 0.05 + sad}.get(name, 0.04))
        message.top = "happy" if 0.75 - sad > 0.05 + sad else "sad"
        value = 2 - end_s / 2
        message.sentiment.value, message.sentiment.low, message.sentiment.high = value, value - 1, value + 1
        message.valence, message.arousal = value / 4, 0.25
        for m in (Modality.TEXT, Modality.VISION):
            state = getattr(message.modalities, m.value)
            state.newest_s, state.weight, state.sentiment = end_s - 0.125, 0.5, value
        for edge in EDGES:
            weight = 0.5 if Modality.AUDIO not in edge else 0.0
            setattr(message.homo, f"{edge.source}_to_{edge.target}", weight)
            setattr(message.hetero, f"{edge.source}_to_{edge.target}", weight)
    return message


@pytest.fixture(name="estimate")
def estimate_fixture() -> Callable[..., Any]:
    """estimate(seq, end_s, perceived=True, **changes): an Estimate message."""
    return estimate


HEAD = {
    "version": "1",
    "created": "2023-11-14T22:13:20+00:00",
    "epoch_unix": repr(EPOCH_UNIX),
    "stream": "hall",
    "hop_s": "0.1",
    "timed": "true",
    "model": "base",
    "checkpoint": "0123456789ab",
    "features": "[]",
    "settings": '{"source": "camera:0"}',
}


class Made:
    """A session made by hand, a chunk a second."""

    def __init__(self, path: Path, head: Mapping[str, str]) -> None:
        self.path = path
        self._file = path.open("wb")
        self.writer = SessionWriter(self._file, EPOCH_UNIX, head)
        self.chunk_ends: list[int] = []
        """Bytes of the file up to the end of each chunk."""

    def add(self, topic: str, t_s: float, message: Any) -> None:
        self.writer.add(topic, t_s, t_s, lambda _: message)

    def word(self, text: str, start_s: float, end_s: float) -> None:
        update = TranscriptUpdate((Word(text, start_s, end_s, 0.9),), (), 0.0)
        self.writer.add(schema.WORDS, end_s, end_s, lambda when: messages.words(update, 1, when))

    def status(self, t_s: float, worker: str, state: str, reason: str = "") -> None:
        status = WorkerStatus(worker, WorkerState(state), reason)
        self.writer.add(schema.STATUS, t_s, t_s, lambda when: messages.status(status, when))

    def mark(self, start_s: float, end_s: float, emotion: str | None, sentiment: float | None) -> None:
        self.writer.add(
            schema.MARK, start_s, start_s, lambda when: messages.mark(start_s, end_s, emotion, sentiment, when)
        )

    def end_chunk(self) -> None:
        self.writer.end_chunk()
        self.chunk_ends.append(self._file.tell())

    def finish(self) -> Path:
        self.writer.finish()
        self._file.close()
        return self.path


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(name="made.mcap", **head): a session to be filled; head: what it says of itself, where not as usual."""

    def start(name: str = "made.mcap", **head: str) -> Made:
        return Made(tmp_path / name, HEAD | head)

    return start


HOSTILE = "\x1b<script>alert('x')</script>&\"]]>"


@pytest.fixture
def hostile() -> str:
    """What a page must not take for markup."""
    return HOSTILE


@pytest.fixture
def made(make: Make) -> Made:
    """Six seconds with a pause, a mark, words of an enemy, a worker that fails and lost messages; finished."""
    session = make()
    session.status(0.05, "video", WorkerState.RUNNING)
    words = [("Good", 0.5, 0.8), ("morning.", 0.8, 1.2), (HOSTILE, 2.0, 2.4), ("it", 2.4, 2.5), ("ends", 4.0, 4.4)]
    for i in range(60):
        t_s = 0.1 * (i + 1)
        if words and words[0][2] <= t_s:
            session.word(*words.pop(0))
        # Half a second in which nobody is seen, and as much in which nothing is estimated.
        if not 30 <= i < 35:
            session.add(schema.ESTIMATE, t_s, estimate(i, t_s, perceived=not 20 <= i < 25))
        if i % 10 == 9:
            session.end_chunk()
    session.status(3.0, "video", WorkerState.RESTARTING, f"unplugged {HOSTILE}")
    session.mark(1.0, 2.5, "happy", 1.5)
    session.mark(3.0, 3.0, None, None)
    session.writer.add(schema.LOST, 5.0, 5.0, lambda when: messages.lost(schema.VIDEO, 12, when))
    session.end_chunk()
    session.finish()
    return session


@pytest.fixture
def made_session(made: Made) -> Session:
    return Session.open(made.path)
