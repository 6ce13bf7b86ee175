"""Cameras of this machine: without any, and by their names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from realtime.capture import camera as camera_module
from realtime.capture.camera import Camera, CameraInfo, is_camera, list_cameras
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable
from realtime.layers import read_settings


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


REPORT = {
    "SPCameraDataType": [
        {"_name": "Studio Display Camera", "spcamera_unique-id": "0x9"},
        {"_name": "FaceTime HD Camera", "spcamera_unique-id": "0x1"},
    ]
}


def test_cameras_of_macos_are_named_in_the_order_in_which_they_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "system_profiler"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(REPORT)}'\n")
    program.chmod(0o755)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert list_cameras() == [
        CameraInfo("camera:0", "FaceTime HD Camera"),
        CameraInfo("camera:1", "Studio Display Camera"),
    ]
    assert "Privacy & Security, Camera" in trouble("camera:7")
    program.write_text("#!/bin/sh\nexit 1\n")
    assert "name one by its number: camera:0" in trouble("camera:7")


def test_cameras_of_windows_are_named_as_directshow_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def devices(form: str) -> list[SimpleNamespace]:
        assert form == "dshow"
        return [
            SimpleNamespace(name="@device:1", description="Microphone (C920)", media_types=["audio"]),
            SimpleNamespace(name="@device:2", description="Integrated Webcam", media_types=["video"]),
            SimpleNamespace(name="OBS Virtual Camera", description="", media_types=["video", "audio"]),
        ]

    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("av.device.enumerate_input_devices", devices)
    names = ["Integrated Webcam", "OBS Virtual Camera"]
    assert [(camera.source, camera.name) for camera in list_cameras()] == [
        (f"camera:{index}", name) for index, name in enumerate(names)
    ]
    assert "found: camera:0 (Integrated Webcam), camera:1 (OBS Virtual Camera)" in trouble("camera:7")


@pytest.mark.parametrize(
    "source", [r"C:\Users\me\talk.mp4", "C:/talk.mp4", r"\\nas\films\talk.mp4", r"..\talk.mp4", "/Users/me/talk.mp4"]
)
def test_paths_of_other_systems_are_files(source: str) -> None:
    settings = read_settings(None, {"source": source, "pace": "max"})
    assert not settings.is_live
    assert settings.shown()["source"] == source


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
