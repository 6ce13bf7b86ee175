"""Runs that are killed while they record: `python killed.py FOLDER CHECKPOINT KILLS`; a line of JSON for each.

Perception, window, engine, recorder and their threads are the real ones; what is seen and heard is made up, at the
rates of a live run. Each run is a fork of this process, which has loaded everything but started no thread.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dhmd.checkpoint import load
from dhmd.contract import Rows, Word
from dhmd.features.face import FaceObservation
from dhmd.features.several import Overlaps
from dhmd.modality import Modality
from dhmd.session import Session, SessionInvalid, schema
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.clock import StreamClock
from realtime.messages.estimate import Dropped
from realtime.perception.perception import Perception
from realtime.perception.transcript import TranscriptUpdate
from realtime.pipeline.pipeline import Pipeline
from realtime.recognition.engine import Engine
from realtime.session import rewound as replay
from realtime.session.recorder import Recorder, describe, new_file

AT_ONCE = 8
HOP_S = 0.1
CPU = torch.device("cpu")
CHECKPOINT = load(sys.argv[2])
chance = np.random.default_rng(0)


def rows(modality: Modality, times_s: Sequence[float]) -> Rows:
    size = (len(times_s), CHECKPOINT.features[modality].width)
    return Rows(np.array(times_s, np.float64), chance.normal(size=size).astype(np.float32))


class Face:
    spec = CHECKPOINT.features[Modality.VISION]

    def due(self, _: float) -> bool:
        return True

    def push(self, _: Any, captured_s: float) -> FaceObservation:
        landmarks = chance.uniform(size=(478, 3)).astype(np.float32)
        return FaceObservation(captured_s, rows(Modality.VISION, [captured_s]), 1, (0.1, 0.1, 0.9, 0.9), landmarks)

    def close(self) -> None: ...


class Voice:
    overlaps = Overlaps()

    def due(self, _: int) -> bool:
        return True

    def push(self, _: Any, captured_s: float, *, overtaken: bool = False) -> Rows:
        return rows(Modality.AUDIO, [captured_s + 0.1])


class Transcript:
    """Words of which the newest are revised, and now and then nothing new."""

    def __init__(self) -> None:
        self._updates: list[TranscriptUpdate] = []
        self._pushed = 0

    def push(self, block: AudioBlock) -> None:
        self._pushed += 1
        said = [
            Word(f"w{self._pushed + i}", block.captured_s - 0.3 + i / 10, block.captured_s - 0.2 + i / 10)
            for i in (0, 1)
        ]
        if self._pushed % 3 == 0:
            self._updates.append(TranscriptUpdate((said[0],), (said[1],), 0.0))
        elif self._pushed % 3 == 1 and self._pushed > 3:
            self._updates.append(TranscriptUpdate((), (said[1],), 0.0))

    def due(self) -> bool:
        return bool(self._updates)

    def step(self, *_: object) -> TranscriptUpdate | None:
        return self._updates.pop(0) if self._updates else None


class Text:
    """Rows that follow from the words, as they must when they are read again."""

    spec = CHECKPOINT.features[Modality.TEXT]

    def __init__(self, *_: Any) -> None: ...

    def reads(self, _: Word) -> bool:
        return True

    def extract(self, words: Sequence[Word]) -> Rows:
        values = [np.full(self.spec.width, sum(map(ord, word.text)) % 89 / 89, np.float32) for word in words]
        return Rows(np.array([word.end_s for word in words]), np.stack(values))

    def extract_many(self, each: Sequence[Sequence[Word]]) -> list[Rows]:
        return [self.extract(words) if words else Rows.empty(self.spec.width) for words in each]


def every(period_s: float, clock: StreamClock, do: Callable[[float], object]) -> None:
    for number in itertools.count(1):
        time.sleep(max(0.0, number * period_s - clock.now()))
        do(clock.now())


def record(path: Path, told: int, engine: Engine, *, media: bool) -> None:
    """Until killed. told: where to write the time of each estimate, once it was handed over."""
    clock = StreamClock()
    head = describe(CHECKPOINT, stream="hall", hop_s=HOP_S, timed=True, settings={})
    extractors: Any = SimpleNamespace(
        face=Face(), voice=Voice(), transcript=Transcript(), text=Text(), lips=None, specs=CHECKPOINT.features
    )
    picture = chance.integers(0, 255, (120, 160, 3), np.uint8)
    sound = np.zeros(1600, np.float32)
    with new_file(path) as file, Recorder(file, clock, head, video=media, sound=media) as recorder:
        perception = Perception(extractors, CPU)
        pipeline = Pipeline(perception, engine, clock, "hall", lambda: Dropped(video=0, audio=0), timed=True)
        pipeline.outputs.add(recorder)
        for period_s, do in (
            (1 / 15, lambda now_s: perception.see(VideoFrame(picture, now_s, now_s))),
            (0.1, lambda now_s: perception.hear(AudioBlock(sound, now_s - 0.1, now_s))),
            (0.3, lambda now_s: perception.listen([AudioBlock(sound, now_s, now_s)])),
        ):
            threading.Thread(target=every, args=(period_s, clock, do), daemon=True).start()

        def tick(now_s: float) -> None:
            pipeline.emit(pipeline.estimate(now_s))
            os.write(told, struct.pack("<d", now_s))

        every(HOP_S, clock, tick)


def killed(paths: Sequence[Path], engine: Engine) -> list[tuple[Path, list[float]]]:
    """Kill a run for each path, each at another moment. Returns when its estimates were handed over."""
    running = []
    for number, path in enumerate(paths):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            record(path, writing, engine, media=number % 2 == 1)
        os.close(writing)
        running.append((time.monotonic() + random.uniform(0.2, 5.0), child, reading, path))
    ended = []
    for at_s, child, reading, path in sorted(running):
        time.sleep(max(0.0, at_s - time.monotonic()))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            ended.append((path, [one for (one,) in struct.iter_unpack("<d", pipe.read())]))
    return ended


def judged(path: Path, told_s: Sequence[float], engine: Engine) -> dict[str, Any]:
    """What is left of a run, and whether the model says it again.

    late_s: the longest that an estimate was late, as a machine that is busy is allowed to be.
    """
    gaps = np.diff([0.0, *told_s]) - HOP_S
    report: dict[str, Any] = {"file": path.name, "told": len(told_s), "late_s": float(max(gaps, default=0.0))}
    recorded_s, agreement = 0.0, replay.Agreement()
    try:
        session = Session.open(path)
        for moment in replay.Rewound(session, CHECKPOINT, CPU):
            recorded_s = moment.cut.end_s
            agreement.add(moment.recorded, moment.cut, engine.infer(moment.cut))
        report["lost_messages"] = sum(r.message.count for r in session.records({schema.LOST}))
        report["complete"] = session.complete
    except SessionInvalid as error:
        report["error"] = str(error)
    lost_s = told_s[-1] - recorded_s if told_s else 0.0
    return report | {"lost_s": lost_s, "estimates": agreement.estimates, "holds": agreement.holds}


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[3])
    torch.set_num_threads(1)
    engine = Engine(CHECKPOINT, CPU)
    replay.TextExtractor = Text  # type: ignore[assignment, misc]
    paths = [folder / f"{number}.mcap" for number in range(kills)]
    for first in range(0, kills, AT_ONCE):
        for path, told_s in killed(paths[first : first + AT_ONCE], engine):
            print(json.dumps(judged(path, told_s, engine)), flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
