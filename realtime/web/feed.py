"""Feed of a run to browsers: estimates, the picture with its face, words and statuses, to each at the rate it takes.

A page that falls behind loses pictures first, then estimates, and never holds up the run.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import Word
from dhmd.features.face import FaceObservation
from dhmd.features.tracks import Box
from dhmd.modality import Modality
from realtime.capture.samples import VideoFrame
from realtime.perception.people import PeopleInView
from realtime.perception.transcript import TranscriptUpdate
from realtime.pipeline.pipeline import Emission
from realtime.recognition.events import Events
from realtime.web.pages import Page, Picture, message
from realtime.workers import WorkerStatus

PICTURE_EVERY_S: Final = 1 / 15 - 0.01
ACTIVATIONS_EVERY_S: Final = 1 / 5 - 0.01
POINT_UNITS: Final = 10_000
"""Landmarks are sent in this many steps a side of the picture."""


class Feed:
    """A sink of estimates and an observer of perception. Safe between threads; pages live in the event loop.

    pictures: whether pages are sent what is seen; those of a visitor show their own camera.
    """

    def __init__(self, stream: str, *, pictures: bool = True) -> None:
        self.stream = stream
        self._pictures = pictures
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pages: list[Page] = []
        self._lock = threading.Lock()
        self.statuses: dict[str, WorkerStatus] = {}
        """Of the workers, by name."""
        self.connection = ""
        """State of that with the broker; empty without one."""
        self.atoms = 0
        """In each dictionary of the model, if their activations come with the estimates; else 0."""
        self._events = Events()
        self._recording: str | None = None
        self._pictured_s = 0.0
        self._activated_s = -math.inf

    def on_frame(self, frame: VideoFrame) -> None:
        """Show the picture where a page looks, at most 15 times a second."""
        now_s = time.monotonic()
        if not (self._pages and self._pictures) or now_s - self._pictured_s < PICTURE_EVERY_S:
            return
        self._pictured_s = now_s
        self._each(picture=Picture(frame))

    def on_sound(self, *_: object) -> None:
        """Sound is not shown; nor are rows."""

    on_rows = on_sound

    def on_face(self, observation: FaceObservation) -> None:
        if not self._pages:
            return
        face: dict[str, Any] = {"t": observation.captured_s, "faces": observation.faces}
        face |= {"others": [_rounded(box) for box in observation.others]}
        if observation.box is not None:
            face |= {"box": _rounded(observation.box)}
        if observation.box is not None and observation.landmarks is not None:
            points = np.clip(np.round(observation.landmarks[:, :2] * POINT_UNITS), -32768, 32767).astype("<i2")
            face |= {"points": base64.b64encode(points.tobytes()).decode()}
        self._each(message("face", face))

    def on_words(self, update: TranscriptUpdate, _: int) -> None:
        self._each(message("words", {"final": _words(update.final), "partial": _words(update.partial)}))

    def on_estimate(self, emission: Emission) -> None:
        happened = self._events.take(emission.estimate)
        if not self._pages:
            return
        end_s, data = emission.perceived.cut.end_s, emission.payload.decode()
        differs = json.dumps(emission.estimate.disagreement)
        self._each(f'{{"type":"estimate","end":{end_s:.4f},"disagreement":{differs},"data":{data}}}')
        for event in happened:
            self._each(message("event", event.model_dump()))
        activations = emission.inference and emission.inference.activations
        if activations and end_s - self._activated_s >= ACTIVATIONS_EVERY_S:
            self._activated_s = end_s
            homo, hetero = _shades(activations.homo), _shades(activations.hetero)
            self._each(message("activations", {"end": round(end_s, 4), "homo": homo, "hetero": hetero}))

    def on_person(self, emission: Emission) -> None:
        if self._pages:
            end_s, data = emission.perceived.cut.end_s, emission.payload.decode()
            differs = json.dumps(emission.estimate.disagreement)
            self._each(f'{{"type":"estimate","end":{end_s:.4f},"disagreement":{differs},"data":{data}}}')

    def on_people(self, view: PeopleInView) -> None:
        """Show who is in view, and who speaks: a person, somebody outside the picture, or several at once."""
        if not self._pages:
            return
        people = [{"id": one.person, "since": round(one.since_s, 3), "box": _rounded(one.box)} for one in view.people]
        self._each(message("people", {"people": people, "speaker": view.speaker, "speech": view.speech}))

    def on_person_rows(self, *_: object) -> None:
        """Rows are not shown; nor are turns by themselves."""

    on_turns = on_person_rows

    def on_person_words(self, person: int, words: Sequence[Word], _: int) -> None:
        self._each(message("said", {"person": person, "words": _words(words)}))

    def on_worker(self, status: WorkerStatus) -> None:
        self.statuses[status.worker] = status
        self._each(message("status", _status(status)))

    def on_connection(self, state: str) -> None:
        """Show the state of the connection to the broker."""
        self.connection = state
        self._each(message("broker", {"state": state}))

    def on_marks(self, line: str) -> None:
        """Show what was marked, or is being marked."""
        self._each(message("marks", {"line": line}))

    def on_recording(self, state: Mapping[str, Any]) -> None:
        """Show what becomes of a recording that a page asked for."""
        self._recording = message("recording", dict(state))
        self._each(self._recording)

    def tell(self, text: str) -> None:
        """Hand a message to every page."""
        self._each(text)

    def begin_again(self) -> None:
        """Tell pages that what comes next does not go on from what came before."""
        self._events = Events()
        self._activated_s = self._pictured_s = -math.inf
        self._each(message("jumped", {}))

    def end(self, reason: str) -> None:
        """Tell pages that nothing more will come."""
        self._each(message("ended", {"reason": reason}))

    @contextmanager
    def page(self, page: Page) -> Iterator[None]:
        """Send to this page for as long as the context lasts, beginning with what it needs to know."""
        self._loop = asyncio.get_running_loop()
        if self.connection:
            page.tell(message("broker", {"state": self.connection}))
        if self._recording:
            page.tell(self._recording)
        for status in self.statuses.values():
            page.tell(message("status", _status(status)))
        with self._lock:
            self._pages = [*self._pages, page]
        try:
            yield
        finally:
            with self._lock:
                self._pages = [one for one in self._pages if one is not page]

    def _each(self, text: str | None = None, picture: Picture | None = None) -> None:
        """Hand a message or a picture to every page, from any thread."""
        if (loop := self._loop) is None or loop.is_closed():
            return
        with self._lock:
            pages = self._pages
            for page in pages:
                page.put(text, picture)
        for page in pages:
            loop.call_soon_threadsafe(page.wake.set)


def _shades(activations: Mapping[Modality, NDArray[np.float32]]) -> dict[str, str]:
    """Return the square root of each activation in [0, 1], as a byte, in base64."""
    shades = {m: np.rint(np.sqrt(one) * 255).astype(np.uint8) for m, one in activations.items()}
    return {m.value: base64.b64encode(one.tobytes()).decode() for m, one in shades.items()}


def _rounded(box: Box) -> list[float]:
    return [round(float(side), 4) for side in box]


def _words(words: Sequence[Word]) -> list[list[Any]]:
    """A word said while others spoke has one thing more."""
    told = [[word.text, round(word.start_s, 3), round(word.end_s, 3)] for word in words]
    return [[*one, True] if word.overlapped else one for one, word in zip(told, words, strict=True)]


def _status(status: WorkerStatus) -> dict[str, Any]:
    return {"worker": status.worker, "state": status.state.value, "reason": status.reason, "restarts": status.restarts}
