"""Pictures as they are to be shown: of a film, and stills."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dhmd.errors import MediaUnreadable
from dhmd.media.container import read_head

if TYPE_CHECKING:
    import av


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a film, converted when its image is asked for: many are left out before that.

    time_s: on the timeline of whoever yields it. frame: as the decoder gave it.
    """

    time_s: float
    frame: av.VideoFrame

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR, contiguous, turned by the rotation that phones store beside the picture."""
        image = self.frame.to_ndarray(format="bgr24")
        return np.ascontiguousarray(np.rot90(image, round(self.frame.rotation / 90) % 4), np.uint8)


def read_image(path: Path, flags: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of a still, turned upright, unless OpenCV's flags ask for another form. Raises MediaUnreadable."""
    import cv2

    read_head(path)
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR if flags is None else flags)
    if image is None:
        raise MediaUnreadable(f"{path}: is not an image that OpenCV knows; name a picture")
    return np.asarray(image, np.uint8)
