"""Resources that this machine lends to this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

ENOUGH_FILES: Final = 4096


def cores() -> int:
    """Number of cores that this process may use; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_files() -> int:
    """Number of files and connections that this process may hold; raised as far as the system lets it."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):
            most = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
            if most > soft:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                soft = most
    else:
        soft = 512
    return soft


@contextmanager
def native_stderr_to(descriptor: int) -> Iterator[None]:
    """Send what native code writes to stderr to another file."""
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
