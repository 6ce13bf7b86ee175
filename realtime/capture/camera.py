"""Cameras of this machine, through OpenCV."""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from realtime.capture.network import is_stream
from realtime.capture.samples import VideoFrame
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable

if TYPE_CHECKING:
    import cv2

V4L_DEVICES = Path("/sys/class/video4linux")
_INDEX = re.compile(r"camera:(\d{1,3})")


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """source: what to give to Camera. name: what the maker calls it."""

    source: str
    name: str


class Camera:
    """Frames of "camera:N", or of a device such as /dev/video0.

    A frame's capture time is the stream time at which OpenCV handed it over: cameras give no time of exposure that
    could be trusted across drivers, so exposure and transfer come on top unseen.
    """

    def __init__(self, source: str, clock: StreamClock) -> None:
        self.clock = clock
        self.name = source
        if not is_camera(source) or is_stream(source):
            raise CameraUnavailable(f"{self.name}: not a camera; use camera:N or /dev/videoN")

    def frames(self, stop: threading.Event) -> Iterator[VideoFrame]:
        """Open the source and yield its frames until `stop`.

        Raises CameraUnavailable when it cannot be opened, when it ends, and when it delivers nothing for OpenCV's 10 s.
        """
        capture = self._open()
        try:
            while not stop.is_set():
                delivered, image = capture.read()
                now_s = self.clock.now()
                if not delivered:
                    raise CameraUnavailable(f"{self.name}: stopped delivering; check that it is on and connected")
                yield VideoFrame(np.asarray(image, np.uint8), captured_s=now_s, arrived_s=now_s)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        try:
            import cv2
        except ImportError:
            raise CameraUnavailable(
                "OpenCV, which reads cameras, is missing; pip install opencv-python-headless"
            ) from None
        import cv2.utils.logging

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        index = _INDEX.fullmatch(self.name)
        backend = cv2.CAP_V4L2 if platform.system() == "Linux" else cv2.CAP_ANY
        capture = cv2.VideoCapture(int(index[1]), backend) if index else cv2.VideoCapture(self.name, backend)
        # What waits in the driver is old: keep one picture.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if not capture.isOpened():
            raise CameraUnavailable(f"{self.name}: {_device_trouble(self.name)}")
        return capture


def is_camera(source: str) -> bool:
    """Whether Camera takes it: camera:N, a device under /dev, or a network stream; anything else is a file."""
    return _INDEX.fullmatch(source) is not None or source.startswith("/dev/") or is_stream(source)


def list_cameras() -> list[CameraInfo]:
    """Cameras of this machine. Linux names them without opening them; elsewhere the first few indices are tried."""
    if platform.system() == "Linux":
        nodes = sorted(V4L_DEVICES.glob("video*"), key=lambda node: int(node.name.removeprefix("video")))
        # A camera has several nodes; the first is the one that delivers pictures.
        return [
            CameraInfo(f"camera:{node.name.removeprefix('video')}", (node / "name").read_text().strip())
            for node in nodes
            if (node / "index").read_text().strip() == "0"
        ]
    import cv2

    found = []
    for index in range(4):
        capture = cv2.VideoCapture(index)
        if capture.isOpened():
            found.append(CameraInfo(f"camera:{index}", "camera"))
        capture.release()
    return found


def _device_trouble(source: str) -> str:
    device = Path(source.replace("camera:", "/dev/video"))
    cameras = ", ".join(f"{camera.source} ({camera.name})" for camera in list_cameras())
    found = f"found: {cameras}" if cameras else "no camera was found here; connect one or name a file or stream"
    if platform.system() == "Linux" and not device.exists():
        return f"no such camera; {found}"
    if platform.system() == "Linux" and not os.access(device, os.R_OK | os.W_OK):
        return f"permission denied on {device}; add yourself to its group: sudo usermod -aG video $USER, log in again"
    return f"cannot be opened; another program may be using it ({found})"
