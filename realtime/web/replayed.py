"""Replayed session on the page: words, face and, where they were recorded, pictures, as they arrived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import Rows
from dhmd.features.face import WIDTH, FaceObservation
from dhmd.session import Session, SessionMessage, schema
from dhmd.session.reader import landmarks_of, words_of
from realtime.perception.transcript import TranscriptUpdate
from realtime.pipeline.pipeline import Emission
from realtime.session.media import VideoDecoder
from realtime.session.timeline import status_of
from realtime.web.feed import Feed

FRESH_S = 0.4
"""Age up to which landmarks are drawn, as they are recorded less often than faces."""


class ReplayView:
    """Sink that shows each estimate, and before it what else had arrived by then."""

    def __init__(self, session: Session, feed: Feed) -> None:
        self._session = session
        self._feed = feed
        self._decoder = VideoDecoder(session)
        self._records = session.records({schema.WORDS, schema.FACE, schema.LANDMARKS, schema.STATUS, schema.VIDEO})
        self._next: SessionMessage | None = next(self._records, None)
        self._points: tuple[float, NDArray[np.float32]] | None = None

    def on_estimate(self, emission: Emission) -> None:
        for record in self._until(emission.perceived.cut.end_s):
            self._show(record)
        self._feed.on_estimate(emission)

    def _until(self, end_s: float) -> Iterator[SessionMessage]:
        while self._next is not None and self._next.arrived_s <= end_s:
            yield self._next
            self._next = next(self._records, None)

    def _show(self, record: SessionMessage) -> None:
        one = record.message
        if record.topic == schema.WORDS:
            update = TranscriptUpdate(words_of(one.final), words_of(one.partial), one.skipped_s)
            self._feed.on_words(update, one.revision)
        elif record.topic == schema.LANDMARKS:
            self._points = (record.captured_s, landmarks_of(one))
        elif record.topic == schema.FACE:
            self._feed.on_face(self._face(one))
        elif record.topic == schema.STATUS:
            self._feed.on_worker(status_of(one, self._session))
        else:
            for frame in self._decoder.frames(record, record.arrived_s):
                self._feed.on_frame(frame)

    def _face(self, one: Any) -> FaceObservation:
        """Return the face of a Face message, with the newest landmarks if they are fresh."""
        fresh = self._points is not None and one.captured_s - self._points[0] <= FRESH_S
        points = self._points[1] if fresh and self._points is not None else None
        box = (one.box[0], one.box[1], one.box[2], one.box[3]) if len(one.box) == 4 else None
        return FaceObservation(one.captured_s, Rows.empty(WIDTH), one.faces, box, points)
