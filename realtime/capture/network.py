"""Network streams, through the media reader's FFmpeg."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dhmd.media.container import FORMATS
from dhmd.media.picture import Picture, Raster
from realtime.capture.samples import VideoFrame
from realtime.clock import StreamClock
from realtime.errors import CameraUnavailable

if TYPE_CHECKING:
    from av.container import InputContainer

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 3.0
DEFAULT_PORTS: Final = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
ENCRYPTED: Final = frozenset({"rtsps", "https"})
PROTOCOLS: Final = {
    "rtsp": "rtsp,rtp,tcp",
    "rtsps": "rtsp,rtp,tls,tcp",
    "http": "http,tcp",
    "https": "https,tls,tcp,httpproxy",
}
"""What a stream of a scheme may be read over: whoever asks for encryption is not led away from it."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom encrypted streams are read from. ca: PEM file; None: the system's. insecure: anybody."""

    ca: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def options(self) -> dict[str, str]:
        """FFmpeg's. Its own idea of the system's authorities depends on where it was built."""
        if self.insecure:
            return {"tls_verify": "0"}
        ca = self.ca or ssl.get_default_verify_paths().cafile
        return {"tls_verify": "1", **({"ca_file": ca} if ca else {})}


class NetworkStream:
    """Frames of an rtsp[s]:// or http[s]:// stream.

    A frame's capture time is the stream time at which it was decoded: cameras give no time of exposure that could be
    trusted across makers, so exposure, transfer and buffering come on top unseen.
    """

    def __init__(self, source: str, clock: StreamClock, trust: Trust | None = None) -> None:
        self.clock = clock
        self.name = masked(source)
        """The source as it may be shown."""
        self._source = source
        self._trust = trust or Trust()

    def frames(self, stop: threading.Event) -> Iterator[VideoFrame]:
        """Open the stream and yield its frames until `stop`.

        Raises CameraUnavailable when it cannot be opened, when it ends, and when it delivers nothing for
        READ_TIMEOUT_S.
        """
        from av.error import FFmpegError

        with self._open() as container:
            film = container.streams.video[0]
            raster = Raster.of(container, film)
            packets = container.demux(film)
            while not stop.is_set():
                try:
                    packet = next(packets, None)
                except FFmpegError:
                    packet = None
                if packet is None or not packet.size:
                    raise CameraUnavailable(f"{self.name}: stopped delivering; check that it is on and connected")
                try:
                    decoded = packet.decode()
                except FFmpegError:
                    continue  # Lost on the way, or from before the first whole picture.
                for frame in decoded:
                    now_s = self.clock.now()
                    yield VideoFrame(Picture(now_s, frame, raster).image(), captured_s=now_s, arrived_s=now_s)

    def _open(self) -> InputContainer:
        try:
            import av
        except ModuleNotFoundError:
            raise CameraUnavailable("PyAV, which reads network streams, is missing; pip install av") from None
        scheme = self._source.partition("://")[0].lower()
        options = {
            "protocol_whitelist": PROTOCOLS[scheme],
            "format_whitelist": f"{FORMATS},rtsp" if scheme.startswith("rtsp") else FORMATS,
            **({"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}),
            **(self._trust.options() if scheme in ENCRYPTED else {}),
        }
        try:
            container = av.open(self._source, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
        except (av.error.FFmpegError, OSError):
            raise CameraUnavailable(f"{self.name}: {self._trouble(scheme)}") from None
        if not container.streams.video:
            container.close()
            raise CameraUnavailable(f"{self.name}: holds no pictures; check the path")
        return container

    def _trouble(self, scheme: str) -> str:
        try:
            url = urlsplit(self._source)
            port = url.port or DEFAULT_PORTS[scheme]
        except ValueError:
            return "not a valid address; it reads rtsp://host:port/path or http://host:port/path"
        host = url.hostname
        if not host:
            return "names no host; it reads rtsp://host:port/path or http://host:port/path"
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            with socket.create_connection((host, port), OPEN_TIMEOUT_S) as plain:
                if scheme in ENCRYPTED:
                    self._trust.context().wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            return (
                f"the certificate of {shown} is not to be trusted ({error.verify_message}); "
                "name its CA with --source-ca FILE, or take anybody's with --source-insecure"
            )
        except ssl.SSLError as error:
            return f"{shown} answers, but not over TLS ({error.reason or error}); check scheme and port"
        except OSError as error:
            return f"{shown} cannot be reached ({error.strerror or error}); check address and network"
        return f"{shown} answers, but not with a stream that can be read; check path, user and password"


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
