"""Processor time is told by the name of the thread that used it."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from realtime.bench import threads
from realtime.bench.threads import ThreadLog


def test_a_busy_thread_is_told_from_an_idle_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SETTLED_S", 0.05)
    monkeypatch.setattr(threads, "EVERY_S", 0.05)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            hashlib.sha256(bytes(1_000_000)).digest()

    workers = [
        threading.Thread(target=work, name="busy_0"),
        threading.Thread(target=stop.wait, name="idle"),
    ]
    with ThreadLog() as log:
        for worker in workers:
            worker.start()
        time.sleep(1.0)
        stop.set()
        for worker in workers:
            worker.join()
    assert log.cores["busy"] > 10 * log.cores["idle"]
    assert log.cores["busy"] > 0.1
    assert next(iter(log.cores)) == "busy"
