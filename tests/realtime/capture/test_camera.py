"""Cameras through a real HTTP MJPEG stream, and every way in which one can fail."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.capture import camera as camera_module
from realtime.capture.camera import Camera, CameraInfo, is_camera, list_cameras, masked
from realtime.capture.queues import LatestFrame
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable
from realtime.workers import Backoff, WorkerState, WorkerStatus, supervise

ServeMjpeg = Callable[..., Any]
GREYS = [np.full((48, 64, 3), 20 + 10 * number, np.uint8) for number in range(20)]


def watch(source: str, stop: threading.Event | None = None) -> Iterator[Any]:
    return Camera(source, StreamClock()).frames(stop or threading.Event())


def trouble(source: str) -> str:
    with pytest.raises(CameraUnavailable) as caught:
        next(watch(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_stream_delivers_its_pictures_in_order_at_the_time_they_arrive(serve_mjpeg: ServeMjpeg) -> None:
    frames = list(islice(watch(serve_mjpeg(GREYS).url), 15))
    greys = [float(frame.image.mean()) for frame in frames]
    assert np.diff(greys) == pytest.approx([10] * 14, abs=2)
    assert {(frame.image.shape, frame.image.dtype.name) for frame in frames} == {((48, 64, 3), "uint8")}
    times_s = [frame.captured_s for frame in frames]
    assert times_s == sorted(set(times_s))
    assert all(frame.arrived_s == frame.captured_s for frame in frames)


def test_a_stream_of_a_film_made_by_ffmpeg(make_media: Callable[..., Path], serve_mjpeg: ServeMjpeg) -> None:
    from realtime.capture.media import MediaFile

    film = make_media("film.mp4", "-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=1", "-pix_fmt", "yuv420p")
    images = [frame.image for frame in MediaFile(film).frames()]
    seen = next(watch(serve_mjpeg(images).url)).image
    assert min(np.abs(seen.astype(int) - image).mean() for image in images) < 8


def test_stopping_ends_the_frames(serve_mjpeg: ServeMjpeg) -> None:
    stop = threading.Event()
    frames = watch(serve_mjpeg(GREYS).url, stop)
    next(frames)
    stop.set()
    assert list(frames) == []


def test_a_stream_that_ends_says_so(serve_mjpeg: ServeMjpeg) -> None:
    server = serve_mjpeg(GREYS)
    frames = watch(server.url)
    next(frames)
    server.vanish()
    with pytest.raises(CameraUnavailable, match="stopped delivering"):
        list(frames)


def test_a_stream_that_stalls_says_so(serve_mjpeg: ServeMjpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "READ_TIMEOUT_S", 0.5)
    server = serve_mjpeg(GREYS)
    frames = watch(server.url)
    next(frames)
    server.stalled = True
    with pytest.raises(CameraUnavailable, match="stopped delivering"):
        list(frames)


def test_a_camera_that_vanishes_is_back_when_it_is_back(serve_mjpeg: ServeMjpeg) -> None:
    server = serve_mjpeg(GREYS)
    latest = LatestFrame()
    reports: list[WorkerStatus] = []
    camera = Camera(server.url, StreamClock())

    def read(stop: threading.Event, running: Callable[[], None]) -> None:
        for frame in camera.frames(stop):
            running()
            latest.put(frame)

    async def session() -> None:
        arriving: asyncio.Queue[WorkerStatus] = asyncio.Queue()

        async def report_reaches(state: WorkerState) -> None:
            reports.append(await arriving.get())
            while reports[-1].state is not state:
                reports.append(await arriving.get())

        backoff = Backoff(first_s=0.05, cap_s=0.1)
        task = asyncio.create_task(supervise("camera", read, on_status=arriving.put_nowait, backoff=backoff))
        await report_reaches(WorkerState.RUNNING)
        server.vanish()
        await report_reaches(WorkerState.RESTARTING)
        latest.take()
        server.appear()
        await report_reaches(WorkerState.RUNNING)
        assert await asyncio.to_thread(latest.wait)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(session())
    reasons = {report.reason for report in reports if report.state is WorkerState.RESTARTING}
    assert all("stopped delivering" in reason or "cannot be reached" in reason for reason in reasons)
    assert reports[-1].restarts >= 1


def test_a_wrong_password_is_said_without_showing_it(serve_mjpeg: ServeMjpeg) -> None:
    server = serve_mjpeg(GREYS)
    address = f"127.0.0.1:{server.port}"
    assert next(watch(f"http://me:s3cret@{address}/locked")).image.shape == (48, 64, 3)
    message = trouble(f"http://me:wr0ng@{address}/locked")
    assert message == (
        f"http://{address}/locked: {address} answers, but not with a stream that can be read; "
        "check path, user and password"
    )


def test_an_address_that_serves_no_pictures(serve_mjpeg: ServeMjpeg) -> None:
    assert "not with a stream that can be read" in trouble(serve_mjpeg(GREYS).url.replace("stream.mjpg", "words"))


def test_an_address_where_nobody_answers(serve_mjpeg: ServeMjpeg) -> None:
    server = serve_mjpeg(GREYS)
    server.vanish()
    assert f"127.0.0.1:{server.port} cannot be reached (Connection refused)" in trouble(server.url)
    assert "names no host" in trouble("rtsp://")
    assert "not a valid address" in trouble("http://127.0.0.1:port/")


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


@given(
    user=st.text("abcXYZ", min_size=1),
    password=st.text(st.characters(codec="ascii"), min_size=1),
    query=st.text("p=&1"),
)
def test_secrets_in_an_address_are_never_shown(user: str, password: str, query: str) -> None:
    """Whatever the password holds, even unescaped."""
    address = f"rtsp://{user}:{password}@host:554/live{'?' + query if query else ''}"
    assert masked(address) == ("rtsp://host:554/live?..." if query else "rtsp://host:554/live")


def test_nothing_but_our_line_reaches_the_terminal(serve_mjpeg: ServeMjpeg) -> None:
    """OpenCV and FFmpeg write to the process's stderr by themselves."""
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
    server = serve_mjpeg(GREYS)
    sources = ["camera:91", "/dev/video91", server.url.replace("stream.mjpg", "words"), "http://127.0.0.1:1/x"]
    done = subprocess.run(
        [sys.executable, "-c", script, *sources], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(sources)
