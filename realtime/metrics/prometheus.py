"""The server that answers Prometheus, on a port of its own, if one was asked for. Its library is loaded only then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.console import Console

from realtime.errors import SettingsInvalid

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

LOOPBACK: Final = "127.0.0.1"


@contextlib.contextmanager
def exposed(host: str | None, port: int | None, console: Console) -> Iterator[CollectorRegistry | None]:
    """Answer on `http://HOST:PORT/metrics` with what is registered, for as long as the context lasts.

    host: None for loopback. port: None for not at all, which gives None; 0 for a free one. Raises SettingsInvalid.
    """
    if port is None:
        if host is not None:
            raise SettingsInvalid("--metrics-host: goes with a port; add --metrics-port")
        yield None
        return
    if not 0 <= port <= 65535:
        raise SettingsInvalid(f"--metrics-port: expected 0 to 65535, found {port}")
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry, name = CollectorRegistry(), host or LOOPBACK
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, name, registry)
    except OSError as error:
        raise SettingsInvalid(
            f"--metrics-host {name} --metrics-port {port}: {error.strerror}; "
            "name another --metrics-port, or 0 for a free one"
        ) from None
    name = f"[{name}]" if ":" in name else name
    console.print(f"metrics: http://{name}:{server.server_port}/metrics", markup=False, highlight=False, soft_wrap=True)
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
