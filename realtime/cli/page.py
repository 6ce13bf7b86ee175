"""Page that a command serves, and where."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.cli.flags import Parser

if TYPE_CHECKING:
    from realtime.web.address import WebAddress
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

logger = logging.getLogger(__name__)


def add_address_flags(command: Parser) -> None:
    command.add_argument(
        "--host", default="127.0.0.1", help="address to serve on (default: %(default)s, this machine only)"
    )
    command.add_argument("--port", type=int, default=8765, help="port; 0 takes a free one (default: %(default)s)")
    command.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve over TLS with this certificate, PEM")
    command.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key, PEM")


def address_of(options: argparse.Namespace, *, camera: bool = True) -> WebAddress:
    """Return what `add_address_flags` asked for. camera: whether the page may want one."""
    from realtime.web.address import WebAddress
    from realtime.web.certificate import Certificate

    address = WebAddress.of(options.host, options.port, Certificate.of(options.tls_cert, options.tls_key))
    if camera and not address.is_secure:
        logger.warning(
            "browsers give a camera only to secure pages, so on other machines this page has none; serve it over TLS "
            "with --tls-cert and --tls-key"
        )
    return address


def page_of(stream: str, address: WebAddress | None = None) -> WebServer[Viewers]:
    """A page that looks at one stream; by default on loopback, on a free port."""
    from realtime.web.address import WebAddress
    from realtime.web.feed import Feed
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

    return WebServer(Viewers(Feed(stream)), address or WebAddress.of("127.0.0.1", 0))
