"""Cameras of this machine, through OpenCV."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from dhmd.untrusted import read_json_object
from realtime.capture.network import is_stream
from realtime.capture.samples import VideoFrame
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable

if TYPE_CHECKING:
    import cv2

V4L_DEVICES = Path("/sys/class/video4linux")
PROFILER_S: Final = 10.0
BACKENDS: Final = {"Linux": "CAP_V4L2", "Windows": "CAP_DSHOW", "Darwin": "CAP_AVFOUNDATION"}
"""Of OpenCV. The system's other one, Media Foundation on Windows, takes many seconds to open a camera."""
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
        backend = getattr(cv2, BACKENDS.get(platform.system(), "CAP_ANY"))
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
    """Cameras of this machine, by the names that the system has for them; none is opened. Raises CameraUnavailable."""
    if platform.system() == "Linux":
        nodes = sorted(V4L_DEVICES.glob("video*"), key=lambda node: int(node.name.removeprefix("video")))
        # A camera has several nodes; the first is the one that delivers pictures.
        return [
            CameraInfo(f"camera:{node.name.removeprefix('video')}", (node / "name").read_text().strip())
            for node in nodes
            if (node / "index").read_text().strip() == "0"
        ]
    try:
        names = _of_directshow() if platform.system() == "Windows" else _of_macos()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise CameraUnavailable(f"cameras cannot be listed ({error}); name one by its number: camera:0") from error
    return [CameraInfo(f"camera:{index}", name) for index, name in enumerate(names)]


def _of_directshow() -> list[str]:
    """FFmpeg asks DirectShow as OpenCV does, so both count alike. Raises OSError, ValueError."""
    from av.device import enumerate_input_devices

    return [one.description or one.name for one in enumerate_input_devices("dshow") if "video" in one.media_types]


def _of_macos() -> list[str]:
    """OpenCV counts cameras in the order of their ids, which the system's own report has, too.

    Raises OSError, SubprocessError, ValueError.
    """
    report = ["system_profiler", "-json", "SPCameraDataType"]
    told = subprocess.run(report, capture_output=True, timeout=PROFILER_S, check=True).stdout
    cameras = [one for one in read_json_object(told).get("SPCameraDataType", []) if isinstance(one, dict)]
    ordered = sorted(cameras, key=lambda one: str(one.get("spcamera_unique-id")))
    return [str(one.get("_name", "camera")) for one in ordered]


def _device_trouble(source: str) -> str:
    device = Path(source.replace("camera:", "/dev/video"))
    try:
        cameras = ", ".join(f"{camera.source} ({camera.name})" for camera in list_cameras())
    except CameraUnavailable as error:
        return str(error)
    found = f"found: {cameras}" if cameras else "no camera was found here; connect one or name a file or stream"
    if platform.system() == "Linux" and not device.exists():
        return f"no such camera; {found}"
    if platform.system() == "Linux" and not os.access(device, os.R_OK | os.W_OK):
        return f"permission denied on {device}; add yourself to its group: sudo usermod -aG video $USER, log in again"
    hint = {
        "Darwin": "; or this terminal may not: System Settings, Privacy & Security, Camera",
        "Windows": "; or programs may not: Settings, Privacy & security, Camera, desktop apps",
    }.get(platform.system(), "")
    return f"cannot be opened; another program may be using it ({found}){hint}"
