"""Resources that this machine lends to this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ENOUGH_FILES: Final = 4096


def cores() -> int:
    """Number of cores that this process may use; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processors(of: Path = Path("/")) -> float:
    """Number of cores that this process may keep busy: all of `cores`, or less where a control group of Linux holds it
    to a quota, as containers and systemd's CPUQuota do.

    of: the root below which the system tells of itself.
    """
    return min([float(cores()), *_quotas(of / "sys" / "fs" / "cgroup", of / "proc" / "self" / "cgroup")])


def _quotas(mounted: Path, memberships: Path) -> Iterator[float]:
    """Cores of the groups of this process and of all above them, by both versions of control groups."""
    with suppress(OSError):
        for line in memberships.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # A container sees its own group as the root, whatever path it is told.
            group = mounted / ("cpu" if controllers else "") / path.lstrip("/")
            for place in (group, *group.parents[: len(group.parts) - len(mounted.parts)]):
                with suppress(OSError, ValueError):
                    if controllers:
                        quota, period = ((place / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                    else:
                        quota, period = (place / "cpu.max").read_text().split()
                    if float(quota) > 0:  # -1 is none; of `max` ValueError
                        yield float(quota) / float(period)


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
