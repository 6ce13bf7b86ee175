"""Address of the page, and who may ask for it."""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from realtime.errors import SettingsInvalid
from realtime.session.files import private
from realtime.web.certificate import Certificate

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
LONGEST_TOKEN: Final = 1024


@dataclass(frozen=True, slots=True)
class WebAddress:
    """Address of the page. token: asked of every page; None on loopback. certificate: of TLS, where it is on.

    proxy: address of a proxy that knows whom it lets in. Only it is answered, and no token is asked.
    """

    host: str
    port: int
    token: str | None = None
    certificate: Certificate | None = None
    proxy: str | None = None

    @classmethod
    def of(
        cls,
        host: str,
        port: int,
        certificate: Certificate | None = None,
        proxy: str | None = None,
        kept: Path | None = None,
    ) -> WebAddress:
        """Return an address, with a token where others can reach it. Raises SettingsInvalid.

        kept: file of the token, which is made where there is none; None makes a new one.
        """
        if not 0 <= port <= 65535:
            raise SettingsInvalid(f"--port: expected 0 to 65535, found {port}")
        try:
            loopback = host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            raise SettingsInvalid(f"--host: expected an address such as 127.0.0.1 or 0.0.0.0, found {host!r}") from None
        if proxy is not None:
            try:
                proxy = str(ip_address(proxy))
            except ValueError:
                raise SettingsInvalid(f"--proxy: expected an address such as 172.30.32.2, found {proxy!r}") from None
        token = None
        if not loopback and proxy is None:
            token = new_token() if kept is None else kept_token(kept)
        return cls(host, port, token, certificate, proxy)

    def url(self, port: int) -> str:
        host = _outward(self.host) if self.host != "localhost" and ip_address(self.host).is_unspecified else self.host
        host = f"[{host}]" if ":" in host else host
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{host}:{port}/{self.query}"

    @property
    def is_secure(self) -> bool:
        """Whether browsers give the page a camera: on loopback, or over TLS."""
        return self.token is None or self.certificate is not None

    @property
    def query(self) -> str:
        """End of the address of anything that is served to the page."""
        return f"?token={self.token}" if self.token else ""

    def is_ours(self, host: str) -> bool:
        """Tell whether a page was asked of us by our own name: on loopback others may point theirs at it."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self.token is not None or self.proxy is not None or name in {"localhost", "127.0.0.1", "::1", self.host}

    def is_own_page(self, request: HTTPConnection) -> bool:
        """Tell whether a request is from a page that we served: same host and port, and over TLS where that is on."""
        try:
            origin = urlsplit(request.headers.get("origin", ""))
        except ValueError:
            return False
        # Without TLS of our own there may be a proxy in front of us that has it.
        scheme = {"https"} if self.certificate is not None else {"http", "https"}
        ours = {request.headers.get("host", "")}
        if self.proxy is not None and (outside := request.headers.get("x-forwarded-host")):
            ours.add(outside)
        return origin.scheme in scheme and origin.netloc in ours

    def admits(self, token: str | None) -> bool:
        return self.token is None or (token is not None and hmac.compare_digest(token.encode(), self.token.encode()))

    def refusal(self, request: HTTPConnection) -> Response | None:
        """Return the answer to a request that may not have what is served here; None where it may."""
        if not self.is_ours(request.headers.get("host", "")):
            return PlainTextResponse("ask for this page by the address that dhmd-live printed", 403)
        if not self.admits(request.query_params.get("token")):
            return PlainTextResponse("this page needs the token that dhmd-live printed: open the whole address", 403)
        return None


def new_token() -> str:
    return secrets.token_urlsafe(16)


def kept_token(path: Path) -> str:
    """Read the token that a file keeps; where there is no such file, it is made, with a new one, for its owner's eyes.

    Raises SettingsInvalid.
    """
    try:
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii", opener=private) as file:
            file.write(f"{new_token()}\n")
        with path.open("rb") as file:
            token = file.read(LONGEST_TOKEN + 1).decode("ascii").strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsInvalid(f"--token-file {path}: cannot be read or made ({reason}); name another file") from None
    if not TOKEN.fullmatch(token):
        raise SettingsInvalid(f"--token-file {path}: expected 16 to 128 of A-Z a-z 0-9 - _; remove it to have one made")
    return token


def _outward(host: str) -> str:
    """The address under which other machines reach one that listens on all of its own; nothing is sent."""
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # of the ranges for documentation (RFC 5737, RFC 3849)
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
