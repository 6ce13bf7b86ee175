"""Network streams: MJPEG over HTTP and H.264 over RTSP, plain and encrypted, and every way in which one can fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
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

from realtime.capture import network
from realtime.capture.network import NetworkStream, Trust, masked
from realtime.capture.queues import LatestFrame
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable, SettingsInvalid
from realtime.layers import read_settings
from realtime.workers import Backoff, WorkerState, WorkerStatus, supervise

ServeMjpeg = Callable[..., Any]
GREYS = [np.full((48, 64, 3), 20 + 10 * number, np.uint8) for number in range(20)]


def watch(source: str, stop: threading.Event | None = None, trust: Trust | None = None) -> Iterator[Any]:
    return NetworkStream(source, StreamClock(), trust).frames(stop or threading.Event())


def trouble(source: str, trust: Trust | None = None) -> str:
    with pytest.raises(CameraUnavailable) as caught:
        next(watch(source, trust=trust))
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
    monkeypatch.setattr(network, "READ_TIMEOUT_S", 0.5)
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
    camera = NetworkStream(server.url, StreamClock())

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
    """FFmpeg writes to the process's stderr by itself."""
    script = """
import sys, threading
from realtime.capture.network import NetworkStream
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable, SettingsInvalid
from realtime.layers import read_settings
for source in sys.argv[1:]:
    try:
        next(NetworkStream(source, StreamClock()).frames(threading.Event()))
    except CameraUnavailable as error:
        print(error)
"""
    server = serve_mjpeg(GREYS)
    sources = [server.url.replace("stream.mjpg", "words"), "http://127.0.0.1:1/x"]
    done = subprocess.run(
        [sys.executable, "-c", script, *sources], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(sources)


class RtspCamera:
    """Serves what FFmpeg encodes, H.264 in RTP, within the connection (RFC 2326, 10.12). tls: of an rtsps:// one."""

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[str] = []
        self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtp.bind(("127.0.0.1", 0))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        sdp = folder / "camera.sdp"
        film = ("-re", "-f", "lavfi", "-i", "testsrc=s=160x120:r=25", "-vf", "setsar=4/3", "-pix_fmt", "yuv420p")
        coded = ("-c:v", "libx264", "-tune", "zerolatency", "-g", "10", "-f", "rtp", "-sdp_file", str(sdp))
        self._ffmpeg = subprocess.Popen(
            ["ffmpeg", "-v", "error", *film, *coded, f"rtp://127.0.0.1:{self._rtp.getsockname()[1]}?pkt_size=1200"],
            stdout=subprocess.DEVNULL,
        )
        self._rtp.recv(2000)  # By then the description is written.
        self._sdp = sdp.read_text().removeprefix("SDP:\n")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._server.accept()[0],), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            self._speak(plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True))

    def _speak(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                method, address, _ = line.decode().split(" ")
                headers = dict(line.decode().strip().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
                self.requests.append(method)
                more, body = "", ""
                if method == "DESCRIBE":
                    body = self._sdp
                    more = (
                        f"Content-Base: {address}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                    )
                elif method == "SETUP":
                    more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                head = f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\n{more}\r\n"
                connection.sendall((head + body).encode())
                if method == "PLAY":
                    while True:
                        packet = self._rtp.recv(2000)
                        connection.sendall(b"$\x00" + len(packet).to_bytes(2) + packet)

    def close(self) -> None:
        self._ffmpeg.kill()
        self._ffmpeg.wait()
        self._server.close()
        self._rtp.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that is its own CA, with its key."""
    path = tmp_path_factory.mktemp("tls") / "camera.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    named = ["-subj", "/CN=camera", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*made, *named, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture(scope="module")
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_stream_over_rtsp_has_its_pixels_made_square(make_media: object, tmp_path: Path) -> None:
    camera = RtspCamera(tmp_path)
    try:
        frames = list(islice(watch(f"rtsp://127.0.0.1:{camera.port}/live"), 10))
    finally:
        camera.close()
    assert {frame.image.shape for frame in frames} == {(120, 213, 3)}
    assert camera.requests[-1] == "PLAY"


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_an_encrypted_stream_is_read_from_whom_it_is_to_be_read_from(
    make_media: object,
    tmp_path: Path,
    serve_mjpeg: ServeMjpeg,
    certificate: Path,
    tls: ssl.SSLContext,
    scheme: str,
) -> None:
    camera = serve_mjpeg(GREYS, tls=tls) if scheme == "https" else RtspCamera(tmp_path, tls)
    url = f"{scheme}://127.0.0.1:{camera.port}/stream.mjpg"
    try:
        for trust in (Trust(), None):
            message = trouble(url, trust)
            assert "is not to be trusted (self-signed certificate)" in message
            assert "--source-ca FILE, or take anybody's with --source-insecure" in message
        for trust in (Trust(str(certificate)), Trust(insecure=True)):
            assert len(list(islice(watch(url, trust=trust), 3))) == 3
        assert "not to be trusted" in trouble(url.replace("127.0.0.1", "localhost"), Trust(str(certificate)))
    finally:
        if isinstance(camera, RtspCamera):
            camera.close()


def test_a_stranger_s_certificate_ends_it_before_anything_is_asked_for(
    make_media: object, tmp_path: Path, tls: ssl.SSLContext
) -> None:
    camera = RtspCamera(tmp_path, tls)
    try:
        trouble(f"rtsps://me:s3cret@127.0.0.1:{camera.port}/live")
    finally:
        camera.close()
    assert camera.requests == []


def test_a_server_that_is_not_encrypted_says_so(serve_mjpeg: ServeMjpeg) -> None:
    assert "answers, but not over TLS" in trouble(serve_mjpeg(GREYS).url.replace("http", "https"))


def test_a_camera_cannot_send_its_reader_elsewhere(
    serve_mjpeg: ServeMjpeg, make_media: Callable[..., Path], certificate: Path, tls: ssl.SSLContext
) -> None:
    """A playlist of its own server, which names a file of this machine, or another one; and from https to http."""
    film = make_media("secret.ts", "-f", "lavfi", "-i", "testsrc=s=160x120:r=25:d=1", "-pix_fmt", "yuv420p")
    server, encrypted = serve_mjpeg(GREYS), serve_mjpeg(GREYS, tls=tls)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        encrypted.elsewhere = f"http://127.0.0.1:{other.getsockname()[1]}/stream.mjpg"
        for part in (film, f"http://127.0.0.1:{other.getsockname()[1]}/part.ts"):
            server.words = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{part}\n#EXT-X-ENDLIST\n".encode()
            for path in ("words", "words.m3u8"):
                assert "not with a stream that can be read" in trouble(server.url.replace("stream.mjpg", path))
        away = f"https://127.0.0.1:{encrypted.port}/away"
        assert "not with a stream that can be read" in trouble(away, Trust(str(certificate)))
        with pytest.raises(BlockingIOError):
            other.accept()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"source": "rtsp://camera/", "source_insecure": True}, "go with --source https:// or rtsps://"),
        ({"source": "https://camera/", "source_ca": "missing.pem"}, "--source-ca missing.pem: cannot be read as PEM"),
        ({"source": "https://c/", "source_ca": "a.pem", "source_insecure": True}, "leave one of them out"),
    ],
)
def test_what_is_said_of_trust_is_checked_at_once(flags: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read_settings(None, flags)
    assert said in str(caught.value)
