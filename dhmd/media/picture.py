"""Pictures as they are to be shown: of a film or a network stream, and stills."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import MediaUnreadable
from dhmd.media.container import read_head

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

STRETCH: Final = 4.0
"""Pixels more oblong than this are a mistake of their writer, and taken for square."""
UNEVEN: Final = 1e-3
"""Below it, what is off a right angle is rounding."""

_CROPPING = re.compile(r"Stream #0:(\d+)|Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)")
_naming = threading.Lock()


@dataclass(frozen=True, slots=True)
class Raster:
    """What a container says of the pixels of a stream: width of one by its height, and how many rows and columns at
    each side are not to be shown."""

    aspect: float = 1.0
    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    @classmethod
    def of(cls, container: InputContainer, stream: av.VideoStream) -> Raster:
        aspect = float(stream.sample_aspect_ratio or 1)
        return cls(aspect if 1 / STRETCH <= aspect <= STRETCH else 1.0, *_cropping(container, stream.index))


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a film, converted when its image is asked for: many are left out before that.

    time_s: on the timeline of whoever yields it. frame: as the decoder gave it.
    """

    time_s: float
    frame: av.VideoFrame
    raster: Raster = Raster()

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR, contiguous, as it is to be shown: cut, without the comb of interlacing, with square pixels,
        and turned or mirrored by the matrix that phones and cameras store beside it."""
        from av.sidedata.sidedata import Type

        image = bgr(self.frame)
        if self.frame.interlaced_frame:
            image = _uncombed(image)
        height, width = image.shape[:2]
        raster = self.raster
        if raster.left + raster.right < width and raster.top + raster.bottom < height:
            image = image[raster.top : height - raster.bottom, raster.left : width - raster.right]
        if raster.aspect != 1:
            image = _with_square_pixels(image, raster.aspect)
        matrix = self.frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
        if matrix is not None:
            image = turned(image, np.frombuffer(bytes(matrix), np.int32).reshape(3, 3))
        return np.ascontiguousarray(image)


def bgr(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of a frame, as the decoder gave it."""
    # Else each frame makes a thread for each core, and keeps them for as long as it is kept.
    return np.asarray(frame.to_ndarray(format="bgr24", threads=1), np.uint8)


def turned(image: NDArray[np.uint8], matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The picture moved by a display matrix: (x, y, 1) @ matrix is where a point is shown, up to scale and place.

    matrix: (3, 3), as containers store it. One that is not invertible, or distorts beyond STRETCH, is passed over.
    """
    linear = matrix[:2, :2].astype(np.float64)
    stretches = np.linalg.svd(linear, compute_uv=False)
    if stretches[0] > STRETCH * stretches[1]:
        return image
    linear /= np.sqrt(abs(np.linalg.det(linear)))  # Scale is the raster's matter.
    (to_right, to_down), (down_to_right, down_to_down) = linear
    if max(abs(to_down), abs(down_to_right)) < UNEVEN:
        return image[:: _sign(down_to_down), :: _sign(to_right)]
    if max(abs(to_right), abs(down_to_down)) < UNEVEN:
        return image.swapaxes(0, 1)[:: _sign(to_down), :: _sign(down_to_right)]
    import cv2

    height, width = image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) @ linear
    begin = corners.min(axis=0)
    size = np.ceil(corners.max(axis=0) - begin).astype(int)
    return np.asarray(cv2.warpAffine(image, np.column_stack([linear.T, -begin]), (size[0], size[1])), np.uint8)


def read_image(path: Path, flags: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of a still, turned upright, unless OpenCV's flags ask for another form. Raises MediaUnreadable."""
    import cv2

    read_head(path)
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR if flags is None else flags)
    if image is None:
        raise MediaUnreadable(f"{path}: is not an image that OpenCV knows; name a picture")
    return np.asarray(image, np.uint8)


def _sign(value: float) -> int:
    return -1 if value < 0 else 1


def _uncombed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each odd row, which was exposed later, kept where it lies between its neighbours, and else moved there."""
    result = image.copy()
    above, below = image[0:-2:2], image[2::2]
    result[1:-1:2] = np.clip(image[1:-1:2], np.minimum(above, below), np.maximum(above, below))
    return result


def _with_square_pixels(image: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """The picture made wider or higher, so that nothing of it is lost."""
    import cv2

    height, width = image.shape[:2]
    size = (round(width * max(aspect, 1.0)), round(height * max(1 / aspect, 1.0)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _cropping(container: InputContainer, index: int) -> tuple[int, int, int, int]:
    """Columns at the left and right and rows at top and bottom that the container has cut.

    PyAV gives them in no other way than in FFmpeg's description, which it takes from FFmpeg's log.
    """
    from av import logging

    with _naming, logging.Capture(local=False):
        level = logging.get_level()
        logging.set_level(logging.INFO)
        try:
            described: str = container.dumps_format()  # type: ignore[attr-defined]
        finally:
            logging.set_level(level)
    stream = -1
    for found in _CROPPING.finditer(described):
        if found[1] is not None:
            stream = int(found[1])
        elif stream == index:
            left, right, top, bottom = (int(number) for number in found.groups()[1:])
            return left, right, top, bottom
    return 0, 0, 0, 0
