"""A visitor's camera and microphone, as their browser sends them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.capture.steady import SteadySound
from realtime.clock import SessionClock
from realtime.messages.estimate import Dropped

LARGEST_SIDE: Final = 1920
RATES_HZ: Final = range(8_000, 192_001)
BACKLOG_S: Final = 15.0
"""Sound that waits for its thread, at most."""
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class _Picture:
    jpeg: bytes
    captured_s: float


@dataclass(frozen=True, slots=True)
class _Sound:
    samples: NDArray[np.float32]
    rate_hz: int
    life: int
    captured_s: float


class BrowserCapture:
    """Pictures and sound are given in the event loop and yielded in capture threads, each with its capture time.

    Of pictures the newest counts; sound waits in order. on_malformed: told, in a capture thread, of what is no picture.
    """

    def __init__(self, clock: SessionClock, on_malformed: Callable[[str], None] = lambda _: None) -> None:
        self.clock = clock
        self._on_malformed = on_malformed
        self._changed = threading.Condition()
        self._picture: _Picture | None = None
        self._sounds: deque[_Sound] = deque()
        self._waiting_s = 0.0
        self.rate_hz = 0
        """Of the sound that comes; 0 until it was told."""
        self._life = 0
        self._lost_pictures = self._lost_sounds = 0

    def picture(self, jpeg: bytes, captured_s: float) -> None:
        """Take in a picture; one that still waits is dropped for it, and counted."""
        with self._changed:
            self._lost_pictures += self._picture is not None
            self._picture = _Picture(jpeg, captured_s)
            self._changed.notify_all()

    def listen(self, rate_hz: int) -> None:
        """Sound of this rate begins; it follows nothing that came before."""
        self.rate_hz = rate_hz
        self._life += 1

    def sound(self, samples: NDArray[np.int16], captured_s: float) -> float:
        """Take in sound, (N,) at the rate told. Returns how long it is, seconds."""
        length_s = len(samples) / self.rate_hz
        with self._changed:
            floats = samples.astype(np.float32) / np.float32(32768)
            self._sounds.append(_Sound(floats, self.rate_hz, self._life, captured_s))
            self._waiting_s += length_s
            while self._waiting_s > BACKLOG_S and len(self._sounds) > 1:
                oldest = self._sounds.popleft()
                self._waiting_s -= len(oldest.samples) / oldest.rate_hz
                self._lost_sounds += 1
            self._changed.notify_all()
        return length_s

    def lost(self) -> Dropped:
        """What nobody took in time."""
        return Dropped(video=self._lost_pictures, audio=self._lost_sounds)

    def frames(self, stop: threading.Event) -> Iterator[VideoFrame]:
        newest_s = -np.inf
        while not stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._picture is not None, _POLL_S)
                picture, self._picture = self._picture, None
            if picture is None or picture.captured_s <= newest_s:
                continue
            image = _decoded(picture.jpeg)
            if image is None:
                self._on_malformed("not a JPEG picture")
                continue
            newest_s = picture.captured_s
            yield VideoFrame(image, picture.captured_s, self.clock.now())

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        steady: SteadySound | None = None
        life, end_s = 0, -np.inf
        while not stop.is_set():
            with self._changed:
                if not self._changed.wait_for(lambda: bool(self._sounds), _POLL_S):
                    continue
                sound = self._sounds.popleft()
                self._waiting_s -= len(sound.samples) / sound.rate_hz
            if steady is None or sound.life != life:
                steady, life = SteadySound(sound.rate_hz), sound.life
            samples, captured_s = steady.push(sound.samples, sound.captured_s)
            if len(samples):
                # Within one life times never run backwards; from one to the next a browser may say anything.
                block = AudioBlock(samples, max(captured_s, end_s), self.clock.now())
                end_s = block.end_s
                yield block


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, from its frame header (ITU-T T.81, B.2.2); None where there is none.

    Read before decoding: a picture of a few bytes may claim to be gigabytes wide.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + length
    return None


def _decoded(jpeg: bytes) -> NDArray[np.uint8] | None:
    """(H, W, 3) BGR; None for what is no picture, or too large a one."""
    import cv2

    size = jpeg_size(jpeg)
    if size is None or not 0 < max(size) <= LARGEST_SIDE or min(size) == 0:
        return None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)
