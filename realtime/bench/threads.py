"""Processor time of this process by thread."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Final, Self

import psutil

EVERY_S: Final = 0.5
SETTLED_S: Final = 5.0
"""What is counted begins so long after the log was opened: models are loaded then."""


NATIVE: Final = "native"
"""Threads that a library began and gave no name."""


class ThreadLog:
    """Processor time by name of the thread while it is open, native threads included. Linux alone tells; elsewhere
    nothing is logged."""

    def __init__(self) -> None:
        self._first_s: dict[int, float] = {}
        self._newest_s: dict[int, float] = {}
        self._name: dict[int, str] = {}
        self._lasted_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="thread log", daemon=True)

    @property
    def cores(self) -> dict[str, float]:
        """Share of a core that the threads of each name took, the most first."""
        shares: dict[str, float] = defaultdict(float)
        for number, newest_s in self._newest_s.items():
            shares[self._name[number]] += (newest_s - self._first_s.get(number, 0.0)) / self._lasted_s
        return dict(sorted(shares.items(), key=lambda share: -share[1]))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        if sys.platform == "linux" and not self._stop.wait(SETTLED_S):
            begun_s, self._first_s = time.monotonic(), self._read()
            while not self._stop.wait(EVERY_S):
                self._newest_s |= self._read()
                self._lasted_s = time.monotonic() - begun_s

    def _read(self) -> dict[int, float]:
        """Seconds so far by the number of the thread."""
        ours = {thread.native_id: thread.name for thread in threading.enumerate()}
        plain = Path("/proc/self/comm").read_text().rstrip()
        found: dict[int, float] = {}
        for thread in psutil.Process().threads():
            try:
                given = Path(f"/proc/self/task/{thread.id}/comm").read_text().rstrip()
            except OSError:
                continue  # it has ended
            name = ours.get(thread.id, NATIVE if given == plain else given)
            self._name[thread.id] = re.sub(r"[/_-]?\d+(_\d+)?$", "", name)
            found[thread.id] = thread.user_time + thread.system_time
        return found
