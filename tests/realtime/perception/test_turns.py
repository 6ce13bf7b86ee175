"""Turns: no more at once than there is room for, and every worker a fair part."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from realtime.perception.turns import Turns


def test_no_more_compute_at_once_than_there_is_room_for() -> None:
    turns, at_once, most = Turns(2), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal at_once, most
        share = turns.share()
        for _ in range(20):
            with share.turn():
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                time.sleep(0.001)
                with lock:
                    at_once -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
    with turns.share().turn(), turns.share().turn():
        pass  # all of the room is there again


def test_short_turns_come_more_often_than_long_ones() -> None:
    turns, counts, stop = Turns(1), Counter[str](), threading.Event()

    def work(name: str, length_s: float) -> None:
        share = turns.share()
        while not stop.is_set():
            with share.turn():
                time.sleep(length_s)
            counts[name] += 1

    workers = (("face", 0.002), ("face too", 0.002), ("words", 0.02))
    threads = [threading.Thread(target=work, args=one) for one in workers]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert min(counts["face"], counts["face too"]) > 2 * counts["words"] > 2


def test_who_had_nothing_to_do_has_saved_nothing_up() -> None:
    turns, order = Turns(1), list[str]()
    busy, idle = turns.share(), turns.share()
    with busy.turn():
        time.sleep(0.05)

    def work(name: str) -> None:
        with (busy if name == "busy" else idle).turn():
            order.append(name)
            time.sleep(0.01)

    with turns.share().turn():
        threads = [threading.Thread(target=work, args=(name,)) for name in ("busy", "idle")]
        for thread in threads:
            thread.start()
        while len(turns._waiting) < 2:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["idle", "busy"]
    for _ in range(3):
        with busy.turn():
            time.sleep(0.01)
    assert turns.share()._turns._begin(0.0) >= 0.05  # begins level with the others, not at nothing


def test_a_turn_is_given_back_when_what_was_computed_fails() -> None:
    share = Turns(1).share()
    for _ in range(2):
        with pytest.raises(ValueError, match="face"), share.turn():
            raise ValueError("no face")
