"""Cameras and network streams, through OpenCV."""

from __future__ import annotations

import os
import platform
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from realtime.capture.samples import VideoFrame
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable

if TYPE_CHECKING:
    import cv2

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 3.0
DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
V4L_DEVICES = Path("/sys/class/video4linux")
_INDEX = re.compile(r"camera:(\d{1,3})")


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """source: what to give to Camera. name: what the maker calls it."""

    source: str
    name: str


class Camera:
    """Frames of "camera:N", a device such as /dev/video0, or an rtsp:// or http(s):// stream.

    A frame's capture time is the stream time at which OpenCV handed it over: cameras give no time of exposure that
    could be trusted across drivers, so exposure, transfer and (of a network stream) buffering come on top unseen.
    """

    def __init__(self, source: str, clock: StreamClock) -> None:
        self.clock = clock
        self.name = masked(source)
        """The source as it may be shown."""
        self._source = source
        if not is_camera(source):
            raise CameraUnavailable(f"{self.name}: not a camera; use camera:N, /dev/videoN, rtsp:// or http://")

    def frames(self, stop: threading.Event) -> Iterator[VideoFrame]:
        """Open the source and yield its frames until `stop`.

        Raises CameraUnavailable when it cannot be opened, when it ends, and when a stream delivers nothing for
        READ_TIMEOUT_S (a device: OpenCV's own 10 s).
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
        # OpenCV reads it when it opens its first stream: FFmpeg would write complaints of its own beside our one line.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        try:
            import cv2
        except ImportError:
            raise CameraUnavailable("OpenCV, which reads cameras, is missing; pip install opencv-python") from None
        import cv2.utils.logging

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        if is_stream(self._source):
            open_ms, read_ms = int(OPEN_TIMEOUT_S * 1000), int(READ_TIMEOUT_S * 1000)
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_ms]
            capture = cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, timeouts)
            cause = _stream_trouble
        else:
            index = _INDEX.fullmatch(self._source)
            backend = cv2.CAP_V4L2 if platform.system() == "Linux" else cv2.CAP_ANY
            capture = cv2.VideoCapture(int(index[1]), backend) if index else cv2.VideoCapture(self._source, backend)
            # What waits in the driver is old: keep one picture.
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            cause = _device_trouble
        if not capture.isOpened():
            raise CameraUnavailable(f"{self.name}: {cause(self._source)}")
        return capture


def is_camera(source: str) -> bool:
    """Whether Camera takes it: camera:N, a device under /dev, or a network stream; anything else is a file."""
    return _INDEX.fullmatch(source) is not None or source.startswith("/dev/") or is_stream(source)


def is_stream(source: str) -> bool:
    scheme, separator, _ = source.partition("://")
    return bool(separator) and scheme.lower() in DEFAULT_PORTS


def masked(source: str) -> str:
    """The source without what may be secret: user and password, and the query, where many cameras take them."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        return source
    # Up to the last "@", as a password may hold any sign; and by hand, as the address may be malformed.
    address, query, _ = rest.rpartition("@")[2].partition("?")
    return f"{scheme}://{address}{'?...' if query else ''}"


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


def _stream_trouble(source: str) -> str:
    try:
        url = urlsplit(source)
        port = url.port or DEFAULT_PORTS[url.scheme.lower()]
    except ValueError:
        return "not a valid address; it reads rtsp://host:port/path or http://host:port/path"
    if not url.hostname:
        return "names no host; it reads rtsp://host:port/path or http://host:port/path"
    try:
        socket.create_connection((url.hostname, port), OPEN_TIMEOUT_S).close()
    except OSError as error:
        return f"{url.hostname}:{port} cannot be reached ({error.strerror or error}); check address and network"
    return f"{url.hostname}:{port} answers, but not with a stream that can be read; check path, user and password"
