"""What a run captures, and the queues that it waits in until it is perceived."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from realtime.capture.queues import AudioFanOut, AudioRing, LatestFrame
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.messages.estimate import Dropped

VOICE_RING_S = 5.0
TRANSCRIPT_RING_S = 15.0


@dataclass(frozen=True, slots=True)
class LiveSource:
    """What a run captures. Each stream is started in a thread of its own and ends when its event is set."""

    frames: Callable[[threading.Event], Iterator[VideoFrame]] | None
    blocks: Callable[[threading.Event], Iterator[AudioBlock]] | None
    lost: Callable[[], Dropped] = lambda: Dropped(video=0, audio=0)
    """Frames and blocks that were lost before they reached a queue."""


class Delivery:
    """The queues between a source and perception, and what was lost on the way."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.frames = LatestFrame()
        self.voice = AudioRing(VOICE_RING_S)
        self.transcript = AudioRing(TRANSCRIPT_RING_S)
        self.sound = AudioFanOut([self.voice, self.transcript])

    def dropped(self) -> Dropped:
        lost = self.source.lost()
        return Dropped(
            video=lost.video + self.frames.dropped,
            audio=lost.audio + max(self.voice.dropped, self.transcript.dropped),
        )
