"""A visitor's camera and microphone, as their browser sends them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from realtime.capture.delivery import Delivery
from realtime.capture.jpeg import baseline_size
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.capture.steady import SteadySound
from realtime.clock import StreamClock

LARGEST_SIDE: Final = 1920


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A picture that is decoded when it is looked at. on_refused: told if it is none."""

    jpeg: bytes
    captured_s: float
    arrived_s: float
    on_refused: Callable[[str], None]

    def decoded(self) -> VideoFrame | None:
        """Returns None for what is no picture, or too large a one."""
        import cv2

        image, size = None, baseline_size(self.jpeg)
        if size is not None and min(size) > 0 and max(size) <= LARGEST_SIDE:
            # OpenCV raises for a picture beyond its own limit, see OPENCV_IO_MAX_IMAGE_PIXELS in realtime/__init__.py.
            with contextlib.suppress(cv2.error):
                image = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            self.on_refused("not a baseline JPEG picture")
            return None
        return VideoFrame(np.asarray(image, np.uint8), self.captured_s, self.arrived_s)


class BrowserCapture:
    """Puts what a browser sends into the queues, in the event loop.

    on_refused: told why a picture is not taken, in the event loop, or in the thread that looks at it.
    """

    def __init__(self, clock: StreamClock, delivery: Delivery, on_refused: Callable[[str], None]) -> None:
        self.clock = clock
        self._delivery = delivery
        self._on_refused = on_refused
        self._newest_s = self._end_s = -np.inf
        self._steady: SteadySound | None = None

    @property
    def rate_hz(self) -> int:
        """Rate of the sound that comes; 0 until it was told."""
        return self._steady.rate_hz if self._steady else 0

    def begin_sound(self, rate_hz: int) -> None:
        """Expect sound of this rate; it follows nothing that came before."""
        self._steady = SteadySound(rate_hz)

    def put_picture(self, jpeg: bytes, captured_s: float) -> None:
        if captured_s <= self._newest_s:
            self._on_refused("not newer than the one before")
            return
        self._newest_s = captured_s
        self._delivery.frames.put(JpegFrame(jpeg, captured_s, self.clock.now(), self._on_refused))

    def put_sound(self, samples: NDArray[np.int16], captured_s: float) -> None:
        """samples: (N,) at the rate told."""
        if self._steady is None:
            raise ValueError("sound came before its rate was told")
        floats = samples.astype(np.float32) / np.float32(32768)
        steadied, begin_s = self._steady.push(floats, captured_s)
        if len(steadied):
            # From one beginning to the next a browser may say anything; times never run backwards.
            block = AudioBlock(steadied, max(begin_s, self._end_s), self.clock.now())
            self._end_s = block.end_s
            self._delivery.sound.put(block)
