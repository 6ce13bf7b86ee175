"""A certificate and its key, with which the page is served over TLS."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from realtime.errors import SettingsInvalid

OF_ANOTHER = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""What the library says of a key that is not the certificate's, of the same kind and of others."""
EXPIRED, NOT_YET_VALID = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM format, found to belong together."""

    cert: Path
    key: Path

    @classmethod
    def of(cls, cert: Path | None, key: Path | None) -> Certificate | None:
        """Return the certificate; None where neither is given. Raises SettingsInvalid for files that cannot serve."""
        if cert is None and key is None:
            return None
        if cert is None or key is None:
            raise SettingsInvalid("--tls-cert and --tls-key go together; give both, or neither")
        for flag, path in (("--tls-cert", cert), ("--tls-key", key)):
            try:
                pem = path.read_bytes()
            except OSError as error:
                raise SettingsInvalid(f"{flag} {path}: cannot be read ({error.strerror}); name another file") from None
            kind = b"CERTIFICATE-----" if flag == "--tls-cert" else b"PRIVATE KEY-----"
            if b"-----BEGIN " not in pem or kind not in pem:
                what = "certificate" if flag == "--tls-cert" else "private key"
                raise SettingsInvalid(f"{flag} {path}: holds no {what} in PEM format; convert it with openssl")
        context = _context(cert, key)
        if (reason := _out_of_date(context, cert)) is not None:
            raise SettingsInvalid(f"--tls-cert {cert}: {reason}; make or fetch a new one")
        return cls(cert, key)


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked: list[None] = []

    def password() -> str:
        asked.append(None)
        return ""

    try:
        context.load_cert_chain(cert, key, password=password)
    except (ssl.SSLError, OSError, ValueError) as error:
        code = getattr(error, "reason", None)
        if asked:
            reason = "asks for a password; take that away with `openssl pkey -in FILE -out NEW`"
        elif code in OF_ANOTHER:
            reason = f"is not the key of {cert}; name the two that were made together"
        else:
            reason = f"cannot be used with {cert} ({code or error}); make both anew"
        raise SettingsInvalid(f"--tls-key {key}: {reason}") from None
    return context


def _out_of_date(server: ssl.SSLContext, cert: Path) -> str | None:
    """Tell whether browsers will find that a certificate is not valid today: asked of a handshake in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with contextlib.suppress(ssl.SSLError):
        client.load_verify_locations(cert)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up)
    answering = server.wrap_bio(up, down, server_side=True)
    try:
        for side in (asking, answering, asking):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return {EXPIRED: "has expired", NOT_YET_VALID: "is not valid yet"}.get(error.verify_code)
    except ssl.SSLError:
        return None  # browsers have more to say on it than we can
    return None
