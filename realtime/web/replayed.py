"""A recorded session as the page shows it: estimates as they were published, and what else had arrived by then."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import Rows, Word
from dhmd.features.face import WIDTH, FaceObservation
from dhmd.session import Session, SessionMessage, schema
from dhmd.session.reader import landmarks_of, words_of
from realtime.perception.transcript import TranscriptUpdate
from realtime.session.media import VideoDecoder
from realtime.session.timeline import status_of
from realtime.web.feed import Feed

FRESH_S: Final = 0.4
"""Age up to which landmarks are drawn, as they are recorded less often than faces."""
BEFORE_S: Final = 20.0
"""Time before a moment of which is read what still holds then: words, and the key picture."""
TOPICS: Final = frozenset(
    {schema.ESTIMATE, schema.WORDS, schema.FACE, schema.LANDMARKS, schema.STATUS, schema.VIDEO},
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One Estimate message, and how a feed is told of what arrived since the one before."""

    estimate: Any
    told: list[Callable[[Feed], None]]


def scenes(session: Session, since_s: float = -math.inf) -> Generator[Scene]:
    """Yield the scenes from a moment of the session clock on; the first also tells what holds by then.

    Raises SessionInvalid.
    """
    reel = _Reel(session)
    for record in session.records(TOPICS, since_s - BEFORE_S):
        if record.topic != schema.ESTIMATE:
            reel.take(record)
        elif record.message.end_s >= since_s:
            yield Scene(record.message, reel.taken())


class _Reel:
    """What has arrived since the estimate before: of pictures, faces and each worker the newest, and all words."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._decoder = VideoDecoder(session)
        self._points: tuple[float, NDArray[np.float32]] | None = None
        self._final: list[Word] = []
        self._newest: dict[str, Callable[[Feed], None]] = {}

    def take(self, record: SessionMessage) -> None:
        one, newest = record.message, self._newest
        match record.topic:
            case schema.VIDEO:
                for frame in self._decoder.frames(record, record.arrived_s):
                    newest["picture"] = partial(Feed.on_frame, frame=frame)
            case schema.WORDS:
                self._final += words_of(one.final)
                update = TranscriptUpdate(tuple(self._final), words_of(one.partial), one.skipped_s)
                newest["words"] = partial(Feed.on_words, update=update, _=one.revision)
            case schema.LANDMARKS:
                self._points = (record.captured_s, landmarks_of(one))
            case schema.FACE:
                newest["face"] = partial(Feed.on_face, observation=self._face(one))
            case schema.STATUS:
                newest[one.worker] = partial(Feed.on_worker, status=status_of(one, self._session))

    def taken(self) -> list[Callable[[Feed], None]]:
        told, self._newest, self._final = [*self._newest.values()], {}, []
        return told

    def _face(self, one: Any) -> FaceObservation:
        """Return the face of a Face message, with the newest landmarks if they are fresh."""
        fresh = self._points is not None and abs(one.captured_s - self._points[0]) <= FRESH_S
        points = self._points[1] if fresh and self._points is not None else None
        box = (one.box[0], one.box[1], one.box[2], one.box[3]) if len(one.box) == 4 else None
        return FaceObservation(one.captured_s, Rows.empty(WIDTH), one.faces, box, points)
