"""A broker as it is named: its address, and what it takes to be let in."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from realtime.errors import SettingsInvalid

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
DEFAULT_PORT = DEFAULT_PORTS["mqtt"]
WEBSOCKET_PATH = "/mqtt"
"""Path of a broker behind WebSockets, where none is named."""
USER_VARIABLE = "DHMD_BROKER_USER"
PASSWORD_VARIABLE = "DHMD_BROKER_PASSWORD"  # noqa: S105 - its name


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """An MQTT broker. Its text form never shows the password."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    only_311: bool = False
    """Whether it is known to speak no MQTT 5."""
    ca: str | None = None
    """File of the authorities that vouch for it; None: those of the system."""
    cert: str | None = None
    key: str | None = None
    """Our own certificate and its key, which may be in the same file."""
    path: str | None = None
    """Of its WebSockets; None where it speaks MQTT at once."""

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """Read `mqtt[s]://[user:password@]host[:port]`, or `ws[s]://` of the same form with a path at its end.

        Raises SettingsInvalid, which never repeats a password.
        """
        shape = (
            "expected mqtt[s]://[user:password@]host[:port] or ws[s]://host[:port][/path], "
            "with / ? # @ in a password as %2F %3F %23 %40"
        )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SettingsInvalid(f"--broker: its port or host cannot be read; {shape}") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise SettingsInvalid(f"--broker: does not begin with mqtt[s]:// or ws[s]://; {shape}")
        path = (parts.path if parts.path.strip("/") else WEBSOCKET_PATH) if parts.scheme in {"ws", "wss"} else None
        if not parts.hostname or (path is None and parts.path.strip("/")) or parts.query or parts.fragment:
            missing = "nothing may follow the port" if parts.hostname else "names no host"
            raise SettingsInvalid(f"--broker: {missing}; {shape}")
        return cls(
            host=parts.hostname,
            port=port or DEFAULT_PORTS[parts.scheme],
            tls=parts.scheme in {"mqtts", "wss"},
            path=path,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "mqtt" if self.path is None else "ws"
        return f"{scheme}{'s' if self.tls else ''}://{user}{host}:{self.port}{self.path or ''}"


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Files, by name, that it takes to be let in by a broker, beside its address."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    password_file: str | None = None


def named_broker(
    url: str, access: BrokerAccess = BrokerAccess(), environment: Mapping[str, str] = os.environ
) -> BrokerAddress:
    """Returns the broker at an address, with all that it takes to be let in.

    User and password come from the address, else from a file, else from DHMD_BROKER_USER and DHMD_BROKER_PASSWORD.
    Raises SettingsInvalid, never repeating a password.
    """
    address = BrokerAddress.parse(url)
    for flag, value in (("ca", access.ca), ("cert", access.cert), ("key", access.key)):
        if value is not None and not address.tls:
            raise SettingsInvalid(f"--broker-{flag}: is for TLS; give --broker mqtts://host[:port]")
    if access.key is not None and access.cert is None:
        raise SettingsInvalid("--broker-key: belongs to a certificate; name it with --broker-cert")
    username = address.username or environment.get(USER_VARIABLE) or None
    password = address.password
    if password is None and access.password_file is not None:
        password = _first_line(access.password_file)
    if password is None:
        password = environment.get(PASSWORD_VARIABLE) or None
    if password is not None and username is None:
        raise SettingsInvalid(f"--broker: a password without a user; set {USER_VARIABLE}, or mqtt[s]://user@host")
    named = replace(address, username=username, password=password, ca=access.ca, cert=access.cert, key=access.key)
    tls_context(named)
    return named


def _first_line(path: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise SettingsInvalid(f"--broker-password-file {path}: cannot be read ({reason})") from None
    if not lines or not lines[0]:
        raise SettingsInvalid(f"--broker-password-file {path}: its first line is empty; write the password there")
    return lines[0]


def tls_context(broker: BrokerAddress) -> ssl.SSLContext | None:
    """Load the certificates for a broker; None without TLS. Raises SettingsInvalid for files that hold none."""
    return _tls_context(broker.ca, broker.cert, broker.key) if broker.tls else None


@functools.cache
def _tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        reason = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsInvalid(f"--broker-ca {ca}: {reason}; name the PEM file of the CA") from None
    if cert is not None:
        try:
            # The empty password is for keys that want one: OpenSSL would ask for it on the terminal.
            context.load_cert_chain(cert, key, password="")
        except OSError as error:
            reason = "no pair without a passphrase" if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsInvalid(
                f"--broker-cert {cert}, --broker-key {key or cert}: {reason}; name PEM files"
            ) from None
    return context
