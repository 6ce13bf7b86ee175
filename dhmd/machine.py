"""Resources that this machine lends to this process."""

from __future__ import annotations

import os


def cores() -> int:
    """Number of cores that this process may use; all of them where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
