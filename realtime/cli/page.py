"""Page that a command serves, and where."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dhmd.command_line import Flags, Parser

if TYPE_CHECKING:
    from realtime.settings import RunSettings
    from realtime.web.address import WebAddress
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

logger = logging.getLogger(__name__)


def add_address_flags(command: Parser) -> Flags:
    """Add the flags of where a page is; returns their group."""
    group = command.add_argument_group("the page")
    group.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address to serve on (default: 127.0.0.1, this machine only)",
    )
    group.add_argument("--port", type=int, metavar="PORT", help="port; 0 takes a free one (default: 8765)")
    group.add_argument("--tls-cert", metavar="FILE", help="serve over TLS with this certificate, PEM")
    group.add_argument("--tls-key", metavar="FILE", help="the certificate's private key, PEM")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="keep the page's token in this file, so that its address stays (default: a new one at each start)",
    )
    return group


def address_settings(options: argparse.Namespace) -> RunSettings:
    """Return what `add_address_flags` asked for. Raises SettingsInvalid."""
    from realtime.layers import read_settings

    keys = ("host", "port", "tls_cert", "tls_key", "token_file")
    return read_settings(None, {key: value for key in keys if (value := getattr(options, key)) is not None})


def address_of(settings: RunSettings, *, camera: bool = True) -> WebAddress:
    """Return where the page is. camera: whether it may want one. Raises SettingsInvalid."""
    from realtime.web.address import WebAddress
    from realtime.web.certificate import Certificate

    cert, key = (None if path is None else Path(path) for path in (settings.tls_cert, settings.tls_key))
    kept = None if settings.token_file is None else Path(settings.token_file)
    address = WebAddress.of(settings.host, settings.port, Certificate.of(cert, key), settings.proxy, kept)
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
