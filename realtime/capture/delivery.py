"""The queues in which what is captured waits until it is perceived."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dhmd.features.timeline import PICTURES_HZ
from dhmd.modality import Modality
from realtime.capture.queues import AudioFanOut, AudioRing, LatestFrame
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.messages.estimate import Dropped

VOICE_RING_S = 5.0
TRANSCRIPT_RING_S = 15.0


@dataclass(frozen=True, slots=True)
class Source:
    """Streams that a run captures; None for one that it does not. Each is iterated in a thread of its own and ends when
    its event is set."""

    frames: Callable[[threading.Event], Iterator[VideoFrame]] | None
    blocks: Callable[[threading.Event], Iterator[AudioBlock]] | None
    lost: Callable[[], Dropped] = lambda: Dropped(video=0, audio=0)
    """Frames and blocks that were lost before they reached a queue."""


class Delivery:
    """The queues between capture and perception, and what was lost on the way.

    source: read by threads of the run. None where somebody else puts pictures and sound into the queues. words: whether
    speech is recognised. pictures_hz: how many are looked at a second, at most.
    """

    def __init__(self, source: Source | None = None, *, words: bool = True, pictures_hz: float = PICTURES_HZ) -> None:
        self.source = source
        self.frames = LatestFrame(pictures_hz)
        self.voice = AudioRing(VOICE_RING_S)
        self.transcript = AudioRing(TRANSCRIPT_RING_S)
        self.overtaken = 0
        """Blocks of sound whose voice was not read, as so much newer sound waited."""
        self.sound = AudioFanOut([self.voice, self.transcript] if words else [self.voice])
        self.has_words = words and self.has_sound
        """True where words may come."""

    @property
    def has_frames(self) -> bool:
        """True where pictures may come."""
        return self.source is None or self.source.frames is not None

    @property
    def has_sound(self) -> bool:
        """True where sound may come."""
        return self.source is None or self.source.blocks is not None

    def newest_s(self, modality: Modality) -> float:
        """Returns until when samples of a modality have been captured, stream clock."""
        match modality:
            case Modality.VISION:
                return self.frames.newest_s
            case Modality.AUDIO:
                return self.voice.newest_s
            case Modality.TEXT:
                return self.transcript.newest_s

    def dropped(self) -> Dropped:
        lost = self.source.lost() if self.source else Dropped(video=0, audio=0)
        return Dropped(
            video=lost.video + self.frames.dropped,
            audio=lost.audio + max(self.voice.dropped + self.overtaken, self.transcript.dropped),
        )
