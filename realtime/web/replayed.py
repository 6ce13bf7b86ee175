"""A recorded session as the page shows it: estimates as they were published, and what else had arrived by then."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import Rows
from dhmd.features.face import WIDTH, FaceObservation
from dhmd.session import Session, SessionMessage, schema
from dhmd.session.reader import landmarks_of, words_of
from realtime.capture.samples import VideoFrame
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
    told: list[Callable[[Feed], None]] = field(default_factory=list)


def scenes(session: Session, since_s: float = -math.inf) -> Generator[Scene]:
    """Yield the scenes from a moment of the session clock on; the first also tells what holds by then.

    Raises SessionInvalid.
    """
    reel, told = _Reel(session), list[Callable[[Feed], None]]()
    picture: VideoFrame | None = None
    for record in session.records(TOPICS, since_s - BEFORE_S):
        if record.topic == schema.VIDEO:
            # Of those that come between two estimates the newest is enough.
            for picture in reel.pictures(record):  # noqa: B007
                pass
        elif record.topic != schema.ESTIMATE:
            told.append(reel.telling(record))
        elif record.message.end_s >= since_s:
            if picture is not None:
                told.append(lambda feed, frame=picture: feed.on_frame(frame))  # type: ignore[misc]
            yield Scene(record.message, told)
            told, picture = [], None


class _Reel:
    """What is remembered from one record to the next."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._decoder = VideoDecoder(session)
        self._points: tuple[float, NDArray[np.float32]] | None = None

    def pictures(self, record: SessionMessage) -> Iterator[VideoFrame]:
        return self._decoder.frames(record, record.arrived_s)

    def telling(self, record: SessionMessage) -> Callable[[Feed], None]:
        one = record.message
        if record.topic == schema.WORDS:
            update = TranscriptUpdate(words_of(one.final), words_of(one.partial), one.skipped_s)
            return lambda feed: feed.on_words(update, one.revision)
        if record.topic == schema.FACE:
            face = self._face(one)
            return lambda feed: feed.on_face(face)
        if record.topic == schema.STATUS:
            status = status_of(one, self._session)
            return lambda feed: feed.on_worker(status)
        self._points = (record.captured_s, landmarks_of(one))
        return lambda _: None

    def _face(self, one: Any) -> FaceObservation:
        """Return the face of a Face message, with the newest landmarks if they are fresh."""
        fresh = self._points is not None and abs(one.captured_s - self._points[0]) <= FRESH_S
        points = self._points[1] if fresh and self._points is not None else None
        box = (one.box[0], one.box[1], one.box[2], one.box[3]) if len(one.box) == 4 else None
        return FaceObservation(one.captured_s, Rows.empty(WIDTH), one.faces, box, points)
