"""Cameras of this machine: without any, and by their names."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from realtime.capture import camera as camera_module
from realtime.capture.camera import Camera, CameraInfo, is_camera, list_cameras
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable


def trouble(source: str) -> str:
    with pytest.raises(CameraUnavailable) as caught:
        next(Camera(source, StreamClock()).frames(threading.Event()))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="cameras are listed in /sys on Linux")
def test_a_camera_that_is_not_there_names_those_that_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(camera_module, "V4L_DEVICES", tmp_path)
    assert trouble("camera:91") == (
        "camera:91: no such camera; no camera was found here; connect one or name a file or stream"
    )
    for node, index, name in [
        ("video0", 0, "Integrated Webcam"),
        ("video1", 1, "Integrated Webcam"),
        ("video10", 0, "C920"),
    ]:
        (tmp_path / node).mkdir()
        (tmp_path / node / "index").write_text(f"{index}\n")
        (tmp_path / node / "name").write_text(f"{name}\n")
    assert list_cameras() == [CameraInfo("camera:0", "Integrated Webcam"), CameraInfo("camera:10", "C920")]
    assert "found: camera:0 (Integrated Webcam), camera:10 (C920)" in trouble("/dev/video91")


@pytest.mark.parametrize("source", ["film.mp4", "camera:", "camera:x", "ftp://host/film", "/home/film.mp4", ""])
def test_what_is_no_camera_is_refused_at_once(source: str) -> None:
    assert not is_camera(source)
    with pytest.raises(CameraUnavailable, match="not a camera"):
        Camera(source, StreamClock())


def test_nothing_but_our_line_reaches_the_terminal() -> None:
    """OpenCV writes to the process's stderr by itself."""
    script = """
import sys, threading
from realtime.capture.camera import Camera
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable
for source in sys.argv[1:]:
    try:
        next(Camera(source, StreamClock()).frames(threading.Event()))
    except CameraUnavailable as error:
        print(error)
"""
    sources = ["camera:91", "/dev/video91"]
    done = subprocess.run(
        [sys.executable, "-c", script, *sources], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(sources)
